"""``--rescore-url``: readings chosen by a server, and what is said before anything is sent to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from firstwords.cli.main import app
from firstwords.errors import FirstwordsError, RemoteError, UsageError
from firstwords.inference.recognizer import Recognizer
from firstwords.search.interface import CtcBeamConfig
from nonsense_model import make_nonsense_model
from remote_server import Server, log_prob, serving
from tone_corpus import make_tone_corpus


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_corpus(tmp_path_factory.mktemp("tones") / "corpus", train=1, dev=2, test=2)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("FIRSTWORDS_LLM_MODEL", "tiny")
    monkeypatch.delenv("FIRSTWORDS_LLM_KEY", raising=False)
    with serving() as server:
        yield server


def firstwords(*arguments: object) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit | FirstwordsError):
        raise result.exception
    return result


def readings(model: Path, audio: Path) -> list[str]:
    recognizer = Recognizer.load(model, device="cpu", search=CtcBeamConfig())
    return [" ".join(recognizer.tokenizer.decode(r.tokens).split()) for r in recognizer.readings(audio)]


def recordings(corpus: Path) -> list[Path]:
    return sorted((corpus / "audio").glob("test-*.wav"))


def test_scores_of_a_server_choose_among_the_readings(
    server: Server, model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTWORDS_LLM_KEY", "s3cret")
    audio = recordings(corpus)[0]
    how = ("--rescore-url", server.url, "--rescore-weight", 1e6, "--prompt", "A talk.", "--device", "cpu")
    result = firstwords("transcribe", model, audio, *how)
    assert result.exit_code == 0, result.output
    known = readings(model, audio)
    costs = {t: sum(log_prob(f" {word}") for word in t.split()) for t in known}  # "\n" before the first
    assert result.stdout.strip() in known
    assert costs[result.stdout.strip()] == max(costs.values())
    first, *rest = result.stderr.splitlines()
    assert first.startswith(
        f"Sent to {server.url} (a server on this machine): the name of the model (tiny), "
    )
    assert "the key in FIRSTWORDS_LLM_KEY" in first
    assert "Sent to" not in "".join(rest)
    assert "s3cret" not in result.output
    assert {headers["Authorization"] for _, headers, _ in server.requests} == {"Bearer s3cret"}
    sent = [text for _, _, body in server.requests for text in body["prompt"]]
    assert set(sent) <= {f"A talk.\n{text}" for text in (*known, "one two three", "one too three")}


def test_a_server_that_only_talks_chooses_a_number(server: Server, model: Path, corpus: Path) -> None:
    """It says "2": the second of the readings, of which none is its own."""
    server.no_completions = True
    audio = recordings(corpus)[0]
    result = firstwords("transcribe", model, audio, "--rescore-url", server.url, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == list(dict.fromkeys(readings(model, audio)))[1]
    assert f"{server.url} gives no log-probabilities: it chooses among numbered readings." in result.stderr
    server.said = "I would rather write: something nobody said"
    kept = firstwords("transcribe", model, audio, "--rescore-url", server.url, "--device", "cpu")
    assert kept.stdout.strip() == readings(model, audio)[0]


def test_an_evaluation_by_a_server_says_so_before_and_in_its_report(
    server: Server, model: Path, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    how = ("--rescore-url", server.url, "--device", "cpu", "--no-audio", "--out", out)
    server.no_completions = True
    result = firstwords("evaluate", model, corpus, *how)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"Sent to {server.url}")
    figures = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert f"Readings were chosen by the language model tiny at {server.url}." in figures["note"]
    references = {
        json.loads(line)["reference"] for line in (out / "hypotheses.jsonl").read_text("utf-8").splitlines()
    }
    sent = json.dumps([body for _, _, body in server.requests], ensure_ascii=False)
    assert references
    assert not any(reference in sent for reference in references)


def test_a_server_that_goes_away_ends_the_evaluation(server: Server, model: Path, corpus: Path) -> None:
    """It is asked once for an utterance, not again for each of the others."""
    server.fails_after = 1
    result = firstwords("evaluate", model, corpus, "--rescore-url", server.url, "--prompt", "p", "--no-audio")
    assert isinstance(result.exception, RemoteError)
    assert "answers 403" in str(result.exception)
    assert len(server.requests) == 2


def test_what_does_not_go_together_is_said_and_nothing_sent(
    server: Server, model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = recordings(corpus)[0]
    for options, said in (
        (("--rescore-url", server.url, "--rescore", "llm"), "exclude each other"),
        (("--rescore-url", "ftp://host/v1"), "is no address of a server"),
        (("--rescore-url", "http://me:s3cret@host/v1"), "is no address of a server"),
        (("--rescore-bonus", 1), "--rescore-bonus belongs to --rescore"),
        (("--rescore-length", 1), "--rescore-length belongs to --rescore"),
        (("--rescore-url", server.url, "--rescore-bonus", "nan"), "--rescore-bonus nan: no number"),
    ):
        for verb, thing in (("transcribe", audio), ("evaluate", corpus)):
            result = firstwords(verb, model, thing, *options)
            assert isinstance(result.exception, UsageError), options
            assert said in str(result.exception)
            assert "s3cret" not in str(result.exception)
    refused = firstwords("transcribe", model, "--stream", "--rescore-url", server.url)
    assert "--rescore-url needs whole utterances" in str(refused.exception)
    monkeypatch.delenv("FIRSTWORDS_LLM_MODEL")
    nameless = firstwords("transcribe", model, audio, "--rescore-url", server.url)
    assert "FIRSTWORDS_LLM_MODEL names no model" in str(nameless.exception)
    assert server.requests == []
