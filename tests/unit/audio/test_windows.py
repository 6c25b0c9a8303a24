"""Windows tile the audio, cut in pauses, and join without losing or doubling a word."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.audio.activity import ActivityDetector
from firstwords.audio.windows import Window, WindowConfig, _Cutter, cut_speech, cut_windows, join

RATE = 1000  # the code knows no particular rate; a low one makes the tests fast


def blocks_of(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(0, 120_000),
    block=st.integers(100, 50_000),
    seconds=st.sampled_from([6.0, 20.0, 30.0]),
    seed=st.integers(0, 100),
)
def test_kept_parts_tile_and_windows_hold_them(frames: int, block: int, seconds: float, seed: int) -> None:
    samples = noise(frames / RATE, seed)
    windows = list(cut_windows(blocks_of(samples, block), RATE, WindowConfig(seconds=seconds)))
    at = 0
    for number, window in enumerate(windows):
        assert window.keep_start == at
        assert window.start_sample <= window.keep_start < window.keep_end <= window.end_sample
        assert window.end_sample - window.start_sample <= seconds * RATE
        np.testing.assert_array_equal(window.samples, samples[window.start_sample : window.end_sample])
        assert window.is_last == (number == len(windows) - 1)
        at = window.keep_end
    assert at == frames


def test_blocks_do_not_matter() -> None:
    samples = noise(100)
    one = [w.keep_end for w in cut_windows([samples], RATE)]
    for size in (333, 30_000):
        assert [w.keep_end for w in cut_windows(blocks_of(samples, size), RATE)] == one


def talk(seconds: float, seed: int = 0) -> np.ndarray:
    """Bursts of 0.2 to 40 s, pauses of 0.05 to 50 s: their logarithms are uniform."""
    rng = np.random.default_rng(seed)
    samples = 1e-3 * noise(seconds, seed)
    at = 0.0
    while at < seconds:
        at += float(np.exp(rng.uniform(np.log(0.05), np.log(50))))
        length = float(np.exp(rng.uniform(np.log(0.2), np.log(40))))
        burst = samples[round(at * RATE) : round((at + length) * RATE)]
        burst *= 1 + 100 * np.abs(np.sin(2 * np.pi * 2 * np.arange(len(burst)) / RATE))  # like syllables
        at += length
    return samples.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    length=st.floats(0, 300),
    block=st.integers(100, 50_000),
    seconds=st.sampled_from([6.0, 20.0, 30.0]),
    grid=st.sampled_from([1, 40]),
    seed=st.integers(0, 100),
)
def test_windows_of_speech_hold_all_that_the_detector_finds(
    length: float, block: int, seconds: float, grid: int, seed: int
) -> None:
    samples = talk(length, seed)
    config = WindowConfig(seconds=seconds)
    windows = list(cut_speech(blocks_of(samples, block), RATE, config, grid=grid))
    heard = np.zeros(len(samples), bool)
    at = 0
    for number, window in enumerate(windows):
        assert window.keep_start == at < window.keep_end
        assert window.is_last == (number == len(windows) - 1)
        assert window.start_sample % grid == 0 or len(window.samples) == 0
        np.testing.assert_array_equal(window.samples, samples[window.start_sample : window.end_sample])
        heard[max(window.start_sample, window.keep_start) : min(window.end_sample, window.keep_end)] = True
        at = window.keep_end
    assert at == len(samples)
    speech = np.zeros(len(samples), bool)
    detector = ActivityDetector(RATE)
    for start, end in detector.push(samples) + detector.finish():
        speech[round(start * RATE) : round(end * RATE)] = True
    if len(samples) <= seconds * RATE:
        assert heard.all()
        return
    assert heard[speech].all()
    assert np.sum(heard & ~speech) <= grid * len(windows)
    assert all(len(w.samples) <= min(seconds, config.piece) * RATE for w in windows)


@pytest.mark.parametrize("pause", [0.51, 0.52, 0.53, 0.54, 0.55])
def test_stretches_a_few_frames_apart(pause: float) -> None:
    """The second begins on the grid, and may reach back a little: less than a step, never an overlap."""
    samples = 1e-3 * noise(40.0)
    for start, end in ((1.0, 2.5), (2.5 + pause, 4.0)):
        samples[round(start * RATE) : round(end * RATE)] *= 100
    for grid in (1, 40, 160):
        windows = [w for w in cut_speech([samples], RATE, grid=grid) if len(w.samples)]
        assert len(windows) in (1, 2)
        for window in windows:
            assert window.start_sample > window.keep_start - grid


def test_a_long_recording_is_cut_alike_for_windows_of_any_length() -> None:
    samples = talk(600, seed=5)
    found = {
        seconds: [
            (w.start_sample, w.end_sample) for w in cut_speech([samples], RATE, WindowConfig(seconds=seconds))
        ]
        for seconds in (15.0, 20.0, 30.0, 60.0)
    }
    assert len(found[20.0]) > 30
    assert all(other == found[20.0] for other in found.values())


def test_hours_of_noise_or_silence_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, then noise in which nobody speaks but which never falls back to the floor of before."""
    rng = np.random.default_rng(0)
    held: list[int] = []
    push = _Cutter.push

    def watched(cutter: _Cutter, block: np.ndarray) -> None:
        push(cutter, block)
        held.append(len(cutter._buffer))

    monkeypatch.setattr(_Cutter, "push", watched)

    def blocks() -> Iterator[np.ndarray]:
        for minute in range(240):
            level = 0.0 if minute < 60 else 0.055  # -25 dB: above the highest floor, below what is hot
            yield (level * rng.standard_normal(60 * RATE)).astype(np.float32)

    windows = [w.keep_end - w.keep_start for w in cut_speech(blocks(), RATE)]
    assert sum(windows) == 240 * 60 * RATE
    assert max(windows) <= 30 * RATE  # less than 15 s of silence, and speech of at most 15 s
    assert max(held) <= 80 * RATE  # a block, a stretch, what is not decided yet


@pytest.mark.parametrize("grid", [1, 40])
@pytest.mark.parametrize("seconds", [2.0, 20.0])
def test_cutting_goes_on_after_any_window(seconds: float, grid: int) -> None:
    """The end of a kept part is all that must be known; blocks need not be those of before."""
    samples = talk(20 * seconds, seed=2)
    config = WindowConfig(seconds=seconds, overlap=min(1.5, seconds / 8))
    whole = list(cut_speech(blocks_of(samples, 10_000), RATE, config, grid=grid))
    assert len(whole) > 12
    for number, window in enumerate(whole):
        for size in (333, 10_000, len(samples)):
            blocks = blocks_of(samples, size)
            rest = list(cut_speech(blocks, RATE, config, grid=grid, after=window.keep_end))
            for one, other in zip(rest, whole[number + 1 :], strict=True):
                assert one.samples.tobytes() == other.samples.tobytes()
                assert vars(one) | {"samples": None} == vars(other) | {"samples": None}


def test_windows_lie_on_a_grid() -> None:
    windows = list(cut_windows([noise(95.123)], RATE, WindowConfig(seconds=20.0), grid=64))
    assert len(windows) > 5
    assert all(w.start_sample % 64 == 0 and w.keep_start % 64 == 0 for w in windows)
    assert all(w.end_sample - w.start_sample <= 20_000 for w in windows)
    assert [w.keep_start for w in windows[1:]] == [w.keep_end for w in windows[:-1]]
    assert windows[-1].keep_end == 95_123


def test_short_audio_is_one_window() -> None:
    samples = noise(30)
    (window,) = cut_windows([samples], RATE)
    assert (window.start_sample, window.end_sample, window.keep_end) == (0, 30_000, 30_000)
    assert len(list(cut_windows([noise(30.01)], RATE))) == 2
    assert list(cut_windows([], RATE)) == []


def test_cuts_lie_in_the_pauses() -> None:
    samples = noise(300)
    pauses = [(a, a + 0.6) for a in np.arange(7.0, 300.0, 9.5)]
    for start, end in pauses:
        samples[round(start * RATE) : round(end * RATE)] *= 0.01
    cuts = [w.keep_end / RATE for w in cut_windows([samples], RATE) if not w.is_last]
    assert len(cuts) >= 10
    for cut in cuts:
        assert any(start < cut < end for start, end in pauses), cut


def test_too_short_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        WindowConfig(seconds=5.0, overlap=1.5)
    with pytest.raises(ValueError, match="too short"):
        WindowConfig(seconds=30.0, piece=5.0)


Word = tuple[str, float]


def put_together(
    said: list[Word], windows: list[Window], heard: dict[int, list[Word]], overlap: float
) -> list[str]:
    """What long-form decoding does: fold the windows from the left."""
    text: list[Word] = []
    for number, window in enumerate(windows):
        words = heard[number]
        if number == 0:
            text = words
            continue
        keep, start, _ = join(
            text, words, window.keep_start / RATE, overlap, time=lambda w: w[1], same=lambda w: w[0]
        )
        text = text[:keep] + words[start:]
    return [word for word, _ in text]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), vocabulary=st.sampled_from([3, 30]))
def test_no_word_is_lost_or_doubled_at_a_cut(seed: int, vocabulary: int) -> None:
    """A perfect recogniser with jittering times and blind edges: the words come out as they were said."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.12, 0.7, 200))
    said = [(f"w{rng.integers(vocabulary)}", float(t)) for t in times]
    config = WindowConfig(seconds=20.0)
    windows = list(cut_windows([noise(float(times[-1]) + 1, seed)], RATE, config))
    assert len(windows) > 2
    heard = {}
    for number, window in enumerate(windows):
        # Words in the outermost 0.4 s of a window are cut off and not heard; each hearing is a little off.
        start = window.start_sample / RATE + (0.4 if number else -1)
        end = window.end_sample / RATE - (0 if window.is_last else 0.4)
        heard[number] = [
            (word, time + rng.uniform(-0.04, 0.04)) for word, time in said if start <= time <= end
        ]
    assert put_together(said, windows, heard, config.overlap) == [word for word, _ in said]


def test_where_nothing_agrees_the_time_decides() -> None:
    left, right = [("a", 1.0), ("b", 9.5), ("c", 10.5)], [("x", 9.4), ("y", 10.2), ("z", 12.0)]
    assert join(left, right, 10.0, 1.0, time=lambda w: w[1], same=lambda w: w[0]) == (2, 1, False)
    assert join([], [], 10.0, 1.0, time=lambda w: w[1], same=lambda w: w[0]) == (0, 0, False)
