"""``firstwords transcribe`` of long recordings, killed by SIGKILL: the same command, the same bytes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from firstwords.audio.waveform import resample
from firstwords.inference.made import RECORD
from nonsense_model import make_nonsense_model
from tone_corpus import RATE, random_text, sing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "wait4"), reason="Windows has no SIGKILL and no wait4"),
]
COMMAND = [sys.executable, "-c", "from firstwords.cli.main import main; main()", "transcribe"]
FORMATS = ("--format", "txt,json,srt,eaf")


class Ended(NamedTuple):
    code: int
    peak: float  # bytes
    said: str


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


def minutes(count: int) -> list[np.ndarray]:
    """Minutes of hiss with four bursts of tones in each."""
    generator = np.random.default_rng(count)
    made: list[np.ndarray] = []
    for _ in range(count):
        minute = 1e-3 * generator.standard_normal(60 * RATE).astype(np.float32)
        for at in generator.integers(0, 55, size=4) * RATE:
            words = sing(random_text(generator, 4), generator)[: 60 * RATE - at]
            minute[at : at + len(words)] += words
        made.append(minute)
    return made


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for it -> how it ended and the most memory it took."""
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), said)


def kill_when(process: subprocess.Popen[str], journal: Path, lines: int, after: float) -> Ended:
    """SIGKILL some moments after the journal has got so many lines."""
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < lines):
        time.sleep(0.002)
    time.sleep(after)
    if process.poll() is None:
        process.kill()
    said = process.communicate()[1]
    return Ended(process.returncode, 0.0, said)


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes, but for the time of writing that every .eaf must state, and the record of what was made,
    which has the fingerprint of that."""
    files = [path for path in sorted(folder.iterdir()) if path.name != RECORD]
    return {path.name: re.sub(rb' DATE="[^"]*"', b"", path.read_bytes()) for path in files}


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("talk.flac", 16000, 1), ("talk.wav", 44100, 2), ("talk.mp3", 22050, 1), ("talk.ogg", 48000, 2)],
)
def test_killed_twice_in_every_kind_of_file(
    model: Path, tmp_path: Path, name: str, rate: int, channels: int
) -> None:
    """Seeking is exact in some and not in others; samples are resampled in most.

    A line of the journal stands for a minute of speech, which is some five of these minutes.
    """
    audio = tmp_path / name
    samples = resample(np.concatenate(minutes(30)), RATE, rate)
    with soundfile.SoundFile(audio, "w", rate, channels) as file:
        for at in range(0, len(samples), rate):  # libsndfile's Vorbis does not survive minutes at once
            file.write(np.stack([samples[at : at + rate]] * channels, axis=1))
    out, journal = tmp_path / "out", tmp_path / "out" / ".talk.firstwords-journal"
    assert end(start(model, audio, *FORMATS, "--out", tmp_path / "whole")).code == 0
    draw = np.random.default_rng(len(name) + rate)
    for lines in (2, 5):  # one of them is the head of the journal
        process = start(model, audio, *FORMATS, "--out", out)
        killed = kill_when(process, journal, lines, draw.uniform(0, 0.05))
        assert killed.code == -signal.SIGKILL, killed.said
        assert [p.name for p in out.iterdir()] == [journal.name]
    again = end(start(model, audio, *FORMATS, "--out", out))
    assert again.code == 0
    assert f"{name}: going on at " in again.said
    assert contents(out) == contents(tmp_path / "whole")
    assert len(contents(out)) == 4


@pytest.mark.timeout(3600)
def test_ten_hours_take_hardly_more_memory_than_one(model: Path, tmp_path: Path) -> None:
    """The one killed half-way and gone on with ends with the same bytes."""
    made = minutes(7)
    for name, count in (("one", 60), ("ten", 600)):
        with soundfile.SoundFile(tmp_path / f"{name}.flac", "w", RATE, 1, "PCM_16") as file:
            for number in range(count):
                file.write(np.roll(made[number % 7], 997 * number))
    ended: dict[str, Ended] = {}
    took: dict[str, float] = {}
    for name in ("one", "ten"):
        began = time.monotonic()
        ended[name] = end(start(model, tmp_path / f"{name}.flac", *FORMATS, "--out", tmp_path / "whole"))
        took[name] = time.monotonic() - began
        assert ended[name].code == 0, ended[name].said
    journal = tmp_path / "out" / ".ten.firstwords-journal"
    process = start(model, tmp_path / "ten.flac", *FORMATS, "--out", tmp_path / "out")
    killed = kill_when(process, journal, 60, 0.05)  # an hour is some eleven groups of speech
    assert killed.code == -signal.SIGKILL, killed.said
    size = journal.stat().st_size
    began = time.monotonic()
    ended["again"] = end(start(model, tmp_path / "ten.flac", *FORMATS, "--out", tmp_path / "out"))
    took["again"] = time.monotonic() - began
    print({n: f"{e.peak / 1e6:.0f} MB, {took[n]:.0f} s" for n, e in ended.items()}, f"journal {size} bytes")
    assert re.search(r"ten\.flac: going on at 5 h \d+ min\.", ended["again"].said), ended["again"].said
    whole = {name: data for name, data in contents(tmp_path / "whole").items() if name.startswith("ten")}
    assert contents(tmp_path / "out") == whole
    record = json.loads(whole["ten.json"])
    assert record["duration"] == 36_000
    assert len(record["segments"]) > 1500
    # Prepared machine code for batches of new shapes (oneDNN keeps some thousands), and the text itself.
    assert ended["ten"].peak < ended["one"].peak + 120e6
    assert ended["again"].peak < ended["one"].peak + 120e6
    assert took["again"] < took["ten"]
