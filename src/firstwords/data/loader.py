"""Batches for training, in the order the sampler decides, made by 0 or more loader processes.

The same batches come out whatever the number of processes. An utterance that cannot be read is left out
of its batch, named and counted. Processes are spawned (never forked), import no torch, send plain arrays
through pipes and end when their parent does, however that ended.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self

import torch

from firstwords.data.batch import Batch, Example, collate
from firstwords.data.examples import ExampleSource, LoadedExample, Unreadable
from firstwords.data.sampler import BucketSampler, Planned
from firstwords.data.shapes import Shapes, pack
from firstwords.data.worker import load_all, load_in_worker, start_worker
from firstwords.errors import TrainingError

PREFETCH_PER_WORKER = 3  # batches in the making for each process


class Loader:
    """Training batches by number; ``waited`` and ``skipped`` tell how it went.

    Args:
        workers: loader processes; 0 loads when a batch is asked for.
        few_shapes: fill batches up to one of a few lengths (shapes.py), not only to their longest.
    """

    def __init__(
        self, source: ExampleSource, sampler: BucketSampler, *, workers: int = 0, few_shapes: bool = False
    ) -> None:
        self.source = source
        self.sampler = sampler
        self.workers = workers
        self.few_shapes = few_shapes
        self._speech = {item.id for item in source.items if item.audio is not None}
        self.waited = 0.0  # seconds the training process waited for batches
        self.skipped: dict[str, str] = {}  # unreadable utterances (and noises): id -> reason
        self.repaired: dict[str, str] = {}  # id -> what the reader mended
        self._pool: ProcessPoolExecutor | None = None

    @property
    def batches_in_epoch(self) -> int:
        return self.sampler.batches_in_epoch()

    def batches(self, after: int = 0) -> Iterator[tuple[int, Batch | None]]:
        """(number, batch) from number ``after`` on, without end; None where no utterance can be read."""
        for number, planned, examples in self._examples(after):
            yield number, self._collate(examples, planned)

    def batch(self, number: int) -> Batch | None:
        """One batch by number, made in this process."""
        epoch, planned = self._job(number)
        return self._collate(load_all(self.source, epoch, planned.indices, planned.speeds), planned)

    def close(self) -> None:
        """End the loader processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _job(self, number: int) -> tuple[int, Planned]:
        return self.sampler.epoch_of(number), self.sampler.planned(number)

    def _examples(self, after: int) -> Iterator[tuple[int, Planned, list[LoadedExample | Unreadable]]]:
        if self.workers == 0:
            number = after
            while True:
                started = time.perf_counter()
                epoch, planned = self._job(number)
                examples = load_all(self.source, epoch, planned.indices, planned.speeds)
                self.waited += time.perf_counter() - started
                yield number, planned, examples
                number += 1
        pool = self._started_pool()
        waiting: deque[tuple[int, Planned, Future[list[LoadedExample | Unreadable]]]] = deque()
        following = after
        while True:
            try:
                while len(waiting) < self.workers * PREFETCH_PER_WORKER:
                    epoch, planned = self._job(following)
                    job = pool.submit(load_in_worker, epoch, planned.indices, planned.speeds)
                    waiting.append((following, planned, job))
                    following += 1
                number, planned, future = waiting.popleft()
                started = time.perf_counter()
                examples = future.result()
            except BrokenProcessPool:
                raise TrainingError(
                    "A loader process ended without a word, as happens when the memory is full.",
                    mend="Run the same command again with --workers 0 (it goes on where it was).",
                ) from None
            self.waited += time.perf_counter() - started
            yield number, planned, examples

    def _started_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=start_worker,
                initargs=(self.source,),
            )
        return self._pool

    def _collate(self, examples: Sequence[LoadedExample | Unreadable], planned: Planned) -> Batch | None:
        good: list[Example] = []
        known = len(self.skipped)
        for example in examples:
            if isinstance(example, Unreadable):
                self.skipped[example.id] = example.reason
                continue
            if example.repairs:
                self.repaired[example.id] = "; ".join(example.repairs)
            good.append(to_example(example))
        if len(self.skipped) > known and self._speech and self._speech <= self.skipped.keys():
            name = min(self._speech)
            raise TrainingError(
                f"None of the {len(self._speech)} training utterances can be read. For example '{name}': "
                f"{self.skipped[name]}",
                mend="Run 'firstwords check' on the corpus.",
            )
        seconds = self.sampler.padded_seconds(planned) if self.few_shapes else 0.0
        return collate(good, samples=round(seconds * self.source.sample_rate)) if good else None


class ValidationLoader:
    """The same batches each time, as they are: never augmented, every utterance once.

    ``seconds``: what one pass took the last time, with all that was done between the batches.

    Args:
        shapes: how many utterances make a batch.
        few_shapes: as for training.
    """

    def __init__(self, source: ExampleSource, shapes: Shapes, *, few_shapes: bool = False) -> None:
        if source.augmentation is not None:
            raise ValueError("validation audio is never augmented")
        self.source = source
        self.shapes = shapes
        self.few_shapes = few_shapes
        self.order = pack([item.duration for item in source.items], shapes)
        self.seconds = 0.0
        self.skipped: dict[str, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        started = time.monotonic()
        for indices in self.order:
            examples = load_all(self.source, 0, indices)
            self.skipped.update({e.id: e.reason for e in examples if isinstance(e, Unreadable)})
            good = [to_example(e) for e in examples if isinstance(e, LoadedExample)]
            if good:
                yield collate(good, samples=self._samples(indices))
        self.seconds = time.monotonic() - started

    def _samples(self, indices: Sequence[int]) -> int:
        if not self.few_shapes:
            return 0
        longest = max(self.source.items[index].duration for index in indices)
        return round(self.shapes.padded_seconds(len(indices), longest) * self.source.sample_rate)


def to_example(loaded: LoadedExample) -> Example:
    """Plain arrays -> tensors."""
    return Example(
        id=loaded.id,
        samples=torch.from_numpy(loaded.samples),
        tokens=torch.tensor(loaded.tokens, dtype=torch.int64),
        text=loaded.text,
        key=loaded.key,
        speed=loaded.speed,
    )
