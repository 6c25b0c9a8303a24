"""Voices brought to one long-term spectrum: measured, filtered, and left alone where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from firstwords.audio.voices import (
    BANDS,
    NOTHING_HEARD,
    Filter,
    equalized,
    equalizer,
    filtered,
    gains,
    spectrum_of,
)

RATE = 16000
BRIGHT, DULL = np.array([0.3, -0.24]), np.array([0.05, 0.03])  # microphones: a few taps each


def speech(seconds: float, seed: int, *, rate: int = RATE) -> NDArray[np.float32]:
    """Noise that swells and falls four times a second."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.1 * (1 + np.sin(8 * np.pi * time)) * noise).astype(np.float32)


def over(microphone: NDArray[np.float64], samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.convolve(samples, microphone)[: len(samples)].astype(np.float32)


def levels(samples: NDArray[np.float32], rate: int = RATE) -> NDArray[np.float64]:
    heard = spectrum_of(samples, rate)
    return heard.total / heard.frames


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_white_noise_has_its_level_in_all_bands(rate: int) -> None:
    """Less what the logarithm takes: 2.5 dB for one frequency alone, less where a band holds several."""
    noise = (0.1 * np.random.default_rng(1).standard_normal(10 * rate)).astype(np.float32)
    found = levels(noise, rate)
    assert found.shape == (BANDS,)
    assert (found < -20 + 0.2).all()
    assert (found > -20 - 2.7).all()


def test_two_microphones_sound_alike_afterwards() -> None:
    samples = speech(60, 2)
    bright, dull = over(BRIGHT, samples), over(DULL, samples)
    before = np.abs(levels(bright) - levels(dull))
    assert before.max() > 20
    one, other = equalized(bright, RATE), equalized(dull, RATE)
    assert np.abs(levels(one) - levels(other)).max() < 0.1 * before.max()
    loudness = [np.square(x.reshape(-1, 160)).mean(axis=1) for x in (one, other, samples)]
    assert np.corrcoef(loudness).min() > 0.6  # what swelled still swells, and in both alike
    assert np.corrcoef(loudness[:2])[0, 1] > 0.9


def test_what_is_said_stays_where_it_was() -> None:
    click = np.zeros(RATE, np.float32)
    click[8000] = 0.5
    taps = equalizer(spectrum_of(speech(20, 3), RATE), RATE)
    assert taps is not None
    assert int(np.abs(filtered(click, taps)).argmax()) == 8000
    np.testing.assert_allclose(taps, taps[::-1], atol=1e-6)


@pytest.mark.parametrize("sizes", [[1] * 40, [7, 500, 3, 4000], [20000], [0, 300, 0, 301]])
def test_blocks_of_any_size_give_the_convolution(sizes: list[int]) -> None:
    samples = speech(sum(sizes) / RATE, 4)
    taps = np.random.default_rng(5).standard_normal(2 * 150 + 1).astype(np.float32)
    one, done = Filter(taps), 0
    made: list[NDArray[np.float32]] = []
    for size in sizes:
        made.append(one.push(samples[done : done + size]))
        done += size
    found = np.concatenate([*made, one.finish()])
    expected = np.convolve(samples.astype(np.float64), taps)[150 : 150 + len(samples)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_spectra_add() -> None:
    one, other = spectrum_of(speech(3, 6), RATE), spectrum_of(speech(5, 7), RATE)
    both = one + other
    assert both.frames == one.frames + other.frames
    np.testing.assert_allclose(both.total, one.total + other.total)
    np.testing.assert_allclose((both + NOTHING_HEARD).total, both.total)


def test_pauses_say_nothing_about_a_voice() -> None:
    samples = speech(20, 8)
    hiss = (1e-4 * np.random.default_rng(9).standard_normal(80 * RATE)).astype(np.float32)
    alone = spectrum_of(samples, RATE)
    pauses = spectrum_of(np.concatenate([hiss, samples]), RATE)
    assert abs(pauses.frames - alone.frames) < 0.1 * alone.frames
    np.testing.assert_allclose(gains(pauses, RATE), gains(alone, RATE), atol=0.7)


def test_the_less_is_heard_the_less_is_changed() -> None:
    long = spectrum_of(speech(60, 10), RATE)
    short = spectrum_of(speech(60, 10)[: RATE // 2], RATE)
    assert np.abs(gains(short, RATE)).max() < 0.5 * np.abs(gains(long, RATE)).max()


def test_silence_and_snippets_stay_as_they_are() -> None:
    for samples in (np.zeros(RATE, np.float32), speech(0.01, 11), np.zeros(0, np.float32)):
        heard = spectrum_of(samples, RATE)
        assert heard.frames == 0
        assert equalizer(heard, RATE) is None
        assert not gains(heard, RATE).any()
        np.testing.assert_array_equal(equalized(samples, RATE), samples)


def test_a_faint_voice_is_raised_by_no_more_than_thirty_decibels() -> None:
    faint = spectrum_of(1e-2 * speech(60, 12), RATE)
    assert gains(faint, RATE).max() <= 30
    assert gains(faint, RATE).max() > 25
