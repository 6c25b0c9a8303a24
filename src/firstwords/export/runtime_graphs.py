"""The graphs of a bundle at work: samples in, log-probabilities or encoded frames out, in batches.

With several threads, batches run beside each other, each in one thread: small models gain far more by that
than by threads inside of one run. Only a batch that is alone gets all threads, and only of a large model:
with 2.4 million parameters, 5 s of speech took 1.4 (int8: 2.3) times as long in two threads as in one
(LOG.md, 2026-11-21).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from firstwords.audio.source import Samples
from firstwords.export.check_bundle import Bundle
from firstwords.export.runtime_engine import Engine, value_of

T = TypeVar("T")
Frames = npt.NDArray[np.float32]
WORTH_THREADS = 16_000_000  # bytes of a graph; S has 88 MB and 24 in 8 bits, tiny 10 and 3


@final
class Graphs:
    """Engines of one bundle, made when they are asked for.

    Args:
        threads: of the processor, at most.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self._bundle, self.threads = bundle, threads
        self.main = "model" if bundle.facts.kind == "ctc" else "encoder"
        self._engines: dict[tuple[str, int], Engine] = {}

    def engine(self, part: str, threads: int = 1) -> Engine:
        """The graph of a part of the bundle, for runs of so many threads at most.

        Only a large main graph gets several. With two for the features as well, S read 5 s on two cores at
        half the speed (LOG.md, 2026-11-22): threads of one graph seem to stay busy while the other runs.
        """
        if part != self.main or len(self._bundle.contents[self.main]) < WORTH_THREADS:
            threads = 1
        found = self._engines.get((part, threads))
        if found is None:
            found = Engine(self._bundle.contents[part], self._bundle.path(part), threads=threads)
            self._engines[part, threads] = found
        return found

    def warm(self) -> None:
        """Load every graph, so that one that cannot run is known at once.

        In one thread each: with more, a graph is loaded a second time when a batch is alone.
        """
        for part in self._bundle.contents:
            self.engine(part)

    def encode(self, batch: Sequence[Samples], threads: int = 1) -> list[Frames]:
        """Stretches of samples -> frames (T, D) of each: log-probabilities of CTC, else encoder output."""
        lengths = np.array([len(samples) for samples in batch], dtype=np.int64)
        padded = np.zeros((len(batch), int(lengths.max(initial=0))), dtype=np.float32)
        for row, samples in enumerate(batch):
            padded[row, : len(samples)] = samples
        frames, counts = self.engine("features").pass_on([value_of(padded), value_of(lengths)])
        values, sizes = self.engine(self.main, threads).pass_on([frames, counts])
        encoded, sizes = values.numpy(), sizes.numpy()
        return [encoded[row, : int(size)] for row, size in enumerate(sizes)]

    def margin(self, shift: int) -> int:
        """Frames' worth of samples behind the last feature frame that are needed for it.

        Front ends that centre their windows need one; those that begin with the first sample, some more.
        """
        frames = 16
        (_, count) = self.engine("features")(
            np.zeros((1, frames * shift), np.float32), np.array([frames * shift], dtype=np.int64)
        )
        return max(1, frames - int(count[0]))

    def each(self, work: Callable[[Any, int], T], batches: Sequence[Any]) -> list[T]:
        """``work(batch, threads)`` of every batch, in order."""
        if self.threads == 1 or len(batches) < 2:
            return [work(batch, self.threads) for batch in batches]
        return list(self._pool.map(lambda batch: work(batch, 1), batches))

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads)
