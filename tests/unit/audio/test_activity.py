"""Speech activity: where the energy is, whatever the level, the noise and the blocks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from firstwords.audio.activity import ActivityDetector, Stretch, _sliding_minimum
from firstwords.audio.waveform import read

RATE = 16000


def scene(
    stretches: list[tuple[float, float]], seconds: float, noise_db: float = -60.0, seed: int = 0
) -> np.ndarray:
    """Noise of a level, and bursts like syllables (four a second) at -26 dB in the named stretches."""
    rng = np.random.default_rng(seed)
    samples = 10 ** (noise_db / 20) * rng.standard_normal(round(seconds * RATE))
    time = np.arange(len(samples)) / RATE
    voice = 0.1 * np.sin(2 * np.pi * 180 * time) * (0.15 + np.abs(np.sin(2 * np.pi * 2 * time)))
    for start, end in stretches:
        inside = (time >= start) & (time < end)
        samples[inside] += voice[inside]
    return samples.astype(np.float32)


def find_speech(samples: np.ndarray, rate: int) -> list[Stretch]:
    detector = ActivityDetector(rate)
    return detector.push(samples) + detector.finish()


TWO = [(1.0, 2.5), (5.0, 6.0)]


@pytest.mark.parametrize("gain", [1.0, 0.03, 3.0])
@pytest.mark.parametrize("noise_db", [-90.0, -60.0, -40.0])
def test_stretches_are_found_at_any_level(gain: float, noise_db: float) -> None:
    found = find_speech(gain * scene(TWO, 8.0, noise_db), RATE)
    assert len(found) == 2
    for (start, end), (true_start, true_end) in zip(found, TWO, strict=True):
        assert true_start - 0.3 <= start <= true_start + 0.05
        assert true_end - 0.1 <= end <= true_end + 0.5


def test_blocks_do_not_matter() -> None:
    samples = scene([(0.0, 1.0), (3.0, 4.2), (9.0, 15.0), (19.5, 20.0)], 20.0)
    whole = find_speech(samples, RATE)
    assert len(whole) == 4
    for size in (77, 1600, 50_000):
        detector = ActivityDetector(RATE)
        found = [s for at in range(0, len(samples), size) for s in detector.push(samples[at : at + size])]
        np.testing.assert_allclose(found + detector.finish(), whole)


def test_what_is_said_of_an_open_stretch_holds() -> None:
    """It begins where the finished one does and never reaches farther; nothing later begins before it."""
    samples = scene([(0.0, 1.0), (3.0, 4.2), (9.0, 25.0), (25.6, 26.0)], 30.0)
    whole = find_speech(samples, RATE)
    detector = ActivityDetector(RATE)
    over = 0
    longest = 0.0
    for at in range(0, len(samples), 1600):
        over += len(detector.push(samples[at : at + 1600]))
        if detector.open_stretch is not None:
            start, end = detector.open_stretch
            assert start == whole[over][0] == detector.settled
            assert end <= whole[over][1]
            longest = max(longest, end - start)
        elif over < len(whole):
            assert detector.settled <= whole[over][0]
    assert longest > 14  # it is told while the stretch is still going on


def test_speech_that_begins_softly_is_kept() -> None:
    """Three seconds above the floor by less than it takes to be sure, then loud."""
    rng = np.random.default_rng(0)
    samples = 1e-3 * rng.standard_normal(20 * RATE)
    samples[12 * RATE : 15 * RATE] *= 2.2  # 7 dB: warm
    samples[15 * RATE : 17 * RATE] *= 30
    ((start, end),) = find_speech(samples.astype(np.float32), RATE)
    assert 11.5 < start < 12.2
    assert 17.0 < end < 17.6


def test_stretches_come_before_the_end_and_memory_is_bounded() -> None:
    detector = ActivityDetector(RATE)
    early = []
    for minute in range(20):
        early += detector.push(scene(TWO, 60.0, seed=minute))
        assert len(detector._levels) < 1000
    assert len(early) == 40


@pytest.mark.parametrize("level_db", [-200.0, -80.0, -50.0, -35.0])
def test_silence_and_steady_noise_are_no_speech(level_db: float) -> None:
    noise = 10 ** (level_db / 20) * np.random.default_rng(3).standard_normal(RATE * 20)
    assert find_speech(noise.astype(np.float32), RATE) == []


def test_a_click_is_no_speech_and_nothing_is_nothing() -> None:
    samples = scene([], 3.0)
    samples[20_000:20_100] = 0.5
    assert find_speech(samples, RATE) == []
    assert find_speech(np.zeros(0, np.float32), RATE) == []
    assert find_speech(np.zeros(50, np.float32), RATE) == []


def test_stretches_lie_inside_and_apart() -> None:
    rng = np.random.default_rng(4)
    samples = (
        rng.standard_normal(RATE * 30) * np.repeat(10 ** rng.choice([-3.0, -3.0, -1.0], 30), RATE)
    ).astype(np.float32)
    found = find_speech(samples, RATE)
    flat = [x for stretch in found for x in stretch]
    assert len(found) > 1
    assert flat == sorted(flat)
    assert flat[0] >= 0
    assert flat[-1] <= 30


def test_sliding_minimum_is_the_plain_one() -> None:
    values = np.random.default_rng(5).standard_normal((60, 2))
    for width in range(1, 30):
        plain = np.stack([values[i : i + width].min(axis=0) for i in range(61 - width)])
        np.testing.assert_array_equal(_sliding_minimum(values, width), plain)


@pytest.mark.parametrize("corpus", ["english", "yoruba", "digits_en"])
def test_real_speech_is_kept(corpora: Path, corpus: str) -> None:
    lines = (corpora / corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines[::40][:25]:
        samples = read(corpora / corpus / json.loads(line)["audio"]).samples
        inside = np.zeros(len(samples), bool)
        for start, end in find_speech(samples, RATE):
            inside[round(start * RATE) : round(end * RATE)] = True
        assert np.sum(samples[inside] ** 2) > 0.99 * np.sum(samples**2), json.loads(line)["id"]
