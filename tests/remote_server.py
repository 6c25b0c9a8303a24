"""A server of the test's own: it answers as an OpenAI-compatible one, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def log_prob(token: str) -> float:
    return -0.25 * len(token)


class Server(ThreadingHTTPServer):
    """A language model of one rule: a token (a word with the white space before it) costs 1/4 a letter."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.faults: list[int] = []  # statuses to answer before anything else
        self.answer: Any = None  # in place of the right one
        self.said = "2"
        self.no_completions = False  # only chat
        self.fails_after: int | None = None  # requests, with status 403
        self.wait = 0.0
        self.more = False  # a token after the text, and choices in reverse

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        time.sleep(self.server.wait)
        late = self.server.fails_after is not None and len(self.server.requests) > self.server.fails_after
        if late:
            self.server.faults = [403]
        elif self.server.no_completions and self.path.endswith("/v1/completions"):
            self.server.faults = [404]
        if self.server.faults:
            status = self.server.faults.pop(0)
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(b"the reason\nand more")
            return
        answer = self.server.answer
        if answer is None:
            answer = self.completions(body) if self.path.endswith("/v1/completions") else self.chat()
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def completions(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = [self.echo(i, prompt) for i, prompt in enumerate(body["prompt"])]
        return {"choices": choices[::-1] if self.server.more else choices}

    def echo(self, index: int, prompt: str) -> dict[str, Any]:
        tokens: list[str] = []
        for letter in prompt:
            if letter.isspace() or not tokens:
                tokens.append(letter)
            else:
                tokens[-1] += letter
        if self.server.more:
            tokens.append(" more")
        offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
        values = [None, *(log_prob(t) for t in tokens[1:])]
        return {
            "index": index,
            "logprobs": {"tokens": tokens, "text_offset": offsets, "token_logprobs": values},
        }

    def chat(self) -> dict[str, Any]:
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": self.server.said}}]}


@contextmanager
def serving() -> Generator[Server]:
    """A server that answers for as long as this lasts."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
