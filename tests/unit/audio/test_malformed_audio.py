"""Malformed and odd recordings: each is read with a stated repair, or refused with one AudioError.

Never a crash, another exception, or samples that are wrong without a word.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstwords.audio.waveform import probe, read, read_blocks
from firstwords.errors import AudioError
from malformed_audio import CASES, SOUND, Case, encoded


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_read_with_a_stated_repair_or_refused(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "recording.wav"
    path.write_bytes(case.data())
    if case.frames is None:
        with pytest.raises(AudioError) as caught:
            read(path)
        assert case.says in str(caught.value)
        assert str(path) in caught.value.what
        assert caught.value.mend
        with pytest.raises(AudioError):
            list(read_blocks(path))
        return
    got = read(path)
    assert abs(len(got.samples) - case.frames) <= case.close
    assert np.isfinite(got.samples).all()
    if case.says:
        assert len(got.repairs) == 1
        assert case.says in got.repairs[0]
    else:
        assert got.repairs == ()
    assert got.samples.std() > 0.15  # the sound itself, not silence
    if "flac promising" not in case.name and "wav" not in case.name:
        info = probe(path)
        assert info.frames == len(got.samples)
        assert info.repairs == got.repairs
    joined = np.concatenate(list(read_blocks(path, block_seconds=0.7)))
    np.testing.assert_array_equal(joined, got.samples)


def test_cases_are_many_and_their_names_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 45


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="folder"):
        read(tmp_path)
    with pytest.raises(AudioError, match="does not exist"):
        probe(tmp_path / "no.wav")


KINDS = ["WAV/PCM_16", "FLAC/PCM_16", "OGG/OPUS", "OGG/VORBIS", "MP3/MPEG_LAYER_III", "NIST/PCM_16"]


@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_never_brings_another_exception(tmp_path: Path, kind: str) -> None:
    """Seeded byte mutations and cuts: samples that are finite, or an AudioError."""
    good = encoded(*kind.split("/"), SOUND[:8000])
    rng = np.random.default_rng(7)
    path = tmp_path / "a"
    for _ in range(60):
        data = bytearray(good)
        for place in rng.integers(0, min(len(data), 400) if rng.random() < 0.5 else len(data), 4):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        try:
            samples = read(path, sample_rate=None).samples
        except AudioError:
            continue
        assert np.isfinite(samples).all()
        assert len(samples) <= 200_000
