"""Guided attention: early in training, looking far from the diagonal costs something.

Tachibana et al., 2018, arXiv:1710.08969, section 4.1: speech and text advance together, so token n of N
should look near frame t = T n / N. Summed over tokens instead of averaged over the picture, as the nats of
the decoder are: each token adds the mean of 1 - exp(-(n/N - t/T)^2 / 2 g^2) under its attention, 0..1.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from firstwords.config import Config
from firstwords.heads.numeric import at_least_float32


class GuidedConfig(Config):
    """Counts are batches of the reference recipe; a run with an automatic scale makes about 67000."""

    weight: NonNegativeFloat = 1.0  # at the start, on the nats per token; 0 turns it off
    width: PositiveFloat = 0.2  # g: of the diagonal, as a share of the utterance
    until: Annotated[float, Field(gt=0)] = 20000.0  # the weight falls linearly to 0 here


def guided_weight(config: GuidedConfig, count: float) -> float:
    """Reference batches so far -> weight of the loss."""
    return config.weight * max(0.0, 1.0 - count / config.until)


def guided_loss(
    attention: Float[Tensor, "batch tokens time"],
    tokens: Int[Tensor, " batch"],
    frames: Int[Tensor, " batch"],
    width: float,
) -> Float[Tensor, " batch"]:
    """Attention of each token (rows beyond ``tokens`` ignored) -> cost of each utterance, float32."""
    weights = at_least_float32(attention)
    n = torch.arange(weights.shape[1], device=weights.device)
    t = torch.arange(weights.shape[2], device=weights.device)
    down = n / tokens.clamp(min=1)[:, None]
    across = t / frames.clamp(min=1)[:, None]
    cost = 1 - torch.exp(-((down[:, :, None] - across[:, None, :]) ** 2) / (2 * width**2))
    return (weights * cost).sum(dim=2).masked_fill(n >= tokens[:, None], 0).sum(dim=1)
