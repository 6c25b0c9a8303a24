"""Samples of any rate in, as a whole or in blocks of any kind and size; checked, of the model's rate out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from firstwords.audio.resampling import Resampler, resample
from firstwords.audio.source import MAX_RATE, MIN_RATE, Samples
from firstwords.errors import AudioError, UsageError

_PIECE_SECONDS = 0.01  # resampled at a time
_MAX_LEVEL = 100.0  # float samples beyond are integers in disguise

Block = npt.NDArray[np.floating] | npt.NDArray[np.int16]


def as_float(samples: Block) -> Samples:
    """A copy as float32 in [-1, 1], checked."""
    if samples.ndim != 1:
        raise UsageError(
            f"Samples must be one channel, got an array of shape {samples.shape}.",
            mend="Pick a channel, or average them: samples.mean(axis=1).",
        )
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    if not np.issubdtype(samples.dtype, np.floating):
        raise UsageError(
            f"Samples must be floats in [-1, 1] or 16-bit integers, got {samples.dtype}.",
            mend="Convert them: samples.astype(numpy.float32) / 2**31 for 32-bit integers.",
        )
    own = samples.astype(np.float32)
    if len(own) and not np.abs(own).max() <= _MAX_LEVEL:  # true of NaN, too
        raise AudioError(
            "The stream holds samples that are no sound: not numbers, infinite, or far beyond [-1, 1].",
            mend="Divide 16-bit values by 32768, and look at what produces the samples.",
        )
    return own


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
    _check_rate(sample_rate or wanted)
    return resample(samples.astype(np.float32, copy=False), sample_rate or wanted, wanted)


def _check_rate(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UsageError(
            f"A sample rate of {rate} Hz is not believable.",
            mend=f"Give it in hertz, {MIN_RATE} to {MAX_RATE}: 16000, for example.",
        )


class Intake:
    """Samples of any rate in blocks of any size in, pieces of the model's rate out, gap-free.

    Blocks are cut into equal pieces before they are resampled, so that what is ready at any moment depends
    on the number of samples alone.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        _check_rate(from_rate)
        self._resampler = None if from_rate == to_rate else Resampler(from_rate, to_rate)
        self._size = max(1, round(_PIECE_SECONDS * from_rate))
        self._given, self._ready = _Queue(), _Queue()

    def push(self, samples: Samples) -> None:
        """The next samples; the array is kept, not copied."""
        if self._resampler is None:
            self._ready.push(samples)
            return
        self._given.push(samples)
        while len(self._given) >= self._size:
            self._ready.push(self._resampler.push(self._given.take(self._size)))

    def finish(self) -> None:
        """No more samples come."""
        if self._resampler is not None:
            self._ready.push(self._resampler.push(self._given.take(len(self._given))))
            self._ready.push(self._resampler.finish())

    def take(self, count: int) -> Samples | None:
        """So many samples, None while there are fewer."""
        return self._ready.take(count) if len(self._ready) >= count else None

    def rest(self) -> Samples:
        """All there are."""
        return self._ready.take(len(self._ready))


class _Queue:
    """Samples in the order they came; nothing is copied twice."""

    def __init__(self) -> None:
        self._blocks: list[Samples] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, samples: Samples) -> None:
        if len(samples):
            self._blocks.append(samples)
            self._length += len(samples)

    def take(self, count: int) -> Samples:
        """The first ``count`` samples, at most as many as there are."""
        taken: list[Samples] = []
        missing, used = count, 0
        for block in self._blocks:
            if missing <= 0:
                break
            taken.append(block[:missing])
            if len(block) > missing:
                self._blocks[used] = _apart(block[missing:])
            else:
                used += 1
            missing -= len(taken[-1])
        del self._blocks[:used]
        self._length -= count
        return np.concatenate(taken) if taken else np.zeros(0, np.float32)


def _apart(rest: Samples) -> Samples:
    """The end of a block; where that is much longer, a copy, lest it be kept for the sake of its end."""
    return rest.copy() if rest.base is not None and rest.base.size > 4 * rest.size else rest
