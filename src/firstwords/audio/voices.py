"""One voice over one microphone has one long-term spectrum; here all of them are brought to the same.

    samples ─> spectrum_of ─> Spectrum (adds up over the recordings of a voice) ─> equalizer ─> taps
    samples ─> Filter(taps) ─> samples that sound as if all voices had stood before one microphone

Mean log power in mel bands, over the frames in which somebody may be speaking, is what cepstral mean
subtraction over a speaker's utterances takes away (Atal, 1974, JASA 55; per speaker as in Kaldi's recipes);
here a filter does it to the samples, so that any features and any model may follow.

The target falls by 5 dB an octave above 500 Hz, about as speech does (Byrne et al., 1994, JASA 96). The less
of a voice was heard, the less is changed: a word alone says more about its vowels than about the voice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from firstwords.audio.source import Samples

BANDS = 24
ENOUGH_FRAMES = 100  # a second: a voice heard so long is brought half of the way
MOST_DB = 30.0  # no band is raised by more: behind it is the noise of the recorder
FRAME_SECONDS, SHIFT_SECONDS = 0.025, 0.010
ACTIVE_DB = 30.0  # frames this far below the loud ones are pauses
LOUD_SHARE = 0.95  # of the frames are no louder than the loud ones
TAP_SECONDS = 0.016  # that the filter looks to either side
_LOWEST, _HIGHEST = 60.0, 0.97  # hertz; share of half the sample rate
_FLOOR = 1e-9  # of the power of full scale: -90 dB
_LEVEL_DB, _KNEE, _FALL_DB = -35.0, 500.0, 5.0
_DESIGN = 4096  # points of the frequency response
_AT_ONCE = 3000  # frames transformed together: 30 s

Bands = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """Sum of log power (dB) in each band over so many active frames; they add."""

    total: Bands
    frames: int

    def __add__(self, other: Spectrum) -> Spectrum:
        return Spectrum(self.total + other.total, self.frames + other.frames)


NOTHING_HEARD = Spectrum(np.zeros(BANDS), 0)


def spectrum_of(samples: Samples, sample_rate: int) -> Spectrum:
    """Samples (S,) -> what was heard in them; nothing in silence or in less than a frame."""
    width, shift = round(FRAME_SECONDS * sample_rate), round(SHIFT_SECONDS * sample_rate)
    if len(samples) < width:
        return NOTHING_HEARD
    window, bank = _window(width), _bank(sample_rate)[1]
    frames = np.lib.stride_tricks.sliding_window_view(samples, width)[::shift]
    levels: list[Bands] = []
    for first in range(0, len(frames), _AT_ONCE):
        power = np.abs(np.fft.rfft(frames[first : first + _AT_ONCE] * window, _size(sample_rate))) ** 2
        levels.append(10 * np.log10(power @ bank + _FLOOR))
    bands = np.concatenate(levels)
    loudness = bands.max(axis=1)
    loud = float(np.quantile(loudness, LOUD_SHARE))
    if loud <= 10 * np.log10(2 * _FLOOR):
        return NOTHING_HEARD
    active = bands[loudness >= loud - ACTIVE_DB]
    return Spectrum(active.sum(axis=0), len(active))


def gains(heard: Spectrum, sample_rate: int) -> Bands:
    """Decibels (BANDS,) by which a voice is changed."""
    if not heard.frames:
        return np.zeros(BANDS)
    centers = _bank(sample_rate)[0]
    target = _LEVEL_DB - _FALL_DB * np.log2(np.maximum(centers, _KNEE) / _KNEE)
    share = heard.frames / (heard.frames + ENOUGH_FRAMES)
    return share * np.minimum(target - heard.total / heard.frames, MOST_DB)


def equalizer(heard: Spectrum, sample_rate: int) -> Samples | None:
    """Taps (2 K + 1,) of the symmetric filter for a voice; None where nothing was heard of it."""
    if not heard.frames:
        return None
    frequencies: Bands = np.fft.rfftfreq(_DESIGN, 1 / sample_rate).astype(np.float64)
    decibels = np.interp(_mel(frequencies), _mel(_bank(sample_rate)[0]), gains(heard, sample_rate))
    response = np.fft.irfft(10 ** (decibels / 20), _DESIGN)
    half = round(TAP_SECONDS * sample_rate)
    taps = np.concatenate([response[-half:], response[: half + 1]]) * np.hanning(2 * half + 3)[1:-1]
    return taps.astype(np.float32)


class Filter:
    """Samples in blocks of any size in, as many out, without delay; before and after them is silence."""

    def __init__(self, taps: Samples) -> None:
        self._taps = taps
        self._half = len(taps) // 2
        self._kept = np.zeros(self._half, np.float32)

    def push(self, samples: Samples) -> Samples:
        """The next samples -> what is ready."""
        heard = np.concatenate([self._kept, samples])
        ready = len(heard) - 2 * self._half
        if ready <= 0:
            self._kept = heard
            return np.zeros(0, np.float32)
        self._kept = heard[ready:].copy()
        size = 1 << (len(heard) + len(self._taps) - 2).bit_length()
        found = np.fft.irfft(np.fft.rfft(heard, size) * np.fft.rfft(self._taps, size), size)
        return found[2 * self._half : 2 * self._half + ready].astype(np.float32)

    def finish(self) -> Samples:
        """The rest."""
        return self.push(np.zeros(self._half, np.float32))


def through(taps: Samples | None, pieces: Iterable[Samples]) -> Iterator[Samples]:
    """Pieces of one recording, filtered; as they are without taps."""
    if taps is None:
        yield from pieces
        return
    one = Filter(taps)
    for piece in pieces:
        yield one.push(piece)
    yield one.finish()


def filtered(samples: Samples, taps: Samples | None) -> Samples:
    """Samples (S,) as a whole -> as many; as they are without taps."""
    return np.concatenate(list(through(taps, [samples])))


def equalized(samples: Samples, sample_rate: int) -> Samples:
    """Samples (S,) that are all there is of a voice -> as many."""
    return filtered(samples, equalizer(spectrum_of(samples, sample_rate), sample_rate))


def _mel(frequency: Bands) -> Bands:
    return 2595 * np.log10(1 + frequency / 700)


@lru_cache(maxsize=8)
def _window(width: int) -> npt.NDArray[np.float64]:
    """Hann, of power one: white noise has the same level in all bands."""
    window = np.hanning(width + 2)[1:-1]
    return window / np.sqrt(np.square(window).sum())


def _size(sample_rate: int) -> int:
    return 1 << (round(FRAME_SECONDS * sample_rate) - 1).bit_length()


@lru_cache(maxsize=8)
def _bank(sample_rate: int) -> tuple[Bands, Bands]:
    """Centers of the bands (BANDS,) in hertz, and what they weigh each frequency with (bins, BANDS)."""
    ends = _mel(np.array([_LOWEST, _HIGHEST * sample_rate / 2]))
    edges = 700 * (10 ** (np.linspace(ends[0], ends[1], BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(_size(sample_rate), 1 / sample_rate)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    weights = np.clip(np.minimum(rising, falling), 0, None)
    return edges[1:-1], weights / weights.sum(axis=0)
