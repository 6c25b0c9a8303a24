"""How late the words of a stream come, and how much of the time is computing.

    word      |=====|
    chunk              |        its last sample and the look-ahead are there
    shown               .       computed: first appearance, its distance from the word's end is measured
    final                   .   the utterance is over

Moments are seconds of the stream plus the time it took to compute, as if the samples came from a microphone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST = 20_000  # numbers kept of each kind, the last ones: 3.5 hours of chunks of 640 ms


@dataclass(frozen=True)
class Spread:
    """Median and 95th percentile, in seconds."""

    median: float
    high: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Spread | None:
        """None of no values."""
        numbers = np.asarray(values, dtype=np.float64)
        return cls(*(float(np.quantile(numbers, q)) for q in (0.5, 0.95))) if len(numbers) else None


@dataclass(frozen=True)
class LatencyReport:
    """All in seconds.

    Args:
        chunk: length of a chunk.
        look_ahead: sound after a chunk that its step waits for. Their sum is the algorithmic latency: so long
            after its first sound, a chunk can be computed on a machine that takes no time.
        audio: length of the stream.
        processing: time computed in all.
        per_chunk: time computed per chunk.
        to_partial: from the end of a word, by the model's own times, to its first appearance.
        to_final: to the end of the utterance it is in.
        words: that were timed.
    """

    chunk: float
    look_ahead: float
    audio: float
    processing: float
    per_chunk: Spread | None
    to_partial: Spread | None
    to_final: Spread | None
    words: int

    @property
    def algorithmic(self) -> float:
        return self.chunk + self.look_ahead

    @property
    def real_time_factor(self) -> float:
        return self.processing / self.audio if self.audio else 0.0

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        whole = {"algorithmic": self.algorithmic, "real_time_factor": self.real_time_factor}
        return asdict(self) | whole

    def lines(self) -> list[str]:
        """What a user reads."""

        def told(name: str, spread: Spread | None) -> str:
            if spread is None:
                return f"{name:<28}-"
            return f"{name:<28}median {_ms(spread.median)}, 95 % below {_ms(spread.high)}"

        parts = f"chunk {_ms(self.chunk)} + look-ahead {_ms(self.look_ahead)}"
        share = f"{self.processing:.1f} s for {self.audio:.1f} s of audio"
        return [
            f"{'algorithmic latency':<28}{_ms(self.algorithmic)} = {parts}",
            told("computing, per chunk", self.per_chunk),
            f"{'real-time factor':<28}{self.real_time_factor:.3f}, {share}",
            told("end of word to partial text", self.to_partial),
            told("end of word to final text", self.to_final),
            f"({self.words} words, their ends by the model's own times)",
        ]


class LatencyMeter:
    """Counts while a stream runs; memory is bounded.

    Args:
        chunk, look_ahead: seconds, as in the report.
    """

    def __init__(self, chunk: float, look_ahead: float) -> None:
        self._chunk, self._look_ahead = chunk, look_ahead
        self._audio = self._processing = 0.0
        self._chunks, self._partial, self._final = _Recent(), _Recent(), _Recent()
        self._words = 0

    def chunk(self, audio: float, processing: float) -> None:
        """So many seconds of audio took so many to compute."""
        self._audio += audio
        self._processing += processing
        self._chunks.add(processing)

    def word(self, end: float, shown: float, final: float) -> None:
        """A word's end, first appearance and final appearance, seconds of the stream."""
        self._partial.add(shown - end)
        self._final.add(final - end)
        self._words += 1

    def report(self) -> LatencyReport:
        """What was measured so far."""
        return LatencyReport(
            self._chunk,
            self._look_ahead,
            self._audio,
            self._processing,
            Spread.of(self._chunks.values),
            Spread.of(self._partial.values),
            Spread.of(self._final.values),
            self._words,
        )


class _Recent:
    """The last numbers of many; what they take is taken at the start."""

    def __init__(self) -> None:
        self._numbers = np.zeros(_MOST, np.float32)
        self._count = 0

    def add(self, number: float) -> None:
        self._numbers[self._count % _MOST] = number
        self._count += 1

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """In no order."""
        return self._numbers[: self._count]


def _ms(seconds: float) -> str:
    return f"{round(1000 * seconds, 1):g} ms"
