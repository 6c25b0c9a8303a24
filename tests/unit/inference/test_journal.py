"""A transcription that was killed goes on where it was, and gives what it would have given."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from test_transcribe_blocks import RATE, decode

from firstwords.audio.windows import WindowConfig
from firstwords.errors import WriteError
from firstwords.inference.journal import Journal, hours_and_minutes, journal_path, recording_fingerprint
from firstwords.inference.longform import transcribe_blocks
from firstwords.inference.transcript import Token
from tone_corpus import random_text, sing

CONFIG = WindowConfig(seconds=12.0)
IDENTITY = {"model": "a", "state of the recording": "b"}


class Killed(BaseException):
    """As good as a SIGKILL for what lies on the disk."""


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Two minutes of words, with pauses of every length between them."""
    generator = np.random.default_rng(3)
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < 120 * RATE:
        pieces.append(sing(random_text(generator, int(generator.integers(1, 30))), generator))
        pieces.append(np.zeros(int(RATE * generator.uniform(0, 3)), np.float32))
    noise = 1e-3 * generator.standard_normal(sum(map(len, pieces)))
    return (np.concatenate(pieces) + noise).astype(np.float32)


def go(
    samples: np.ndarray, journal: Journal | None, *, calls: int = 10**6, block: int = 16_000
) -> tuple[list[Token], float, int]:
    """Transcribe, and be killed in call number ``calls`` of the model -> tokens, duration, calls made."""
    made = 0

    def counted(batch: Sequence[np.ndarray]) -> list[list[Token]]:
        nonlocal made
        made += 1
        if made > calls:
            raise Killed
        return decode(batch)

    blocks = [samples[at : at + block] for at in range(0, len(samples), block)]
    tokens, duration = transcribe_blocks(
        blocks, RATE, counted, CONFIG, together=20.0, grid=640, journal=journal
    )
    return list(tokens), duration, made


def opened(path: Path, identity: dict[str, str] = IDENTITY) -> tuple[Journal, list[str]]:
    said: list[str] = []
    journal = Journal(path, lambda words, seconds: said.append(f"{seconds:.1f} {words}"))
    journal.open(identity, RATE)
    return journal, said


def test_killed_in_any_group_it_goes_on_and_gives_the_same(samples: np.ndarray, tmp_path: Path) -> None:
    whole, duration, groups = go(samples, None)
    assert len(whole) > 200
    assert groups >= 5
    for calls in range(groups):
        path = tmp_path / f"{calls}"
        with pytest.raises(Killed):
            go(samples, opened(path)[0], calls=calls)
        journal, said = opened(path)
        again, length, made = go(samples, journal, block=7_777)
        assert (again, length) == (whole, duration)
        assert made == groups - calls  # what was done is not decoded again
        assert len(said) == (calls > 0)
        assert all("going on at" in words for words in said)


def test_killed_again_and_again(samples: np.ndarray, tmp_path: Path) -> None:
    whole, duration, groups = go(samples, None)
    path = tmp_path / "journal"
    for _ in range(groups - 1):
        with pytest.raises(Killed):
            go(samples, opened(path)[0], calls=1)
    assert go(samples, opened(path)[0])[:2] == (whole, duration)


@pytest.fixture(scope="module")
def unfinished(samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal to which all groups but the last were written."""
    path = tmp_path_factory.mktemp("journal") / "journal"
    go(samples, opened(path)[0])
    return path.read_bytes()


def test_a_torn_journal_never_gives_other_tokens(
    samples: np.ndarray, tmp_path: Path, unfinished: bytes
) -> None:
    """100 places to cut it and 100 to flip a bit: whole lines before the place are used, no others."""
    whole, duration, groups = go(samples, None)
    lines = unfinished.splitlines(keepends=True)
    ends = np.cumsum([len(line) for line in lines])
    draw = random.Random(7)
    path = tmp_path / "journal"
    for trial in range(200):
        place = draw.randrange(len(unfinished))
        content = bytearray(unfinished)
        if trial % 2:
            content = content[:place]
        else:
            content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(content))
        journal, said = opened(path)
        used = max(0, int(np.searchsorted(ends, place, side="right")) - 1)
        assert path.exists() == (used > 0)
        if used:
            assert path.read_bytes() == b"".join(lines[: used + 1])
            assert "going on at" in said[0]
        if trial % 20 < 2:
            again, length, made = go(samples, journal)
            assert (again, length, made) == (whole, duration, groups - used)
            assert path.read_bytes() == unfinished


def test_another_model_or_recording_begins_anew_and_says_so(
    samples: np.ndarray, tmp_path: Path, unfinished: bytes
) -> None:
    path = tmp_path / "journal"
    for change, words in (
        ({"model": "c"}, "another model."),
        ({"state of the recording": "c"}, "another state of the recording."),
        ({"model": "c", "window": "9"}, "another model and another window."),
    ):
        path.write_bytes(unfinished)
        journal, said = opened(path, IDENTITY | change)
        assert said == [f"0.0 begun anew, for what was written down of an earlier start belongs to {words}"]
        assert (journal.tokens, journal.until) == ([], 0)
        assert not path.exists()
    path.write_bytes(b"something else")
    assert "cannot be read" in opened(path)[1][0]
    assert opened(path)[1] == []  # nothing was there: nothing to say


def test_lines_of_two_processes_are_not_mixed(samples: np.ndarray, tmp_path: Path, unfinished: bytes) -> None:
    lines = unfinished.splitlines(keepends=True)
    path = tmp_path / "journal"
    for mixed in (
        [*lines[:3], *lines[2:]],
        [*lines[:2], *lines[3:]],
        [*lines[:2], lines[0], *lines[2:]],
    ):
        path.write_bytes(b"".join(mixed))
        assert go(samples, opened(path)[0])[0] == go(samples, None)[0]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights bind neither root nor Windows")
def test_a_folder_that_cannot_be_written(samples: np.ndarray, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="journal"):
        go(samples, opened(tmp_path / "journal")[0])


def test_a_full_disk_ends_in_words(
    samples: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match="No space left"):
            go(samples, opened(tmp_path / "journal")[0])
    whole, duration, _ = go(samples, None)
    assert go(samples, opened(tmp_path / "journal")[0])[:2] == (whole, duration)


def test_a_recording_is_known_by_size_time_and_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(bytes(300_000))
    os.utime(path, (1e9, 1e9))
    seen = {recording_fingerprint(path)}
    for content in (bytes(300_001), b"x" + bytes(299_999), bytes(299_999) + b"x"):
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))
        seen.add(recording_fingerprint(path))
    os.utime(path, (1e9, 1e9 + 1))
    seen.add(recording_fingerprint(path))
    assert len(seen) == 5


def test_words() -> None:
    assert [hours_and_minutes(s) for s in (11_579.9, 3600, 754, 60, 5.9)] == [
        "3 h 12 min",
        "1 h 0 min",
        "12 min 34 s",
        "1 min 0 s",
        "5 s",
    ]
    assert journal_path(Path("out/deep/one.wav")) == Path("out/deep/.one.wav.firstwords-journal")
