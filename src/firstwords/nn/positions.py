"""Where a frame stands: sinusoidal, learned, and relative positions.

Sinusoids: Vaswani et al., 2017, arXiv:1706.03762, section 3.5. Relative: the same sinusoids of the distance
between two frames, Dai et al., "Transformer-XL", 2019, arXiv:1901.02860, section 3.3.
"""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.errors import ConfigError


def sinusoids(
    places: Float[Tensor, " count"], dim: int, *, halves: bool = False
) -> Float[Tensor, "count dim"]:
    """Places -> sin(p w_0), cos(p w_0), sin(p w_1), … with w_i = 10000^(-2 i / dim); ``dim`` is even.

    Args:
        halves: all sines first, then all cosines.
    """
    powers = torch.arange(0, dim, 2, device=places.device, dtype=torch.float32) * (-math.log(10000.0) / dim)
    angles = places[:, None] * powers.exp()
    if halves:
        return torch.cat((angles.sin(), angles.cos()), dim=1)
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)


def distances(time: int, sources: int, dim: int, like: Float[Tensor, "*any"]) -> Float[Tensor, "offsets dim"]:
    """Encodings of all distances between the last ``time`` of ``sources`` frames and these (nn/sharing.py).

        time 2, sources 3:  distances 2 1 0 -1      first row 1 0 -1, last row 2 1 0

    A positive distance looks back. Device of ``like``.
    """
    places = torch.arange(sources - 1, -time, -1, device=like.device, dtype=torch.float32)
    return sinusoids(places, dim)


@final
class SinusoidalPositions(nn.Module):
    """(B, T, D) -> the same with the encoding of each frame's number added."""

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        places = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        return x + sinusoids(places, x.shape[2]).to(x.dtype)


@final
class LearnedPositions(nn.Module):
    """(B, T, D) -> the same with a learned vector for each frame's number added; at most ``limit`` frames."""

    def __init__(self, limit: int, dim: int) -> None:
        super().__init__()
        self.limit = limit
        self.table = nn.Parameter(0.02 * torch.randn(limit, dim))

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Raises ConfigError where there are more frames than vectors."""
        if x.shape[1] > self.limit:
            raise ConfigError(
                f"{x.shape[1]} frames are more than the {self.limit} positions this model has learned.",
                mend="Read shorter windows, or train with more encoder.max_frames.",
            )
        return x + self.table[: x.shape[1]].to(x.dtype)
