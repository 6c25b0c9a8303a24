"""Which utterances form the batch of a step, and how fast each is played: a function of (seed, epoch, step).

Utterances are sorted into buckets of like length and shuffled within them; equal shares of a bucket are
played at each speed. Shares are laid in a row from long to short, by the longest utterance that the bucket
could put there, and the row is cut into batches as large as that length allows (shapes.py). So the cuts lie
at the same places in every epoch: all have the same number of steps, and any step is found whatever was
computed before, on however many workers. What changes from epoch to epoch is who is played at which speed,
who shares a batch and in which order the batches come.

    seconds 9 9 8 8 | 3 3 2 2 1 1         two buckets, at most 18 seconds a batch (padding counted)
    batches [9 9] [8 8] [3 2 3 1 2 1]

Utterances of minutes (attention grows with the square) and very long transcripts (the CTC lattice grows with
the text) count for more, so neither fills the memory unforeseen (icefall#1844: one 162-second cut;
icefall#521: one very long text).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

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


class Planned(NamedTuple):
    """One batch: utterances, the speed of each, and the seconds that none of them exceeds at its speed.

    ``longest`` counts costly utterances as longer than they are.
    """

    indices: tuple[int, ...]
    speeds: tuple[float, ...]
    longest: float
    cost: float  # cost-seconds, padding counted, were each utterance the costliest that could stand here


class _Share(NamedTuple):
    """Places in the row of an epoch: so many of a bucket, at one speed."""

    bucket: int
    first: int  # of the bucket, once shuffled
    places: int  # how many
    speed: float
    longest: float  # seconds, as in Planned
    cost: float  # cost-seconds of the costliest that could stand here


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
        lengths = tokens if tokens is not None else [0] * len(durations)
        self.shapes = Shapes(batch_seconds, max_utterances)
        slowest = min(self.speeds)
        at_slowest = [_counted(d / slowest, n)[0] for d, n in zip(durations, lengths, strict=True)]
        self._buckets = _buckets(np.array(at_slowest), batch_seconds)
        self._row = _shares(self._buckets, durations, lengths, self.speeds)
        self._cuts = _cuts(self._row, self.shapes)
        self._share_at = np.repeat(np.arange(len(self._row)), [share.places for share in self._row])
        self._cached: tuple[int, list[Planned]] | None = None

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

    def planned(self, step: int) -> Planned:
        """The batch of this process at ``step`` (counted from 0 over all epochs)."""
        epoch, place = divmod(step, self.batches_in_epoch())
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, self._permute(epoch))
        batches = self._cached[1]
        return batches[(place * self.world_size + self.rank) % len(batches)]

    def batch(self, step: int) -> list[int]:
        """Utterance indices of this process at ``step``."""
        return list(self.planned(step).indices)

    def padded_seconds(self, planned: Planned) -> float:
        """Length to which a batch is filled up where few shapes are wanted."""
        return self.shapes.padded_seconds(len(planned.indices), planned.longest)

    def _permute(self, epoch: int) -> list[Planned]:
        draw = np.random.default_rng([self.seed, 2, epoch])
        shuffled = [draw.permutation(bucket) for bucket in self._buckets]
        order = np.concatenate([shuffled[s.bucket][s.first : s.first + s.places] for s in self._row])
        batches = [self._batch(order, a, b) for a, b in itertools.pairwise(self._cuts)]  # from long to short
        if self.sorted_first_epoch and epoch == 0:
            return batches[::-1]
        # Neighbours of like length stay together, one for each process: nobody waits for a longer batch.
        groups = [batches[i : i + self.world_size] for i in range(0, len(batches), self.world_size)]
        full = [g for g in groups if len(g) == self.world_size]
        rest = [g for g in groups if len(g) < self.world_size]
        ordered = [full[i] for i in draw.permutation(len(full))] + rest
        return [batch for group in ordered for batch in group]

    def _batch(self, order: np.ndarray, start: int, end: int) -> Planned:
        shares = [self._row[n] for n in self._share_at[start:end]]
        indices = tuple(order[start:end].tolist())
        cost = max(share.cost for share in shares) * len(indices)
        return Planned(indices, tuple(share.speed for share in shares), shares[0].longest, cost)


def _counted(seconds: float, tokens: int) -> tuple[float, float]:
    """Seconds as played, tokens -> seconds that it counts for, and its cost."""
    cost = cost_of(seconds, tokens)
    return max(seconds, cost / USUAL_COST), cost


def _buckets(lengths: np.ndarray, batch_seconds: float) -> list[np.ndarray]:
    """Utterances from long to short, cut into stretches of equal total length."""
    order = np.argsort(-lengths, kind="stable")
    total = float(lengths.sum())
    wanted = np.ceil(total / batch_seconds / BATCHES_PER_BUCKET)
    number = int(np.clip(wanted, 1, min(MAX_BUCKETS, len(lengths))))
    places = (np.cumsum(lengths[order]) - lengths[order] / 2) / total * number
    bucket_of = np.minimum(places.astype(int), number - 1)
    return [order[bucket_of == b] for b in range(number) if np.any(bucket_of == b)]


def _shares(
    buckets: Sequence[np.ndarray], durations: Sequence[float], tokens: Sequence[int], speeds: Sequence[float]
) -> list[_Share]:
    """Every bucket at every speed, from long to short; what cannot be shared equally goes to each in turn."""
    shares: list[_Share] = []
    turn = 0
    for number, bucket in enumerate(buckets):
        counts = [len(bucket) // len(speeds)] * len(speeds)
        for _ in range(len(bucket) % len(speeds)):
            counts[turn % len(speeds)] += 1
            turn += 1
        first = 0
        for speed, count in zip(speeds, counts, strict=True):
            if count:
                counted = [_counted(durations[i] / speed, tokens[i]) for i in bucket]
                longest, cost = max(length for length, _ in counted), max(cost for _, cost in counted)
                shares.append(_Share(number, first, count, speed, longest, cost))
            first += count
    return sorted(shares, key=lambda share: -share.longest)


def _cuts(row: Sequence[_Share], shapes: Shapes) -> list[int]:
    """Where batches begin and end in the row, whoever stands there."""
    ends = np.cumsum([share.places for share in row])
    cuts = [0]
    while cuts[-1] < ends[-1]:
        share = row[int(np.searchsorted(ends, cuts[-1], side="right"))]
        cuts.append(min(int(ends[-1]), cuts[-1] + shapes.rows(share.longest)))
    return cuts
