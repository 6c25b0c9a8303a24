"""Lossy codecs: samples through MP3, Opus or Vorbis in memory and back, in place to the sample."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

import numpy as np
import soundfile

from firstwords.audio.resampling import resample
from firstwords.audio.source import Samples

Codec = Literal["mp3", "opus", "vorbis"]

_FORMATS: dict[Codec, tuple[str, str]] = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "vorbis": ("OGG", "VORBIS"),
}
_RATES: dict[Codec, tuple[int, ...]] = {  # what each encoder takes, hertz; Vorbis takes all
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
    "vorbis": (),
}
BLOCK = 1 << 14  # libvorbis keeps a written block on the stack: long ones in one piece overflow it
LONGEST_DELAY = 0.2  # seconds; no codec here delays by more


def through_codec(samples: Samples, sample_rate: int, codec: Codec, compression: float = 0.5) -> Samples:
    """Encode and decode: same length, same place, what the codec takes for inaudible is gone.

    Args:
        compression: 0 (best quality) to 1 (smallest file).
    """
    if len(samples) == 0:
        return samples.copy()
    rate = _nearest_rate(codec, sample_rate)
    there = resample(samples, sample_rate, rate)
    # The tail of zeros pushes the last real samples out of codecs that hold some back.
    decoded = _round_trip(np.pad(there, (0, BLOCK)), rate, codec, compression)[_delay(codec, rate) :]
    back = resample(np.ascontiguousarray(decoded[: len(there)]), rate, sample_rate)
    result = np.zeros(len(samples), dtype=np.float32)
    result[: len(back)] = back[: len(samples)]
    return result


@lru_cache(maxsize=64)
def _delay(codec: Codec, rate: int) -> int:
    """Samples by which this build's encoder and decoder shift a signal: measured once on a burst of noise."""
    count, longest = rate, round(LONGEST_DELAY * rate)
    sent = (0.1 * np.random.default_rng(0).standard_normal(count)).astype(np.float32)
    # Low frequencies survive every codec: a short mean.
    sent = np.convolve(sent, np.ones(8) / 8, mode="same").astype(np.float32)
    received = _round_trip(np.pad(sent, (0, BLOCK)), rate, codec, 0.2)
    size = 1 << (2 * count + longest).bit_length()
    match = np.fft.irfft(
        np.fft.rfft(received[: count + longest], size) * np.conj(np.fft.rfft(sent, size)), size
    )
    return int(np.argmax(match[: longest + 1]))


def _round_trip(samples: Samples, rate: int, codec: Codec, compression: float) -> Samples:
    kind, subtype = _FORMATS[codec]
    memory = io.BytesIO()
    with soundfile.SoundFile(
        memory, "w", rate, 1, format=kind, subtype=subtype, compression_level=compression
    ) as file:
        for start in range(0, len(samples), BLOCK):
            file.write(samples[start : start + BLOCK])
    memory.seek(0)
    decoded, _ = soundfile.read(memory, dtype="float32")
    return decoded.astype(np.float32, copy=False).reshape(-1)


def _nearest_rate(codec: Codec, sample_rate: int) -> int:
    """The lowest rate of the codec that keeps all frequencies, or its highest."""
    rates = _RATES[codec]
    return next((rate for rate in rates if rate >= sample_rate), rates[-1]) if rates else sample_rate
