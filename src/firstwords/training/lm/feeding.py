"""Batches of sentences for a language model: a function of (seed, epoch, step), and dev as it is.

Sentences are sorted into buckets of like length, shuffled within them and cut into batches; the cuts lie at
the same places in every epoch. A line longer than ``window`` is read in parts; a later part begins with the
token before it instead of a start, and only the last one has an end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from firstwords.lm.neural.folder import MARK

_BUCKETS = 20
_BATCHES_PER_BUCKET = 3  # fewer would leave too little choice of who shares a batch


class TextBatch(NamedTuple):
    """Parts of sentences: what is read, what is to be said; beyond ``lengths`` stands 0."""

    read: Int[Tensor, "batch tokens"]
    said: Int[Tensor, "batch tokens"]
    lengths: Int[Tensor, " batch"]
    numbers: tuple[int, ...]  # of the sentences, from 0


class Windows:
    """A row of ids, cut into parts of at most ``window`` tokens (an end counts as one)."""

    def __init__(self, row: Int64[np.ndarray, " tokens"], window: int) -> None:
        self.row = row
        marks = np.flatnonzero(row == MARK)
        starts, lengths, sentences = list[int](), list[int](), list[int]()
        for number, (start, end) in enumerate(zip(marks[:-1].tolist(), marks[1:].tolist(), strict=True)):
            for first in range(start, end, window):
                starts.append(first)
                lengths.append(min(window, end - first))
                sentences.append(number)
        self.starts = np.array(starts, dtype=np.int64)
        self.lengths = np.array(lengths, dtype=np.int64)
        self.sentences = np.array(sentences, dtype=np.int64)
        self.cut = int((np.bincount(self.sentences) > 1).sum())  # sentences that were longer

    def batch(self, parts: Int64[np.ndarray, " parts"]) -> TextBatch:
        """Numbers of parts -> batch."""
        lengths = self.lengths[parts]
        places = np.arange(int(lengths.max()))
        inside = places < lengths[:, None]
        where = np.where(inside, self.starts[parts][:, None] + places, 0)
        return TextBatch(
            torch.from_numpy(np.where(inside, self.row[where], MARK)),
            torch.from_numpy(np.where(inside, self.row[where + 1], MARK)),
            torch.from_numpy(lengths),
            tuple(self.sentences[parts].tolist()),
        )


class TextLoader:
    """Training batches by number (``trainer.Batches``).

    Args:
        batch_tokens: most tokens of a batch, padding counted; a single longer part is a batch.
        max_rows: most sentences of a batch.
    """

    def __init__(self, windows: Windows, *, batch_tokens: int, max_rows: int, seed: int) -> None:
        self.windows = windows
        self.seed = seed
        self.waited = 0.0
        self.skipped: dict[str, str] = {}
        self.repaired: dict[str, str] = {}
        order = np.argsort(-windows.lengths, kind="stable")
        wanted = int(windows.lengths.sum()) // (batch_tokens * _BATCHES_PER_BUCKET)
        self._buckets = np.array_split(order, max(1, min(_BUCKETS, wanted, len(order))))
        longest = [int(windows.lengths[bucket[0]]) for bucket in self._buckets]
        self._rows = [max(1, min(max_rows, batch_tokens // most)) for most in longest]
        self._cached: tuple[int, list[Int64[np.ndarray, " parts"]]] | None = None

    @property
    def batches_in_epoch(self) -> int:
        """The same in every epoch."""
        return sum(-(-len(b) // rows) for b, rows in zip(self._buckets, self._rows, strict=True))

    def costs(self) -> list[int]:
        """Tokens of each batch of the first epoch, padding counted."""
        lengths = self.windows.lengths
        return [len(parts) * int(lengths[parts].max()) for parts in self._permute(0)]

    def batches(self, after: int = 0) -> Iterator[tuple[int, TextBatch | None]]:
        """(number, batch) from number ``after`` on, without end."""
        number = after
        while True:
            started = time.perf_counter()
            batch = self.batch(number)
            self.waited += time.perf_counter() - started
            yield number, batch
            number += 1

    def batch(self, number: int) -> TextBatch:
        """One batch by number."""
        epoch, place = divmod(number, self.batches_in_epoch)
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, self._permute(epoch))
        return self.windows.batch(self._cached[1][place])

    def _permute(self, epoch: int) -> list[Int64[np.ndarray, " parts"]]:
        draw = np.random.default_rng([self.seed, 8, epoch])
        batches: list[Int64[np.ndarray, " parts"]] = []
        for bucket, rows in zip(self._buckets, self._rows, strict=True):
            shuffled = draw.permutation(bucket)
            batches += [shuffled[n : n + rows] for n in range(0, len(shuffled), rows)]
        return [batches[n] for n in draw.permutation(len(batches)).tolist()]


class TextDev:
    """The same batches each time, every sentence once (``trainer.Validations``)."""

    def __init__(self, windows: Windows, *, batch_tokens: int) -> None:
        self.windows = windows
        self.seconds = 0.0
        self.skipped: dict[str, str] = {}
        self._order = np.argsort(-windows.lengths, kind="stable")
        self._batch_tokens = batch_tokens

    def __iter__(self) -> Iterator[TextBatch]:
        started = time.monotonic()
        place = 0
        while place < len(self._order):
            longest = int(self.windows.lengths[self._order[place]])
            rows = max(1, self._batch_tokens // longest)
            yield self.windows.batch(self._order[place : place + rows])
            place += rows
        self.seconds = time.monotonic() - started
