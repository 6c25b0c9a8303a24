"""The feed-forward module of attention encoders: Vaswani et al., 2017, arXiv:1706.03762, section 3.3."""

from __future__ import annotations

from typing import Literal, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.nn.dropout import Dropout
from firstwords.nn.linear import Linear

_ACTIVATIONS = {"relu": F.relu, "swish": F.silu}


@final
class FeedForward(nn.Module):
    """(B, T, D) -> (B, T, D): widen, activation, dropout, back."""

    def __init__(self, dim: int, hidden: int, dropout: float, activation: Literal["relu", "swish"]) -> None:
        super().__init__()
        self.in_proj = Linear(dim, hidden)
        self.activation = _ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)
        self.out_proj = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        return self.out_proj(self.dropout(self.activation(self.in_proj(x))))
