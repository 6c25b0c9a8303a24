"""What can happen to a voice between mouth and file, one pure function per effect.

Every function takes mono float32 samples in [-1, 1], returns new float32 samples and never changes its
input; what is random takes a ``numpy.random.Generator``. Silence stays finite everywhere.

A length changes only where a docstring says so (edges, speed and time stretch).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from firstwords.audio.resampling import resample
from firstwords.audio.source import Samples

FRAME_SECONDS = 0.02  # of the level meter
ACTIVE_RANGE = 1e-3  # frames less than 30 dB below the loud ones count as active
MU, A = 255.0, 87.6  # companding constants of G.711
CODE_STEPS = 128  # 8-bit codes: 128 steps for each sign
CUT_SHARE = 0.1  # of a recording, at most, goes at either end
TONE_SECONDS = 0.032  # of the stretch whose sound is taken for the room's
STRETCH_FRAME, STRETCH_SEARCH = 0.032, 0.010  # WSOLA: seconds per frame, seconds searched to either side


def move_edges(
    samples: Samples, sample_rate: int, before: float, after: float, generator: np.random.Generator
) -> Samples:
    """Begin ``before`` seconds earlier and end ``after`` seconds later: S + round of both, in samples.

    What is added sounds like the quietest stretch of the recording, as loud or softer, down to silence.
    Below 0 that much is cut off, a tenth of the recording at most.
    """
    most = int(CUT_SHARE * len(samples))
    first, last = (max(-most, round(seconds * sample_rate)) for seconds in (before, after))
    kept = samples[max(0, -first) : len(samples) - max(0, -last)]
    level = generator.uniform()
    quiet = level * room_tone(samples, sample_rate, max(0, first) + max(0, last), generator)
    start = max(0, first)
    return np.concatenate([quiet[:start], kept, quiet[start:]]).astype(np.float32)


def room_tone(samples: Samples, sample_rate: int, count: int, generator: np.random.Generator) -> Samples:
    """Noise (count,) with the level and the spectrum of the quietest stretch of samples (S,).

    Half-overlapping frames with that stretch's magnitudes and phases drawn anew.
    """
    hop = max(1, round(TONE_SECONDS * sample_rate / 2))
    width = 2 * hop
    if len(samples) < width or count <= 0:
        return np.zeros(max(0, count), np.float32)
    stretches = samples[: len(samples) // width * width].reshape(-1, width).astype(np.float64)
    quietest = stretches[int(np.square(stretches).sum(axis=1).argmin())]
    window = np.sqrt(np.hanning(width + 1)[:-1])  # its squares sum to one at half overlap
    size = np.abs(np.fft.rfft(quietest))
    frames = -(-count // hop) + 1
    phases = np.exp(2j * np.pi * generator.random((frames, len(size))))
    pieces = np.fft.irfft(size * phases, n=width, axis=1) * window
    result = np.zeros((frames + 1) * hop)
    for k, piece in enumerate(pieces):
        result[k * hop : k * hop + width] += piece
    return result[hop : hop + count].astype(np.float32)


def change_speed(samples: Samples, factor: float) -> Samples:
    """Play ``factor`` times as fast, pitch included: round(S / factor) samples.

    The factor is taken as a ratio of whole numbers up to 100 (0.9 and 1.1 are exact).
    """
    ratio = _ratio(factor)
    if ratio == 1 or len(samples) == 0:
        return samples.copy()
    return resample(samples, ratio.numerator, ratio.denominator)


def stretch_time(samples: Samples, sample_rate: int, factor: float) -> Samples:
    """Speak ``factor`` times as fast at the same pitch: round(S / factor) samples.

    WSOLA (Verhelst and Roelands, ICASSP 1993): half-overlapping frames are taken from where, near their
    nominal place, the signal best continues the frame before.
    """
    _check_factor(factor)
    count = round(len(samples) / factor)
    hop = max(1, round(STRETCH_FRAME * sample_rate / 2))
    if factor == 1 or len(samples) < 4 * hop or count == 0:
        return _fit(samples, count)
    width, search = 2 * hop, round(STRETCH_SEARCH * sample_rate)
    frames = -(-count // hop) + 1
    margin = width + search
    # Places are counted from hop samples before the start, so that every sample lies under two frames.
    padded = np.pad(samples, (margin, margin + width + hop)).astype(np.float32)
    squares = np.concatenate([[0.0], np.cumsum(padded.astype(np.float64) ** 2)])
    last = len(padded) - width - 2 * search - hop
    window = np.hanning(width + 1)[:-1].astype(np.float32)
    result = np.zeros((frames + 1) * hop, dtype=np.float32)
    follow = margin - hop
    for k in range(frames):
        first = min(margin - hop - search + round(k * hop * factor), last)
        if k > 0:
            target = padded[follow : follow + width]
            area = padded[first : first + width + 2 * search]
            energy = (
                squares[first + width : first + width + 2 * search + 1]
                - squares[first : first + 2 * search + 1]
            )
            match = np.correlate(area, target, mode="valid") / np.sqrt(energy + 1e-6)
            first += int(match.argmax()) if match.any() else search
        else:
            first += search
        result[k * hop : k * hop + width] += window * padded[first : first + width]
        follow = min(first + hop, last)
    return _fit(result[hop:], count)


def shift_pitch(samples: Samples, sample_rate: int, semitones: float) -> Samples:
    """Raise the pitch (and formants) by ``semitones`` at the same tempo and length."""
    ratio = _ratio(2 ** (semitones / 12))
    slower = stretch_time(samples, sample_rate, float(1 / ratio))
    return _fit(change_speed(slower, float(ratio)), len(samples))


def change_gain(samples: Samples, gain_db: float) -> Samples:
    """Multiply by ``gain_db`` decibels; nothing is clipped."""
    return samples * np.float32(10 ** (gain_db / 20))


def clip(samples: Samples, fraction: float) -> Samples:
    """Flatten the loudest ``fraction`` of the samples, as an overdriven input does."""
    flattened = min(len(samples) - 1, round(fraction * len(samples)))
    if flattened <= 0:
        return samples.copy()
    place = len(samples) - 1 - flattened
    threshold = np.partition(np.abs(samples), place)[place]
    return np.clip(samples, -threshold, threshold)


def drop_out(
    samples: Samples, sample_rate: int, generator: np.random.Generator, *, gaps: int, longest: float
) -> Samples:
    """Silence ``gaps`` stretches of up to ``longest`` seconds, as lost packets do."""
    result = samples.copy()
    for _ in range(gaps):
        width = round(generator.uniform(0, longest) * sample_rate)
        start = int(generator.integers(0, max(1, len(samples) - width + 1)))
        result[start : start + width] = 0
    return result


def band_limit(samples: Samples, sample_rate: int, low: float = 300.0, high: float = 3400.0) -> Samples:
    """Keep ``low`` to ``high`` hertz (-6 dB there; -40 dB 200 Hz further out), without delay."""
    half = round(0.008 * sample_rate)  # a Hann-windowed filter of 16 ms has edges about 200 Hz wide
    times = np.arange(-half, half + 1) / sample_rate
    kernel = 2 * high * np.sinc(2 * high * times) - 2 * low * np.sinc(2 * low * times)
    kernel = (kernel * np.hanning(2 * half + 3)[1:-1] / sample_rate).astype(np.float32)
    return convolve(samples, kernel)[half : half + len(samples)]


def equalize(
    samples: Samples,
    sample_rate: int,
    edges: npt.NDArray[np.floating],
    gains_db: npt.NDArray[np.floating],
) -> Samples:
    """Color the sound as another microphone would: ``gains_db`` at ``edges``, straight lines between them.

    The curves of FilterAugment (Nam et al., 2022, arXiv:2107.13260), linear type, as a filter without delay.

    Args:
        edges: places on the mel scale from 0 (0 Hz) to 1 (half the sample rate), rising.
    """
    if len(samples) == 0:
        return samples.copy()
    around = round(0.032 * sample_rate)  # as long as what a curve smears to either side
    size = 1 << (len(samples) + 2 * around - 1).bit_length()
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    places = np.log1p(hertz / 700) / np.log1p(sample_rate / 2 / 700)
    curve = 10 ** (np.interp(places, edges, gains_db) / 20)
    spectrum = np.fft.rfft(samples.astype(np.float32), size)
    return np.fft.irfft(spectrum * curve, size)[: len(samples)].astype(np.float32)


def mu_law(samples: Samples) -> Samples:
    """Through 8-bit mu-law codes and back (North American telephony, G.711 companding curve)."""
    inside = np.clip(samples, -1, 1)
    codes = np.round(np.log1p(MU * np.abs(inside)) / np.log1p(MU) * CODE_STEPS) / CODE_STEPS
    return (np.sign(inside) * np.expm1(codes * np.log1p(MU)) / MU).astype(np.float32)


def a_law(samples: Samples) -> Samples:
    """Through 8-bit A-law codes and back (telephony elsewhere, G.711 companding curve)."""
    inside = np.clip(samples, -1, 1)
    size, scale = np.abs(inside), 1 + np.log(A)
    codes = np.where(size < 1 / A, A * size, 1 + np.log(np.maximum(A * size, 1))) / scale
    codes = np.round(codes * CODE_STEPS) / CODE_STEPS
    size = np.where(codes < 1 / scale, codes * scale / A, np.exp(codes * scale - 1) / A)
    return (np.sign(inside) * size).astype(np.float32)


def active_power(samples: Samples, sample_rate: int) -> float:
    """Mean square of the frames in which something sounds; 0 for silence.

    Pauses would make a slow speaker look quiet: only 20 ms frames within 30 dB of the loud ones (99th
    percentile) count, a simple form of the active speech level of ITU-T P.56.
    """
    width = max(1, round(FRAME_SECONDS * sample_rate))
    whole = len(samples) // width * width
    if whole == 0:
        return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    powers = np.mean(np.square(samples[:whole].reshape(-1, width), dtype=np.float64), axis=1)
    loud = float(np.quantile(powers, 0.99)) or float(powers.max())
    active = powers[powers > ACTIVE_RANGE * loud]
    return float(active.mean()) if len(active) else 0.0


def add_noise(samples: Samples, noise: Samples, snr_db: float, sample_rate: int) -> Samples:
    """Mix in ``noise`` (as long as the samples) at ``snr_db``: active speech power over mean noise power.

    Without speech or without noise there is no such ratio, and the samples come back as they are.
    """
    speech = active_power(samples, sample_rate)
    hiss = float(np.mean(np.square(noise, dtype=np.float64))) if len(noise) else 0.0
    if speech <= 0 or hiss <= 0:
        return samples.copy()
    gain = np.sqrt(speech / (hiss * 10 ** (snr_db / 10)))
    return (samples + gain * noise.astype(np.float64)).astype(np.float32)


def convolve(samples: npt.NDArray[np.floating], kernel: npt.NDArray[np.floating]) -> Samples:
    """Full linear convolution, S + K - 1 samples, by overlap-add of FFT blocks."""
    if len(samples) == 0 or len(kernel) == 0:
        return np.zeros(0, dtype=np.float32)
    size = 1 << max(12, (4 * len(kernel) - 1).bit_length())
    size = min(
        size, 1 << (len(samples) + len(kernel) - 2).bit_length() if len(samples) + len(kernel) > 2 else 1
    )
    size = max(size, 2)
    step = size - len(kernel) + 1
    blocks = -(-len(samples) // step)
    padded = np.zeros(blocks * step, dtype=np.float32)
    padded[: len(samples)] = samples
    spectra = np.fft.rfft(padded.reshape(blocks, step), size, axis=1)
    spectra *= np.fft.rfft(kernel.astype(np.float32), size)
    pieces = np.fft.irfft(spectra, size, axis=1)
    result = np.zeros(blocks * step + size, dtype=np.float32)
    for k in range(blocks):
        result[k * step : k * step + size] += pieces[k]
    return result[: len(samples) + len(kernel) - 1]


def _check_factor(factor: float) -> None:
    if not 0.1 <= factor <= 10:
        raise ValueError(f"a speed factor of {factor:g} is outside 0.1 to 10")


def _ratio(factor: float) -> Fraction:
    _check_factor(factor)
    return Fraction(factor).limit_denominator(100)


def _fit(samples: Samples, count: int) -> Samples:
    """Exactly ``count`` samples: cut, or filled with zeros. Always a copy."""
    result = np.zeros(count, dtype=np.float32)
    result[: min(count, len(samples))] = samples[:count]
    return result
