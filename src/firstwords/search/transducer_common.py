"""What the transducer searches share: histories that grow while others wait, and the readings they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from firstwords.heads.transducer.head import TransducerHead
from firstwords.heads.transducer.predictor import State
from firstwords.search.hypothesis import Hypothesis


class Emission(NamedTuple):
    """A token, the frame at which it was written, and its probability there."""

    token: int
    frame: int
    probability: float


def reading(written: Sequence[Emission], score: float, frame_seconds: float) -> Hypothesis:
    """Tokens in their order -> Hypothesis. A token lasts for its frame, or less if another follows in it.

    What a transducer writes may come some frames after what was said.
    """
    frames = [emission.frame for emission in written]
    ends = [min(now + 1, then) for now, then in zip(frames, [*frames[1:], *frames[-1:]], strict=True)]
    if ends:
        ends[-1] = frames[-1] + 1
    return Hypothesis(
        tokens=tuple(emission.token for emission in written),
        score=score,
        parts={"transducer": score},
        times=tuple(frame * frame_seconds for frame in frames),
        ends=tuple(end * frame_seconds for end in ends),
        confidences=tuple(min(1.0, emission.probability) for emission in written),
    )


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
