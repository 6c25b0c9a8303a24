from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from firstwords.training.log import MetricsLog, read_log
from firstwords.training.progress import Progress, time_left, time_range
from firstwords.training.tasks.task import Sample, Validation


def write(path: Path, steps: range, after: int = 0) -> None:
    log = MetricsLog(path, after=after)
    for step in steps:
        log.write("train", step, {"loss": step / 2})
    log.close()


def test_the_log_of_a_resumed_run_equals_that_of_any_other(tmp_path: Path) -> None:
    write(tmp_path / "whole.jsonl", range(1, 10))
    write(tmp_path / "killed.jsonl", range(1, 8))
    with (tmp_path / "killed.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # killed in the middle of a line
    write(tmp_path / "killed.jsonl", range(5, 10), after=4)
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "log.jsonl")
    log.write("train", 1, {"loss": float("nan"), "norm": float("inf"), "utterances": ["a"]})
    log.close()
    assert read_log(tmp_path / "log.jsonl") == [
        {"kind": "train", "step": 1, "loss": "nan", "norm": "inf", "utterances": ["a"]}
    ]


def test_plain_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=False, width=200))
    progress.start()
    progress.step(1, 100, loss=2.0, seconds=0.5, audio=20.0, waited=0.05)
    assert out.getvalue() == ""  # the first line after half a minute
    progress._plain_at -= 31
    for step in range(2, 12):
        progress.step(step, 100, loss=2.0, seconds=0.5, audio=20.0, waited=0.05)
    line = out.getvalue()
    assert "step 2/100 · loss 2.000" in line
    assert line.count("\n") == 1
    assert progress.standing(11, 100).line() == (
        "step 11/100 · loss 2.000 · 40 audio-s/s · waiting for data 10% · 44 s left"
    )
    progress.stop()


@pytest.mark.parametrize("colored", [True, False])
def test_no_color_is_honoured(colored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    if colored:
        monkeypatch.delenv("NO_COLOR", raising=False)
    else:
        monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    Progress(console).say("Letters have appeared [bold]not markup[/bold]")
    assert "[bold]not markup[/bold]" in out.getvalue()
    assert console.no_color is not colored


def test_a_result_is_shown_with_samples() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=False, width=200))
    numbers = {"cer": 0.25, "wer": 0.5}
    progress.validated(40, Validation(0.25, numbers, (Sample("u", "ab c", ""),)), "averaged", True)
    assert out.getvalue().splitlines() == [
        "step 40: dev CER 25.0 %, WER 50.0 % (averaged weights, best so far)",
        "    said   ab c",
        "    heard  (nothing)",
    ]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True)
    progress.start()
    progress.say("x")
    progress.step(1, 2, loss=1.0, seconds=1.0, audio=1.0, waited=0.0)
    progress.validated(1, Validation(0.1, {"cer": 0.1, "wer": 0.1}, ()), "last", False)
    assert capsys.readouterr().out == ""


def test_time_left_is_a_range() -> None:
    assert time_left([1.0, 1.0], 10) is None
    low, high = time_left([1.0] * 20 + [2.0] * 20, 100) or (0, 0)
    assert low == pytest.approx(100)
    assert high == pytest.approx(200)
    assert time_range(100, 400) == "2 to 7 min"
    assert time_range(40, 60) == "40 to 60 s"
    assert time_range(7000, 9000) == "1.9 to 2.5 h"
    assert time_range(600, 610) == "10 min"
