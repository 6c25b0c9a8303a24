"""What the transducer searches share: histories that grow while others wait, and the readings they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from firstwords.heads.numeric import at_least_float32
from firstwords.heads.transducer.head import TransducerHead
from firstwords.heads.transducer.predictor import State
from firstwords.nn.scorer import TokenScorer
from firstwords.search.fusion import LANGUAGE_MODEL, Companion, Weighted

BLANK = 0


@final
@dataclass
class Histories:
    """Predictor outputs, ready for the joiner, and states: one row per history."""

    head: TransducerHead
    projected: Float[Tensor, "rows joint"]
    state: State

    @classmethod
    def start(cls, head: TransducerHead, rows: int) -> Histories:
        """So many histories with a blank in each."""
        state = head.predictor.start(rows)
        blanks = torch.zeros(rows, dtype=torch.int64, device=state[0].device)
        output, state = head.predictor.step(blanks, state)
        return cls(head, head.joiner.predictor_proj(output), state)

    def take(self, origins: Int[Tensor, " rows"]) -> None:
        """Row i goes on from what row origins[i] was."""
        self.projected = self.projected[origins]
        self.state = tuple(part[origins] for part in self.state)

    def grow(self, tokens: Int[Tensor, " rows"], grown: Bool[Tensor, " rows"]) -> None:
        """One more token where ``grown``; the others stay."""
        rows = grown.nonzero()[:, 0]
        if len(rows) == 0:
            return
        output, state = self.head.predictor.step(tokens[rows], tuple(part[rows] for part in self.state))
        self.projected = self.projected.index_copy(0, rows, self.head.joiner.predictor_proj(output))
        self.state = tuple(part.index_copy(0, rows, new) for part, new in zip(self.state, state, strict=True))


@final
class InternalModel(TokenScorer[State]):
    """What a transducer knows of text: its next tokens where the encoder says nothing.

    Meng et al., 2020, arXiv:2011.01991, section 3.1: the joiner meets an encoder output of zeros, and the
    blank is left out. It says nothing of the end.
    """

    def __init__(self, head: TransducerHead) -> None:
        self.head = head
        projection = head.joiner.encoder_proj
        self.silence = projection(projection.weight.new_zeros(projection.in_features))

    def start(self, rows: int) -> State:
        return self.head.predictor.start(rows)

    @torch.no_grad()
    def score(
        self, last: Int[Tensor, " rows"], state: State
    ) -> tuple[Float[Tensor, "rows vocabulary"], State]:
        output, state = self.head.predictor.step(last.to(self.silence.device), state)
        joiner = self.head.joiner
        logits = at_least_float32(joiner.join(self.silence, joiner.predictor_proj(output)))
        tokens = logits[:, BLANK + 1 :].log_softmax(dim=1)
        return torch.nn.functional.pad(tokens, (1, 0)), state

    def reorder(self, state: State, kept: Int[Tensor, " kept"]) -> State:
        return tuple(part[kept] for part in state)


def companion_of(
    head: TransducerHead, scorers: Sequence[Weighted], internal_weight: float, slots: int
) -> Companion | None:
    """What goes along with so many histories; None without scorers.

    The transducer's own model of text is taken off where a language model takes its place.
    """
    if internal_weight and any(one.name == LANGUAGE_MODEL for one in scorers):
        scorers = (*scorers, Weighted("internal", -internal_weight, InternalModel(head), hears=False))
    return Companion(scorers, slots, slots, head.vocabulary) if scorers and slots else None


def added_by(companion: Companion, like: Tensor) -> Float[Tensor, "rows vocabulary"]:
    """The scorers' shares of every next token, and 0 for the blank; type and device as ``like``."""
    scores = torch.from_numpy(companion.scores)
    scores[:, BLANK] = 0.0
    return scores.to(like)


def shares_of(companion: Companion | None, slots: int) -> list[dict[str, float]]:
    """For every slot the scorers' shares with the end behind it, by name."""
    if companion is None:
        return [{} for _ in range(slots)]
    return [dict(zip(companion.names, shares, strict=True)) for shares in companion.ended().tolist()]
