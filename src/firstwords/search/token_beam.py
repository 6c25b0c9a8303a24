"""Beam search token by token over any weighted sum of scorers: decoders, CTC prefixes, language models.

Watanabe et al., 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition", section IV-B
(one-pass decoding, end detection). All utterances of a batch advance together; each keeps the ``beam`` best
sentences of the present length. Every sentence may also end at every length, and the best of those that
ended are the result:

    length 0    <sos>
    length 1    a      b           ended: ""
    length 2    a b    b a         ended: "", "a"
    ...

    score = (sum over scorers of weight * log P) / (tokens + end) ** length_power + coverage * covered frames

An utterance is done when three tokens in a row brought no end within ``end_margin`` nats of the best, or at
its greatest length. Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.nn.scorer import AttentionScorer
from firstwords.search.fusion import Weighted, check_vocabulary, weighted
from firstwords.search.interface import AttentionBeamConfig
from firstwords.search.words import END, NEVER

PATIENCE = 3  # tokens without a good end before an utterance is done


class Reading(NamedTuple):
    """A sentence that has ended; ``score`` is the sum of ``parts``, ``confidences`` one per token, 0..1."""

    tokens: tuple[int, ...]
    score: float
    parts: dict[str, float]
    confidences: tuple[float, ...]


class Sentences(NamedTuple):
    """The living sentences: K of each of B utterances, best first; all have equally many tokens."""

    tokens: Int[Tensor, "batch beam tokens"]
    sums: Float[Tensor, "batch beam scorers"]  # weighted
    agreed: Float[Tensor, "batch beam tokens"]  # weighted mean log-probability of each token, by what hears


@final
class TokenBeam:
    """One search over one batch.

    Args:
        scorers: at least one that hears; those of weight 0 are left out.
        frames: encoded frames of each utterance, for the bounds on the length.
        most: no sentence has more tokens, whatever the frames allow; None: they alone decide.
    """

    def __init__(
        self,
        scorers: Sequence[Weighted],
        frames: Int[Tensor, " batch"],
        config: AttentionBeamConfig,
        *,
        most: int | None = None,
    ) -> None:
        self.scorers = [s for s in scorers if s.weight != 0]
        self.hearing = torch.tensor([s.hears for s in self.scorers])
        self.config = config
        self.longest = (frames * config.max_length).ceil().long()
        if most is not None:
            self.longest = self.longest.clamp_max(most)
        self.shortest = (frames * config.min_length).ceil().long().minimum(self.longest)
        self.batch = len(frames)
        self.ended: list[list[Reading]] = [[] for _ in range(self.batch)]
        self.best = torch.full((self.batch,), NEVER, dtype=torch.float64)  # sum of the best end so far
        self.waited = torch.zeros(self.batch, dtype=torch.int64)  # tokens since a good end

    def run(self) -> list[list[Reading]]:
        """-> for each utterance what was read, best first."""
        living = Sentences(
            torch.zeros(self.batch, 1, 0, dtype=torch.int64),
            torch.zeros(self.batch, 1, len(self.scorers), dtype=torch.float64),
            torch.zeros(self.batch, 1, 0, dtype=torch.float64),
        )
        states = [s.scorer.start(self.batch) for s in self.scorers]
        for length in range(int(self.longest.max()) + 1 if self.batch else 0):
            last = living.tokens[:, :, -1] if length else living.tokens.new_zeros(self.batch, 1)
            each, states = self._ask(last, states)
            bonus = self._bonus(states)
            self._end(living, each[..., END], bonus, length)
            going = self._going(length)
            if not bool(going.any()) or each.shape[3] == 1:
                break
            living, kept = self._grow(living, each, bonus, length)
            states = [s.scorer.reorder(state, kept) for s, state in zip(self.scorers, states, strict=True)]
        return [sorted(readings, key=lambda r: -r.score) or [self._nothing()] for readings in self.ended]

    def _ask(
        self, last: Int[Tensor, "batch beam"], states: list[Any]
    ) -> tuple[Float[Tensor, "batch beam scorers vocabulary"], list[Any]]:
        """Weighted scores of every next token, and the states after ``last``."""
        found: list[Tensor] = []
        after: list[Any] = []
        for scorer, state in zip(self.scorers, states, strict=True):
            scores, state = scorer.scorer.score(last.flatten(), state)
            found.append(weighted(scorer.weight, scores.to("cpu", torch.float64)))
            check_vocabulary(scorer.name, scores.shape[1], found[0].shape[1])
            after.append(state)
        each = torch.stack(found, dim=1)
        if bool(each.isnan().any()):
            raise SearchError(
                "A decoder's log-probabilities are not numbers.",
                mend="The model (or a language model beside it) has diverged: use an earlier checkpoint.",
            )
        return each.unflatten(0, (self.batch, -1)), after

    def _bonus(self, states: list[Any]) -> Float[Tensor, "batch beam"] | float:
        """What the frames covered so far are worth."""
        total: Tensor | float = 0.0
        for scorer, state in zip(self.scorers, states, strict=True):
            if self.config.coverage and scorer.hears and isinstance(scorer.scorer, AttentionScorer):
                covered = scorer.scorer.covered(state).to("cpu", torch.float64)
                total = total + self.config.coverage * covered.unflatten(0, (self.batch, -1))
        return total

    def _end(
        self,
        living: Sentences,
        ends: Float[Tensor, "batch beam scorers"],
        bonus: Float[Tensor, "batch beam"] | float,
        length: int,
    ) -> None:
        """Every sentence ends here; those among the best of their utterance are kept."""
        sums = living.sums + ends
        totals = sums.sum(dim=2)
        scores = totals / self._divisor(length) + bonus
        open_ = (length >= self.shortest) & (length <= self.longest) & (self.waited < PATIENCE)
        scores = scores.masked_fill(~open_[:, None], NEVER)
        for row, values in enumerate(scores.tolist()):
            readings = self.ended[row]
            for k, score in enumerate(values):
                if score == NEVER or (len(readings) == self.config.n_best and score <= readings[-1].score):
                    continue
                readings.append(self._reading(living, sums[row, k], score, row, k, length))
                readings.sort(key=lambda r: -r.score)
                del readings[self.config.n_best :]
        best = totals.masked_fill(~open_[:, None], NEVER).amax(dim=1)
        self.best = self.best.maximum(best)
        poor = open_ & (best < self.best - self.config.end_margin)
        self.waited = torch.where(open_, torch.where(poor, self.waited + 1, 0), self.waited)

    def _reading(
        self, living: Sentences, sums: Tensor, score: float, row: int, k: int, length: int
    ) -> Reading:
        shares = (sums / self._divisor(length)).tolist()
        parts = {scorer.name: share for scorer, share in zip(self.scorers, shares, strict=True)}
        if self.config.coverage:
            parts["coverage"] = score - sum(shares)
        confidences = living.agreed[row, k].exp().clamp(max=1.0)
        return Reading(tuple(living.tokens[row, k].tolist()), score, parts, tuple(confidences.tolist()))

    def _nothing(self) -> Reading:
        """Where no sentence is possible at all."""
        return Reading((), NEVER, {scorer.name: NEVER for scorer in self.scorers}, ())

    def _going(self, length: int) -> Bool[Tensor, " batch"]:
        """Utterances that may still grow."""
        return (length < self.longest) & (self.waited < PATIENCE)

    def _grow(
        self,
        living: Sentences,
        each: Float[Tensor, "batch beam scorers vocabulary"],
        bonus: Float[Tensor, "batch beam"] | float,
        length: int,
    ) -> tuple[Sentences, Int[Tensor, " rows"]]:
        """The best sentences with one token more, and the rows they come from."""
        scores = each[..., END + 1 :]
        tokens = scores.shape[3]
        grown = (living.sums.sum(dim=2)[:, :, None] + scores.sum(dim=2)) / self._divisor(length + 1)
        if isinstance(bonus, Tensor):
            grown = grown + bonus[:, :, None]
        order = grown.flatten(1).sort(dim=1, descending=True, stable=True).indices[:, : self.config.beam]
        above, token = order // tokens, order % tokens
        rows = torch.arange(self.batch)[:, None]
        added = scores[rows, above, :, token]
        weight = sum(scorer.weight for scorer in self.scorers if scorer.hears)
        agreed = added[:, :, self.hearing].sum(dim=2, keepdim=True) / weight
        sentences = Sentences(
            torch.cat([living.tokens[rows, above], token[..., None] + END + 1], dim=2),
            living.sums[rows, above] + added,
            torch.cat([living.agreed[rows, above], agreed], dim=2),
        )
        return sentences, (above + rows * living.tokens.shape[1]).flatten()

    def _divisor(self, length: int) -> float:
        return divisor(length, self.config.length_power)


def divisor(length: int, power: float) -> float:
    """What the sums of a reading with so many tokens are divided by: tokens and the end, to that power."""
    return math.pow(length + 1, power)
