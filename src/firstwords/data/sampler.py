"""Which utterances form the batch of a step: a pure function of (seed, epoch, step).

Utterances are sorted into buckets of like length, shuffled within them, and cut from long to short into
batches as large as the longest utterance allows (shapes.py). The buckets and so the cuts lie at the same
places in every epoch: all have the same number of steps, and any step is found whatever was computed before,
on however many workers. What changes from epoch to epoch is who shares a batch and in which order the batches
come.

    seconds 9 9 8 8 | 3 3 2 2 1 1         two buckets, at most 18 seconds a batch (padding counted)
    batches [9 9] [8 8] [3 2 3 1 2 1]

A batch holds so many seconds at the slowest speed. Utterances of minutes (attention grows with the square)
and very long transcripts (the CTC lattice grows with the text) count for more, so neither fills the memory
unforeseen (icefall#1844: one 162-second cut; icefall#521: one very long text).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from firstwords.data.shapes import Shapes

ATTENTION_SECONDS = 120.0  # an utterance of this length costs twice its seconds
LATTICE_TOKENS = 1000.0  # a transcript of this many tokens doubles the cost again
MAX_BUCKETS = 30
BATCHES_PER_BUCKET = 3  # fewer would leave too little choice of who shares a batch
USUAL_COST = 1.5  # cost-seconds of a second of ordinary speech, at most: what costs more counts as longer


def cost_of(duration: float, tokens: int = 0) -> float:
    """Seconds and number of tokens -> what the utterance costs in memory and time, in cost-seconds."""
    return duration * (1 + duration / ATTENTION_SECONDS + tokens / LATTICE_TOKENS)


def speed_of(speeds: Sequence[float], seed: int, epoch: int, index: int) -> float:
    """The one of ``speeds`` at which an utterance is played in an epoch."""
    return speeds[int(np.random.default_rng([seed, 1, epoch, index]).integers(len(speeds)))]


class BucketSampler:
    """Batches of utterance indices for one process.

    Args:
        durations: seconds of each utterance, at speed 1.
        tokens: target length of each utterance, where known.
        batch_seconds: most seconds of a batch, padding counted; a single longer utterance is a batch.
        max_utterances: most utterances of a batch.
        speeds: of which each utterance gets one per epoch.
        world_size: processes that train together; the batches of one step are of like length.
        rank: which of them this is.
        sorted_first_epoch: the first epoch goes from short to long.
    """

    def __init__(
        self,
        durations: Sequence[float],
        *,
        batch_seconds: float,
        seed: int,
        tokens: Sequence[int] | None = None,
        max_utterances: int = 64,
        speeds: Sequence[float] = (1.0,),
        world_size: int = 1,
        rank: int = 0,
        sorted_first_epoch: bool = False,
    ) -> None:
        if not durations:
            raise ValueError("no utterances to sample from")
        self.seed = seed
        self.speeds = tuple(speeds)
        self.batch_seconds = batch_seconds
        self.world_size = world_size
        self.rank = rank
        self.sorted_first_epoch = sorted_first_epoch
        slowest = min(self.speeds)
        lengths = tokens if tokens is not None else [0] * len(durations)
        self.costs = np.array(
            [cost_of(seconds / slowest, count) for seconds, count in zip(durations, lengths, strict=True)]
        )
        self.shapes = Shapes(batch_seconds, max_utterances)
        self.lengths = np.maximum(np.asarray(durations, np.float64) / slowest, self.costs / USUAL_COST)
        self._buckets = _buckets(self.lengths, batch_seconds)
        self._cuts = _cuts(self._buckets, self.lengths, self.shapes)
        self._cached: tuple[int, list[list[int]]] | None = None

    @property
    def batches(self) -> int:
        """Batches of one epoch over all processes."""
        return len(self._cuts) - 1

    def batches_in_epoch(self, epoch: int = 0) -> int:
        """Steps of this process in an epoch: the same for every process and every epoch."""
        del epoch
        return -(-self.batches // self.world_size)

    def epoch_of(self, step: int) -> int:
        """The epoch that a step (counted from 0) belongs to."""
        return step // self.batches_in_epoch()

    def batch(self, step: int) -> list[int]:
        """Utterance indices of this process at ``step`` (counted from 0 over all epochs)."""
        epoch, place = divmod(step, self.batches_in_epoch())
        batches = self._epoch(epoch)
        return list(batches[(place * self.world_size + self.rank) % len(batches)])

    def cost(self, indices: Sequence[int]) -> float:
        """Cost-seconds of a batch, padding counted."""
        return float(self.costs[list(indices)].max() * len(indices)) if indices else 0.0

    def padded_seconds(self, indices: Sequence[int]) -> float:
        """Length to which a batch is filled up where few shapes are wanted."""
        return self.shapes.padded_seconds(len(indices), float(self.lengths[list(indices)].max()))

    def speed(self, epoch: int, index: int) -> float:
        """Playback speed of an utterance in an epoch."""
        return speed_of(self.speeds, self.seed, epoch, index)

    def _epoch(self, epoch: int) -> list[list[int]]:
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, self._permute(epoch))
        return self._cached[1]

    def _permute(self, epoch: int) -> list[list[int]]:
        draw = np.random.default_rng([self.seed, 2, epoch])
        order = np.concatenate([draw.permutation(bucket) for bucket in self._buckets])
        batches = [order[a:b].tolist() for a, b in itertools.pairwise(self._cuts)]  # from long to short
        if self.sorted_first_epoch and epoch == 0:
            return batches[::-1]
        # Neighbours of like length stay together, one for each process: nobody waits for a longer batch.
        groups = [batches[i : i + self.world_size] for i in range(0, len(batches), self.world_size)]
        full = [g for g in groups if len(g) == self.world_size]
        rest = [g for g in groups if len(g) < self.world_size]
        ordered = [full[i] for i in draw.permutation(len(full))] + rest
        return [batch for group in ordered for batch in group]


def _buckets(lengths: np.ndarray, batch_seconds: float) -> list[np.ndarray]:
    """Utterances from long to short, cut into stretches of equal total length."""
    order = np.argsort(-lengths, kind="stable")
    total = float(lengths.sum())
    wanted = np.ceil(total / batch_seconds / BATCHES_PER_BUCKET)
    number = int(np.clip(wanted, 1, min(MAX_BUCKETS, len(lengths))))
    places = (np.cumsum(lengths[order]) - lengths[order] / 2) / total * number
    bucket_of = np.minimum(places.astype(int), number - 1)
    return [order[bucket_of == b] for b in range(number) if np.any(bucket_of == b)]


def _cuts(buckets: Sequence[np.ndarray], lengths: np.ndarray, shapes: Shapes) -> list[int]:
    """Where batches begin and end in the concatenated buckets, whatever the order within each of them."""
    ends = np.cumsum([len(bucket) for bucket in buckets])
    rows = [shapes.rows(float(lengths[bucket[0]])) for bucket in buckets]
    cuts = [0]
    while cuts[-1] < ends[-1]:
        bucket = int(np.searchsorted(ends, cuts[-1], side="right"))
        cuts.append(min(int(ends[-1]), cuts[-1] + rows[bucket]))
    return cuts
