"""Sample rates: soxr in blocks, with lengths that are exact to the sample.

soxr is loaded when a rate is really changed: where recordings have the rate of the model, none is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from firstwords.audio.source import Samples
from firstwords.errors import DependencyError


class Resampler:
    """Blocks at one rate -> blocks at another; all outputs together have ``resampled_length`` samples.

    soxr's high-quality filter (linear phase, no delay left). The result does not depend on where blocks end.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self.from_rate, self.to_rate = from_rate, to_rate
        self._stream = _soxr(from_rate, to_rate).ResampleStream(
            from_rate, to_rate, 1, dtype="float32", quality="HQ"
        )
        self._taken = self._given = 0

    def push(self, samples: Samples) -> Samples:
        """The next block in -> what is ready; may be empty, the filter looks ahead."""
        self._taken += len(samples)
        ready = self._stream.resample_chunk(np.ascontiguousarray(samples))
        self._given += len(ready)
        return ready

    def finish(self) -> Samples:
        """The rest, cut or filled with zeros (a sample or two) to the exact length."""
        rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        left = max(0, resampled_length(self._taken, self.from_rate, self.to_rate) - self._given)
        return np.pad(rest, (0, max(0, left - len(rest))))[:left]


def _soxr(from_rate: int, to_rate: int) -> Any:
    try:
        import soxr
    except ImportError:
        raise DependencyError(
            f"Changing {from_rate} Hz into {to_rate} Hz needs the package 'soxr'.",
            mend=f"pip install soxr, or give recordings of {to_rate} Hz.",
        ) from None
    return soxr


def resample(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """Samples (S,) at one rate -> (round(S * to / from),) at another."""
    if from_rate == to_rate:
        return samples
    resampler = Resampler(from_rate, to_rate)
    return np.concatenate([resampler.push(samples), resampler.finish()])


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """round(frames * to / from) in whole numbers, halves up."""
    return (2 * frames * to_rate + from_rate) // (2 * from_rate)
