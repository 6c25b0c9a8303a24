"""``firstwords transcribe --stream`` as a user meets it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from firstwords.cli.main import app
from firstwords.cli.transcribe_stream import Screen, _end_of, listen
from firstwords.errors import FirstwordsError, SearchError, UsageError
from firstwords.inference.events import Final, Partial
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.streaming import read_otherwise
from firstwords.inference.transcript import Transcript
from firstwords.search.interface import GreedyConfig
from nonsense_model import make_nonsense_model
from streaming_model import make_causal_model, talk
from tone_corpus import RATE

SOUND = talk(6.0)
PCM = (SOUND * 32767).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_model(tmp_path_factory.mktemp("models") / "causal")


@pytest.fixture(scope="module")
def expected(model: Path) -> list[str]:
    """The text of each utterance."""
    events = Recognizer.load(model, device="cpu").listen([np.frombuffer(PCM, "<i2")])
    return [event.text for event in events if isinstance(event, Final) and event.text]


def firstwords(*arguments: object, pcm: bytes = PCM) -> Result:
    result = CliRunner().invoke(app, ["transcribe", *map(str, arguments)], input=pcm)
    if result.exception is not None and not isinstance(result.exception, SystemExit | FirstwordsError):
        raise result.exception
    return result


def test_a_pipe_gets_final_lines(model: Path, expected: list[str]) -> None:
    made = firstwords(model, "--stream", "--report")
    assert made.exit_code == 0, made.stderr
    assert made.stdout.splitlines() == expected
    assert "algorithmic latency         777.5 ms = chunk 640 ms + look-ahead 137.5 ms" in made.stderr
    assert "real-time factor" in made.stderr


def test_partials_and_json_lines(model: Path, expected: list[str]) -> None:
    lines = firstwords(model, "--stream", "--partials").stdout.splitlines()
    assert [line for line in lines if not line.startswith("… ")] == expected
    assert len(lines) > len(expected)
    made = firstwords(model, "--stream", "--format", "jsonl", "--report", "--left-ms", 1280)
    records = [json.loads(line) for line in made.stdout.splitlines()]
    assert {record["event"] for record in records} == {"partial", "final", "report"}
    assert records[-1]["chunk"] == pytest.approx(0.64)
    finals = [record for record in records if record["event"] == "final"]
    assert finals[-1]["reason"] == "end"
    assert all(set(word) == {"word", "start", "end", "confidence"} for f in finals for word in f["words"])


def test_the_rate_is_obeyed_and_half_a_sample_said(model: Path, expected: list[str]) -> None:
    doubled = np.repeat(np.frombuffer(PCM, "<i2"), 2).tobytes()
    made = firstwords(model, "--stream", "--rate", 2 * RATE, pcm=doubled + b"\0")
    assert made.exit_code == 0
    assert "middle of a sample" in made.stderr
    assert made.stdout
    assert firstwords(model, "--stream", pcm=b"").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says", "mend"),
    [
        (("--rate", "8000"), "--rate belongs to --stream", "Add --stream"),
        (("--left-ms", "0"), "--left-ms belongs to --stream", "Add --stream"),
        ((), "nothing to transcribe", "--stream"),
        (("--stream", "a.wav"), "not 'a.wav'", "Leave --stream out"),
        (("--stream", "--microphone", "a", "b"), "one device", ""),
        (("--stream", "--out", "x"), "no --out", "> FILE"),
        (("--stream", "--channel", "0"), "a stream has one channel", "Leave --channel"),
        (("--stream", "--format", "srt"), "txt or jsonl", "leave --stream out"),
        (("--stream", "--chunk-ms", "250"), "no chunks of 250 ms", "240 ms"),
        (("--stream", "--rate", "3"), "3 Hz", "hertz"),
    ],
)
def test_wrong_usage(model: Path, arguments: tuple[str, ...], says: str, mend: str) -> None:
    result = firstwords(model, *arguments)
    assert isinstance(result.exception, UsageError)
    assert says in result.exception.what
    assert mend in result.exception.mend


def test_a_model_that_cannot_stream_says_so(tmp_path: Path) -> None:
    result = firstwords(make_nonsense_model(tmp_path / "offline"), "--stream")
    assert isinstance(result.exception, SearchError)
    assert "encoder.causal=true" in str(result.exception)


@pytest.mark.parametrize(
    ("head", "search", "said"),
    [
        ({"attention": {"kind": "speller", "width": 8}}, "attention_beam", "CTC head: attention_beam"),
        (
            {"transducer": {"kind": "transducer", "joiner_dim": 8}},
            "transducer_beam",
            "transducer: transducer",
        ),
    ],
)
def test_a_stream_that_another_search_reads_is_told(
    head: dict[str, object], search: str, said: str, tmp_path: Path
) -> None:
    folder = make_causal_model(tmp_path / "model", heads={"ctc": {}} | head, search={"kind": search})
    made = firstwords(folder, "--stream")
    assert made.exit_code == 0, made.stderr
    assert f"read by the greedy search of the model's {said}" in " ".join(made.stderr.split())
    assert read_otherwise(GreedyConfig()) is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


def test_a_terminal_shows_one_line_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((20, 5)))
    out = Terminal()
    screen = Screen(out, "txt", partials=False)
    assert screen.wants_partials

    def final(text: str) -> Final:
        return Final(Transcript(text, (), "und", 1.0, ""), "end", 0.0, 1.0, 1.0)

    for text in ("one", "one two three four five six"):
        screen.show(Partial(text, "", (), 1.0))
    screen.show(final("one two three four five six"))
    screen.show(Partial("noise", "", (), 1.0))
    screen.show(final(""))
    clear = "\r\x1b[K"
    shown = out.getvalue().split(clear)
    assert shown == ["", "one", "… ree four five six", "one two three four five six\n", "noise", ""]


@pytest.mark.parametrize("text", ["", "abc", "a" * 50, "日本語" * 20, "a\u0301" * 40])
@pytest.mark.parametrize("columns", [3, 10, 19, 79])
def test_the_end_of_a_text_fits(text: str, columns: int) -> None:
    from rich.cells import cell_len

    shown = _end_of(text, columns)
    assert cell_len(shown) <= columns
    assert shown == text or text.endswith(shown.removeprefix("… ").rstrip())


def test_ctrl_c_makes_final_what_was_heard(model: Path) -> None:
    """In a wait for sound it ends the wait; what was accepted before is given in full."""
    listener = Recognizer.load(model, device="cpu").listener()
    events: list[object] = []

    def source() -> Iterator[np.ndarray]:
        yield SOUND[: 3 * RATE]
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the wait went on")

    before = signal.getsignal(signal.SIGINT)
    listen(listener, source(), events.append)
    assert signal.getsignal(signal.SIGINT) is before
    assert isinstance(events[-1], Final)
    assert events[-1].reason == "end"
    assert events[-1].heard == pytest.approx(3.0)


def test_ctrl_c_never_breaks_off_work(model: Path) -> None:
    listener = Recognizer.load(model, device="cpu").listener()
    events: list[object] = []

    def show(event: object) -> None:
        if not events:
            signal.raise_signal(signal.SIGINT)
        events.append(event)

    listen(listener, iter([SOUND[: 4 * RATE], SOUND]), show)
    assert isinstance(events[-1], Final)
    assert events[-1].heard == pytest.approx(4.0)

    def impatient(event: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        listen(Recognizer.load(model, device="cpu").listener(), iter([SOUND]), impatient)


COMMAND = [sys.executable, "-m", "firstwords.cli.main", "transcribe"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_processes_end_cleanly(model: Path, expected: list[str]) -> None:
    """Text comes while the pipe is open; Ctrl-C then gives the rest; nobody who reads is no fault."""
    process = subprocess.Popen(
        [*COMMAND, str(model), "--stream", "--partials", "--chunk-ms", "320"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(PCM)
    process.stdin.flush()
    first = process.stdout.readline().decode()
    assert first.startswith("… ")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors == b""
    assert not rest.decode().splitlines()[-1].startswith("… ")

    unread = subprocess.Popen(
        [*COMMAND, str(model), "--stream"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert unread.stdout is not None
    unread.stdout.close()
    _, errors = unread.communicate(PCM, timeout=60) if unread.stdin else (b"", b"")
    assert unread.returncode == 0
    assert errors == b""
