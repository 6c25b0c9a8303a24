"""Which utterances form the batch of a step: a pure function of (seed, epoch, step).

Utterances are sorted by cost into buckets of like length. Each bucket is cut into a fixed number of
batches, so every epoch has the same number of steps and any step is found in O(1), whatever was computed
before, on however many workers. What changes from epoch to epoch is who shares a batch and in which order
the batches come.

    cost    1 1 2 2 3 3 | 8 8 9 9         two buckets, at most 9 cost-seconds a batch (padding counted)
    batches [1 1 2] [2 3 3] | [8] [8] [9] [9]

Cost is in seconds of audio at the slowest speed, raised for long utterances (attention grows with the
square) and for long transcripts (the CTC lattice grows with the text), so neither fills the memory
unforeseen (icefall#1844: one 162-second cut; icefall#521: one very long text).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ATTENTION_SECONDS = 120.0  # an utterance of this length costs twice its seconds
LATTICE_TOKENS = 1000.0  # a transcript of this many tokens doubles the cost again
MAX_BUCKETS = 30
BATCHES_PER_BUCKET = 3  # fewer would leave too little choice of who shares a batch


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
        batch_seconds: most cost-seconds of a batch, padding counted; a single longer utterance is a batch.
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
        self._buckets = _buckets(self.costs, batch_seconds)
        self._counts = [_batches_of(self.costs[b], batch_seconds, max_utterances) for b in self._buckets]
        self._cached: tuple[int, list[list[int]]] | None = None

    @property
    def batches(self) -> int:
        """Batches of one epoch over all processes."""
        return sum(self._counts)

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

    def speed(self, epoch: int, index: int) -> float:
        """Playback speed of an utterance in an epoch."""
        return speed_of(self.speeds, self.seed, epoch, index)

    def _epoch(self, epoch: int) -> list[list[int]]:
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, self._permute(epoch))
        return self._cached[1]

    def _permute(self, epoch: int) -> list[list[int]]:
        draw = np.random.default_rng([self.seed, 2, epoch])
        batches: list[list[int]] = []  # from short to long
        for bucket, count in zip(self._buckets, self._counts, strict=True):
            shuffled = draw.permutation(bucket)
            batches += [part.tolist() for part in np.array_split(shuffled, count)]
        if self.sorted_first_epoch and epoch == 0:
            return batches
        # Neighbours of like length stay together, one for each process: nobody waits for a longer batch.
        groups = [batches[i : i + self.world_size] for i in range(0, len(batches), self.world_size)]
        full = [g for g in groups if len(g) == self.world_size]
        rest = [g for g in groups if len(g) < self.world_size]
        ordered = [full[i] for i in draw.permutation(len(full))] + rest
        return [batch for group in ordered for batch in group]


def _buckets(costs: np.ndarray, batch_seconds: float) -> list[np.ndarray]:
    """Utterances sorted by cost, cut into stretches of equal total cost."""
    order = np.argsort(costs, kind="stable")
    total = float(costs.sum())
    wanted = np.ceil(total / batch_seconds / BATCHES_PER_BUCKET)
    number = int(np.clip(wanted, 1, min(MAX_BUCKETS, len(costs))))
    places = (np.cumsum(costs[order]) - costs[order] / 2) / total * number
    bucket_of = np.minimum(places.astype(int), number - 1)
    return [order[bucket_of == b] for b in range(number) if np.any(bucket_of == b)]


def _batches_of(costs: np.ndarray, batch_seconds: float, max_utterances: int) -> int:
    """Batches of one bucket, so that even the longest of it side by side stay within the limit."""
    most = int(np.clip(batch_seconds // float(costs.max()), 1, max_utterances))
    return -(-len(costs) // most)


def pack(durations: Sequence[float], batch_seconds: float, max_utterances: int) -> list[list[int]]:
    """Every utterance once, from long to short, in batches of at most ``batch_seconds``, padding counted."""
    order = sorted(range(len(durations)), key=lambda n: (-durations[n], n))
    batches: list[list[int]] = []
    for index in order:
        longest = durations[batches[-1][0]] if batches else 0.0
        full = not batches or len(batches[-1]) >= max_utterances
        if full or longest * (len(batches[-1]) + 1) > batch_seconds:
            batches.append([])
        batches[-1].append(index)
    return batches
