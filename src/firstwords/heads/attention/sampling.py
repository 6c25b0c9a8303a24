"""Scheduled sampling: sometimes the decoder reads its own last prediction instead of the true token.

Bengio et al., 2015, arXiv:1506.03099. The coin is tossed for each token of each utterance by itself. At the
start of training every prediction is wrong, so the share grows from zero.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor

from firstwords.config import Config
from firstwords.heads.numeric import at_least_float32


class SamplingConfig(Config):
    """Counts are batches of the reference recipe; a run with an automatic scale makes about 67000."""

    share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1  # of the tokens, once the rise is over
    start: NonNegativeFloat = 10000.0  # until here none
    end: NonNegativeFloat = 30000.0  # from here on ``share``; between them linear
    choice: Literal["best", "drawn"] = "best"  # the most probable unit, or one drawn by its probability

    @model_validator(mode="after")
    def rises_after_its_start(self) -> SamplingConfig:
        if self.end <= self.start:
            raise ValueError(f"end = {self.end:g} must be above start = {self.start:g}")
        return self


def sampling_share(config: SamplingConfig, count: float) -> float:
    """Reference batches so far -> probability that a token is replaced."""
    return config.share * min(1.0, max(0.0, (count - config.start) / (config.end - config.start)))


def toss(share: float, inputs: Int[Tensor, "batch tokens"]) -> Bool[Tensor, "batch tokens"]:
    """True where the decoder reads its own prediction; never at the start of a sentence."""
    coins = torch.rand(inputs.shape, device=inputs.device) < share
    coins[:, :1] = False
    return coins


def predicted(
    logits: Float[Tensor, "batch units"], choice: Literal["best", "drawn"]
) -> Int[Tensor, " batch"]:
    """Scores of units -> the unit read next."""
    if choice == "best":
        return logits.argmax(dim=-1)
    return torch.multinomial(at_least_float32(logits).softmax(dim=-1), 1).squeeze(1)
