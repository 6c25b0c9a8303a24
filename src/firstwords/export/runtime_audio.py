"""What the runtime reads: samples that are given, and short recordings as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from firstwords.audio.source import MAX_RATE, MIN_RATE, Samples
from firstwords.audio.waveform import AudioReader, ChannelPolicy, resample
from firstwords.data.manifest import Utterance
from firstwords.errors import FirstwordsError, UsageError

T = TypeVar("T")
Loaded: TypeAlias = tuple[Samples, tuple[str, ...]] | FirstwordsError  # samples and repairs, or why not


def one_channel(samples: npt.NDArray[np.floating], sample_rate: int | None, wanted: int) -> Samples:
    """Samples (S,) in [-1, 1] and their rate (None: the wanted one) -> checked, of the wanted rate."""
    if samples.ndim != 1:
        raise UsageError(
            f"Samples must be one channel, got an array of shape {samples.shape}.",
            mend="Pick a channel, or average them: samples.mean(axis=1).",
        )
    if not np.issubdtype(samples.dtype, np.floating):
        raise UsageError(
            f"Samples must be floats in [-1, 1], got {samples.dtype}.",
            mend="Convert them: samples.astype(numpy.float32) / 32768 for 16-bit integers.",
        )
    if not np.isfinite(samples).all():
        raise UsageError("Samples hold NaN or infinite values.", mend="Mend them first.")
    if not MIN_RATE <= (sample_rate or wanted) <= MAX_RATE:
        raise UsageError(
            f"A sample rate of {sample_rate} Hz is not believable.",
            mend=f"Give it in hertz, {MIN_RATE} to {MAX_RATE}: 16000, for example.",
        )
    return resample(samples.astype(np.float32, copy=False), sample_rate or wanted, wanted)


def load_short(utterance: Utterance, sample_rate: int, channels: ChannelPolicy = "mix") -> Loaded:
    """An utterance -> all of its samples; the error instead where it cannot be read."""
    try:
        reader = AudioReader(
            utterance.audio,
            sample_rate=sample_rate,
            channels=channels,
            start=utterance.start,
            duration=utterance.duration or None,
        )
        return reader.whole(), reader.repairs
    except FirstwordsError as error:
        return error


def attempt_each(
    decode: Callable[[Sequence[Samples]], list[T]], stretches: Sequence[Samples]
) -> list[T | FirstwordsError]:
    """``decode(stretches)``; where that fails, of each alone, so that the error of one leaves the others."""
    try:
        return list[T | FirstwordsError](decode(stretches))
    except FirstwordsError as error:
        if len(stretches) == 1:
            return [error]
    return [found for one in stretches for found in attempt_each(decode, [one])]
