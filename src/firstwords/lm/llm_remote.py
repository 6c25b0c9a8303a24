"""A language model behind an OpenAI-compatible endpoint: texts leave this machine, so it is off by default.

    scores   POST {url}/completions with echo and logprobs: log-probabilities of the texts as given
    choice   POST {url}/chat/completions where a server gives none: the readings as numbered options, the
             number of one as the answer. Any other answer changes nothing; the model never writes a text

Which of the two a server can do is found out by a made-up text (``gives_scores``), before any other is sent.

What is sent, and to whom, is said once before the first request. Audio is never sent. Redirections are not
followed (they would carry key and texts to another host).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPException
from typing import Any, cast, final

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from firstwords.config import Config
from firstwords.errors import RemoteError, UsageError
from firstwords.lm.llm_score import TextScore, TextScorer

_LOCAL = ("localhost", "127.0.0.1", "::1")
_AGAIN = (408, 429, 500, 502, 503, 504)
_CANNOT = (400, 404, 405, 415, 422, 501)  # how servers without echo and logprobs refuse them
_TRIAL = ("one two three", "one too three")  # made up: says nothing of anybody
_LARGEST = 64 << 20  # bytes of an answer
_INSTRUCTION = (
    "A speech recogniser heard one utterance and offers these readings of it. Which one was most likely "
    "said? Answer with its number alone."
)


class RemoteConfig(Config):
    """Where the endpoint is, and that it may be used at all."""

    enabled: bool = False  # nothing is sent unless this is set
    url: str = "http://localhost:8000/v1"
    model: str = Field(min_length=1)
    key_variable: str = "OPENAI_API_KEY"  # the environment variable that holds the key, if one is needed
    timeout: PositiveFloat = 60.0  # seconds a request
    retries: NonNegativeInt = 3  # after the first try, each after twice the pause
    pause: PositiveFloat = 1.0  # seconds
    texts_per_request: PositiveInt = 16
    separator: str = "\n"  # between prompt and text

    @field_validator("url")
    @classmethod
    def url_is_http(cls, value: str) -> str:
        parts = urllib.parse.urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("an address like https://host/v1 is needed")
        if parts.username or parts.password:
            raise ValueError("no names or passwords in the address: put the key into key_variable")
        return value.rstrip("/")


class _NoScores(RemoteError):
    """The server gives no log-probabilities of texts."""


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@final
class RemoteLlm(TextScorer):
    """Scores and choices of a remote language model.

    Args:
        say: gets one sentence before the first request: what leaves this machine, and whereto.
    """

    def __init__(self, config: RemoteConfig, say: Callable[[str], None]) -> None:
        if not config.enabled:
            raise UsageError(
                f"A remote language model would send texts to {config.url}; that is off.",
                mend="Set enabled = true if these texts may leave this machine.",
            )
        self.config = config
        self._say = say
        self._said = False
        self._opener = urllib.request.build_opener(_NoRedirection)

    def gives_scores(self, prompt: str = "") -> bool:
        """Does the server give log-probabilities, or must it choose? RemoteError where it can do neither."""
        try:
            self.score(_TRIAL, prompt)
        except _NoScores:
            self.choose(_TRIAL, prompt)
            return False
        return True

    def unwritten(self, texts: Iterable[str]) -> list[str]:
        """None that is known of: the server has the tokenizer."""
        return []

    def token_count(self, text: str) -> int:
        """A guess: the server has the tokenizer. Four bytes of UTF-8 a token, rounded up."""
        return -(-len(text.encode()) // 4)

    def prompt_cut(self, texts: Sequence[str], prompt: str) -> int:
        """0: the prompt is sent whole, and the server says if it is too long."""
        return 0

    def score(self, texts: Sequence[str], prompt: str = "") -> list[TextScore]:
        """As TextScorer says, but ends are not scored; an empty text has log-probability 0.

        Without a prompt the separator stands before the text: a server gives no log-probability for the very
        first token.
        """
        distinct = [text for text in dict.fromkeys(texts) if text]
        prefix = prompt.rstrip() + self.config.separator
        found: dict[str, TextScore] = {"": TextScore(0.0, 0, 0)}
        for first in range(0, len(distinct), self.config.texts_per_request):
            some = distinct[first : first + self.config.texts_per_request]
            answer = self._post(
                "completions",
                {
                    "model": self.config.model,
                    "prompt": [prefix + text for text in some],
                    "max_tokens": 0,
                    "temperature": 0,
                    "echo": True,
                    "logprobs": 1,
                },
            )
            for text, choice in zip(some, _choices(answer, len(some), self.config.url), strict=True):
                found[text] = _own_score(choice, text, len(prefix), self.config.url)
        return [found[text] for text in texts]

    def choose(self, texts: Sequence[str], prompt: str = "") -> int | None:
        """Readings, best first -> the number (from 0) of the one the model takes, None if it names none."""
        if len(texts) < 2:
            return 0 if texts else None
        options = "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1))
        answer = self._post(
            "chat/completions",
            {
                "model": self.config.model,
                "temperature": 0,
                "max_tokens": 8,
                "messages": [
                    {"role": "system", "content": _INSTRUCTION},
                    {"role": "user", "content": f"{prompt.strip()}\n\n{options}".strip()},
                ],
            },
        )
        (choice,) = _choices(answer, 1, self.config.url)
        message = choice.get("message")
        content = cast("dict[str, Any]", message).get("content") if isinstance(message, dict) else None
        said = re.fullmatch(r"\D{0,8}?(\d{1,4})\W*", content.strip()) if isinstance(content, str) else None
        number = int(said.group(1)) if said else 0
        return number - 1 if 1 <= number <= len(texts) else None

    # -- one step below

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._announce()
        address = f"{self.config.url}/{path}"
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := os.environ.get(self.config.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
        for attempt in range(self.config.retries + 1):
            if attempt:
                time.sleep(self.config.pause * 2 ** (attempt - 1))
            try:
                with self._opener.open(request, timeout=self.config.timeout) as reply:
                    content = reply.read(_LARGEST + 1)
            except urllib.error.HTTPError as error:
                fault = _refused(address, error)
                if path == "completions" and error.code in _CANNOT:
                    raise _NoScores(fault.what, mend=fault.mend) from None
                if error.code not in _AGAIN:
                    raise fault from None
            except (OSError, HTTPException) as error:  # no route, no answer in time, cut off in the middle
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                fault = RemoteError(
                    f"'{address}' does not answer: {reason or type(error).__name__}.",
                    mend="Is the server running, and is the address right? A longer timeout may help.",
                )
            else:
                return _parsed(content, address)
            if attempt == self.config.retries:
                raise fault from None
        raise AssertionError("the loop above returns or raises")

    def _announce(self) -> None:
        if self._said:
            return
        self._said = True
        parts = urllib.parse.urlsplit(self.config.url)
        local = parts.hostname in _LOCAL
        place = "a server on this machine" if local else "which is another machine"
        plain = "" if local or parts.scheme == "https" else " The connection is not encrypted."
        key = self.config.key_variable
        secret = f", the key in {key}" if os.environ.get(key) else ""
        self._say(
            f"Sent to {self.config.url} ({place}){_by_way_of(parts)}: the name of the model "
            f"({self.config.model}){secret}, the prompt, and the "
            "readings of every utterance as text, in long recordings after the texts before it. Audio, file "
            f"names and transcripts to compare with are not sent.{plain}"
        )


def _by_way_of(address: urllib.parse.SplitResult) -> str:
    """The proxy that the environment names for this address, without its password."""
    host = address.hostname or ""
    proxy = urllib.request.getproxies().get(address.scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    shown = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return f", by way of the proxy {shown.hostname}"


def _refused(address: str, error: urllib.error.HTTPError) -> RemoteError:
    """A status other than success, with what the server says."""
    said = ""
    with error, contextlib.suppress(OSError, HTTPException):
        said = error.read(2000).decode("utf-8", errors="replace").strip()
    detail = f": {said.splitlines()[0][:300]}" if said else ""
    mend = {
        401: "Put a valid key into the environment variable that key_variable names.",
        403: "Put a valid key into the environment variable that key_variable names.",
        404: "Check url and model; a server without /completions needs the choice among readings instead.",
    }.get(error.code, "Ask the server's logs; it may not offer echo with logprobs.")
    if 300 <= error.code < 400:
        mend = "Redirections are not followed: give the address it leads to, if you trust it."
    return RemoteError(f"'{address}' answers {error.code} {error.reason}{detail}", mend=mend)


def _parsed(content: bytes, address: str) -> dict[str, Any]:
    if len(content) > _LARGEST:
        raise RemoteError(
            f"'{address}' answers with more than {_LARGEST >> 20} MB.", mend="Lower texts_per_request."
        )
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise RemoteError(
            f"'{address}' answers with something else than a JSON object.",
            mend="Is this the address of an OpenAI-compatible server? It usually ends in /v1.",
        )
    return cast("dict[str, Any]", answer)


def _choices(answer: dict[str, Any], expected: int, url: str) -> list[dict[str, Any]]:
    """The answer's choices in the order of the texts."""
    raw = answer.get("choices")
    found = [c for c in cast("list[Any]", raw) if isinstance(c, dict)] if isinstance(raw, list) else []
    choices = cast("list[dict[str, Any]]", found)
    numbers = [choice.get("index", i) for i, choice in enumerate(choices)]
    if sorted(numbers, key=str) != sorted(range(expected), key=str):
        raise RemoteError(
            f"'{url}': {expected} answers were expected, numbered from 0, got {len(choices)}.",
            mend="Set texts_per_request = 1 if the server takes one text at a time.",
        )
    return [choice for _, choice in sorted(zip(numbers, choices, strict=True), key=lambda pair: pair[0])]


def _own_score(choice: dict[str, Any], text: str, before: int, url: str) -> TextScore:
    """A completion's choice -> the log-probabilities of the tokens that reach into the text, summed.

    Tokens that a server adds after the text are left out.
    """
    given = choice.get("logprobs")
    facts = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    tokens, offsets, values = (facts.get(k) for k in ("tokens", "text_offset", "token_logprobs"))
    if not (isinstance(tokens, list) and isinstance(offsets, list) and isinstance(values, list)):
        raise _no_log_probs(url)
    starts = [int(offset) for offset in cast("list[Any]", offsets) if isinstance(offset, int)]
    if not starts or not len(starts) == len(cast("list[Any]", tokens)) == len(cast("list[Any]", values)):
        raise _no_log_probs(url)
    end = starts[0] + before + len(text)  # offsets count from the start of this prompt, or of all of them
    bounds = [*starts[1:], max(end, starts[-1] + 1)]
    own = [
        value
        for value, start, stop in zip(cast("list[Any]", values), starts, bounds, strict=True)
        if stop > starts[0] + before and start < end
    ]
    if not own or not all(isinstance(value, int | float) and math.isfinite(value) for value in own):
        raise _no_log_probs(url)
    return TextScore(float(sum(own)), len(own), len(text))


def _no_log_probs(url: str) -> RemoteError:
    return _NoScores(
        f"'{url}' gives no log-probabilities of the texts it was sent (echo with logprobs).",
        mend="Use the choice among numbered readings (RemoteLlm.choose) with this server. If only a text's "
        "first token is without, give a prompt.",
    )
