"""``firstwords transcribe`` stopped in the middle of a long recording, and given again."""

from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner, Result

from firstwords.cli.main import app
from firstwords.cli.transcribe_progress import AudioProgress
from firstwords.inference.made import RECORD
from firstwords.inference.recognizer import Recognizer
from nonsense_model import make_nonsense_model
from tone_corpus import RATE, random_text, sing

FORMATS = "txt,json,srt,eaf"


class Killed(BaseException):
    """Not caught by anything, as SIGKILL is not."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some words in each of four minutes."""
    path = tmp_path_factory.mktemp("talks") / "talk.flac"
    generator = np.random.default_rng(1)
    samples = 1e-3 * generator.standard_normal(240 * RATE)
    for at in range(0, 240, 4):
        words = sing(random_text(generator, 3), generator)[: 3 * RATE]
        samples[at * RATE : at * RATE + len(words)] += words
    soundfile.write(path, samples, RATE)
    return path


def transcribe(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["transcribe", *map(str, arguments)], catch_exceptions=True)


def killed(monkeypatch: pytest.MonkeyPatch, calls: int, *arguments: object) -> None:
    """The command, killed when the model is asked for the ``calls``-th time after so many."""
    real, made = Recognizer._read, 0

    def decode(self: Recognizer, stretches: Any) -> Any:
        nonlocal made
        made += bool(stretches)
        if made > calls:
            raise Killed
        return real(self, stretches)

    with monkeypatch.context() as patch:
        patch.setattr(Recognizer, "_read", decode)
        with pytest.raises(Killed):
            transcribe(*arguments)


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes, but for the time of writing that every .eaf must state."""
    return {
        p.name: re.sub(rb' DATE="[^"]*"', b"", p.read_bytes())
        for p in sorted(folder.iterdir())
        if p.name != RECORD
    }


def test_the_same_command_goes_on(
    model: Path, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = transcribe(model, talk, "--format", FORMATS, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.stderr
    assert sorted(contents(tmp_path / "whole")) == ["talk.eaf", "talk.json", "talk.srt", "talk.txt"]
    assert len((tmp_path / "whole" / "talk.txt").read_text().split()) > 15
    for calls in (1, 2):
        out = tmp_path / f"{calls}"
        killed(monkeypatch, calls, model, talk, "--format", "txt", "--out", out)
        assert sorted(contents(out)) == [".talk.firstwords-journal"]
        again = transcribe(model, talk, "--format", FORMATS, "--out", out)  # other formats: no matter
        assert again.exit_code == 0, again.stderr
        at = {1: r"1 min 4\d s", 2: r"3 min 2\d s"}[calls]  # a minute of speech a call
        assert re.search(rf"talk\.flac: going on at {at}\.", again.stderr)
        assert contents(out) == contents(tmp_path / "whole")


def test_another_model_or_a_changed_recording_begins_anew(
    model: Path, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "talk.flac"
    shutil.copy(talk, own)
    other = shutil.copytree(model, tmp_path / "other")
    make_nonsense_model(other, seed=4)
    out = tmp_path / "out"
    for change in ("another model", "another state of the recording", "another window"):
        killed(monkeypatch, 2, model, own, "--out", out)
        assert (out / ".talk.firstwords-journal").is_file()
        used = other if change == "another model" else model
        if change == "another state of the recording":
            os.utime(own, (1e9, 1e9))
        window = ("--window", 20) if change == "another window" else ()
        again = transcribe(used, own, "--out", out, *window)
        assert (
            f"talk.flac: begun anew, for what was written down of an earlier start belongs to {change}."
            in (again.stderr)
        )
        fresh = tmp_path / change
        transcribe(used, own, "--out", fresh, *window)
        assert contents(out) == contents(fresh)
        (out / "talk.txt").unlink()
        if change == "another state of the recording":
            shutil.copystat(talk, own)


def test_nothing_hidden_is_left_behind(
    model: Path, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the results were written and before the journal was removed."""
    out = tmp_path / "out"
    killed(monkeypatch, 2, model, talk, "--out", out)
    journal = (out / ".talk.firstwords-journal").read_bytes()
    transcribe(model, talk, "--out", out)
    (out / ".talk.firstwords-journal").write_bytes(journal)
    assert "1 already transcribed" in transcribe(model, talk, "--out", out).stderr
    assert list(contents(out)) == ["talk.txt"]


def test_without_a_folder_for_results_there_is_none_for_journals(
    model: Path, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "talk.flac"
    shutil.copy(talk, alone)
    killed(monkeypatch, 2, model, alone)
    assert [p.name for p in tmp_path.iterdir()] == ["talk.flac"]


def test_ctrl_c_says_what_to_do(
    model: Path, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Recognizer, stretches: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recognizer, "_read", interrupted)
    assert "The same command goes on from here." in transcribe(model, talk, "--out", tmp_path / "out").stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_the_time_left_is_that_of_the_speed_of_late(terminal: bool) -> None:
    now = 0.0
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    with AudioProgress(console, 36_000.0, clock=lambda: now) as progress:
        assert progress.line() == "0 s of 10 h 0 min of audio"
        now = 5.0  # an earlier call did three hours: that says nothing about the speed
        progress.take_up(3 * 3600.0)
        assert progress.line() == "3 h 0 min of 10 h 0 min of audio"
        for _ in range(12):
            now += 10.0
            progress.show(3 * 3600.0 + (now - 5) * 20)
        assert progress.line() == "3 h 40 min of 10 h 0 min of audio, 19 min 0 s left"
        progress.next(9 * 3600.0)
        progress.show(3600.0)
        assert progress.line().startswith("10 h 0 min of 10 h 0 min")
    lines = [line for line in out.getvalue().splitlines() if "left" in line]
    assert terminal or lines == [
        "3 h 20 min of 10 h 0 min of audio, 20 min 0 s left",
        "3 h 40 min of 10 h 0 min of audio, 19 min 0 s left",
    ]
