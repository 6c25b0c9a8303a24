"""A remote scorer against a server of the test's own: sums, choices, what is said before, every fault."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from firstwords.errors import RemoteError, UsageError
from firstwords.lm.llm_remote import RemoteConfig, RemoteLlm
from remote_server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def remote(server: Server, **changes: Any) -> tuple[RemoteLlm, list[str]]:
    said: list[str] = []
    settings = {"enabled": True, "url": server.url, "model": "tiny", "pause": 0.001} | changes
    return RemoteLlm(RemoteConfig.model_validate(settings), said.append), said


@pytest.mark.parametrize("more", [False, True])
def test_only_the_tokens_of_the_text_are_summed(server: Server, more: bool) -> None:
    server.more = more
    llm, _ = remote(server)
    # The server's tokens reach over the line end: "\nanna" is the first of the text's own.
    found = llm.score(["anna goes", "b", "", "anna goes"], "A prompt. ")
    assert [s.log_prob for s in found] == pytest.approx([-0.25 * 10, -0.25 * 2, 0.0, -0.25 * 10])
    assert [(s.tokens, s.characters) for s in found] == [(2, 9), (1, 1), (0, 0), (2, 9)]
    (_, _, body), *rest = server.requests
    assert rest == []
    assert body == {
        "model": "tiny",
        "prompt": ["A prompt.\nanna goes", "A prompt.\nb"],
        "max_tokens": 0,
        "temperature": 0,
        "echo": True,
        "logprobs": 1,
    }


def test_without_a_prompt_and_in_requests_of_few(server: Server) -> None:
    llm, _ = remote(server, texts_per_request=2)
    texts = [f"word{i} x" for i in range(5)]
    # The separator is the first token, and the one that begins with it has no log-probability: refused.
    with pytest.raises(RemoteError, match="no log-probabilities"):
        llm.score(["word"])
    server.requests.clear()
    llm.score(texts, "p")
    assert [len(body["prompt"]) for _, _, body in server.requests] == [2, 2, 1]


def test_nothing_is_sent_unless_allowed_and_what_is_sent_is_said_before(server: Server) -> None:
    with pytest.raises(UsageError, match="would send texts to http"):
        RemoteLlm(RemoteConfig(url=server.url, model="tiny"), print)
    assert server.requests == []
    llm, said = remote(server)
    llm._say = lambda line: said.append(f"{len(server.requests)} sent: {line}")
    llm.score(["a b"], "p")
    llm.choose(["a", "b"])
    assert len(said) == 1
    assert said[0].startswith(
        f"0 sent: Sent to {server.url} (a server on this machine): the name of the model (tiny), "
    )
    assert "the prompt, and the readings of every utterance as text" in said[0]
    assert "Audio, file names and transcripts to compare with are not sent." in said[0]
    assert "the key in" not in said[0]
    far: list[str] = []
    settings = {"enabled": True, "model": "m", "url": "http://asr.example/v1"}
    llm = RemoteLlm(RemoteConfig.model_validate(settings), far.append)
    llm._announce()
    assert "another machine" in far[0]
    assert "not encrypted" in far[0]


def test_a_choice_is_a_number_of_the_list_or_nothing(server: Server) -> None:
    llm, _ = remote(server)
    texts = ["first one", "second one", "third"]
    assert llm.choose(texts, "A talk.") == 1
    content = server.requests[0][2]["messages"][1]["content"]
    assert content == "A talk.\n\n1. first one\n2. second one\n3. third"
    for said, expected in {
        "3": 2, " 1.\n": 0, "No. 2": 1, "**3**": 2, "Option 2": 1,
        "0": None, "4": None, "second one": None, "": None, "The second one, since 1 is odd": None,
        "1 or 2": None,
    }.items():  # fmt: skip
        server.said = said
        assert llm.choose(texts) == expected, said
    sent = len(server.requests)
    assert (llm.choose(["only"]), llm.choose([])) == (0, None)
    assert len(server.requests) == sent


def test_a_busy_server_is_asked_again(server: Server) -> None:
    llm, _ = remote(server, retries=3)
    server.faults = [429, 503, 500]
    assert llm.score(["b"], "p")[0].log_prob == -0.5
    assert len(server.requests) == 4
    server.faults = [503] * 9
    with pytest.raises(RemoteError, match="answers 503 Service Unavailable: the reason"):
        llm.score(["c"], "p")
    assert len(server.requests) == 8


@pytest.mark.parametrize(
    ("status", "mend"), [(401, "key"), (404, "choice among"), (400, "logs"), (302, "Redir")]
)
def test_refusals_are_not_repeated(server: Server, status: int, mend: str) -> None:
    llm, _ = remote(server)
    server.faults = [status] * 5
    with pytest.raises(RemoteError, match=f"answers {status}") as caught:
        llm.score(["b"], "p")
    assert mend in caught.value.mend
    assert len(server.requests) == 1


def test_no_answer(server: Server) -> None:
    llm, _ = remote(server, timeout=0.05, retries=1)
    server.wait = 0.3
    with pytest.raises(RemoteError, match="does not answer: "):
        llm.score(["b"], "p")
    closed, _ = remote(server, url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(RemoteError, match="does not answer"):
        closed.score(["b"], "p")


RIGHT = {"tokens": ["p", "\nb"], "text_offset": [0, 1], "token_logprobs": [None, -1.0]}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"\xff",
        b'{"a":' * 5000,
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [3]},
        {"choices": [{"index": 1, "logprobs": RIGHT}]},
        {"choices": [{"index": "0", "logprobs": RIGHT}]},
        {"choices": [{"index": 0, "text": "p\nb"}]},
        {"choices": [{"index": 0, "logprobs": {**RIGHT, "tokens": ["p"]}}]},
        {"choices": [{"index": 0, "logprobs": {**RIGHT, "tokens": None}}]},
        {"choices": [{"index": 0, "logprobs": {**RIGHT, "text_offset": ["x", 1]}}]},
        {"choices": [{"index": 0, "logprobs": {**RIGHT, "token_logprobs": [None, None]}}]},
        {"choices": [{"index": 0, "logprobs": {**RIGHT, "token_logprobs": [None, "-1"]}}]},
        {"choices": [{"index": 0, "logprobs": {**RIGHT, "token_logprobs": [None, math.nan]}}]},
        {"choices": [{"index": 0, "logprobs": {"tokens": [], "text_offset": [], "token_logprobs": []}}]},
        {"choices": [{"index": 0, "logprobs": RIGHT}, {"index": 1, "logprobs": RIGHT}]},
    ],
    ids=range(20),
)
def test_answers_that_make_no_sense(server: Server, answer: Any) -> None:
    llm, _ = remote(server, retries=0)
    server.answer = answer
    with pytest.raises(RemoteError) as caught:
        llm.score(["b"], "p")
    assert caught.value.mend
    server.answer = {"choices": [{"index": 0, "logprobs": RIGHT}]}
    assert llm.score(["b"], "p")[0].log_prob == -1.0


@pytest.mark.parametrize("message", [None, "2", {}, {"content": None}, {"content": [{"text": "2"}]}])
def test_choices_that_make_no_sense(server: Server, message: Any) -> None:
    llm, _ = remote(server, retries=0)
    server.answer = {"choices": [{"index": 0, "message": message}]}
    assert llm.choose(["a", "b"]) is None


def test_the_key_comes_from_the_environment_and_is_never_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    llm, said = remote(server, key_variable="MY_KEY")
    llm.score(["b"], "p")
    assert server.requests[0][1]["Authorization"] == "Bearer s3cret"
    server.faults = [401]
    with pytest.raises(RemoteError) as caught:
        llm.score(["c"], "p")
    assert "s3cret" not in f"{caught.value}{said}{llm.config}"
    monkeypatch.delenv("MY_KEY")
    llm.score(["b"], "p")
    assert "Authorization" not in server.requests[-1][1]


@pytest.mark.parametrize(
    "url", ["", "ftp://x/v1", "file:///etc/passwd", "localhost:8000", "http://me:pw@x/v1"]
)
def test_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        RemoteConfig(model="m", url=url)


def test_a_guess_of_tokens() -> None:
    llm = RemoteLlm(RemoteConfig(model="m", enabled=True), print)
    assert [llm.token_count(text) for text in ("", "a", "abcd", "abcde", "ሰላም")] == [0, 1, 1, 2, 3]


@pytest.mark.parametrize("status", [400, 404, 501])
def test_a_server_without_scores_is_asked_to_choose(server: Server, status: int) -> None:
    llm, said = remote(server)
    assert llm.gives_scores("p")
    assert [body["prompt"][0] for _, _, body in server.requests] == ["p\none two three"]
    server.faults = [status]
    assert not llm.gives_scores("p")
    assert server.requests[-1][0] == "/v1/chat/completions"
    server.faults = [status, 404]
    with pytest.raises(RemoteError, match="answers 404"):
        llm.gives_scores("p")
    server.faults = [401]
    with pytest.raises(RemoteError, match="answers 401"):  # no key is no sign of what it can do
        llm.gives_scores("p")
    assert len(said) == 1


def test_a_proxy_is_named_without_its_password(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://me:s3cret@proxy.example:3128")
    said: list[str] = []
    settings = {"enabled": True, "model": "m", "url": "http://asr.example/v1"}
    RemoteLlm(RemoteConfig.model_validate(settings), said.append)._announce()
    assert "by way of the proxy proxy.example:" in said[0]
    assert "s3cret" not in said[0]
