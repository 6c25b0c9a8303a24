"""Attention of a Zipformer layer: weights computed once, used by three modules (arXiv:2310.11230, 3.2).

scores[i, j] = q_i · k_j + p_i · (linear_pos PE[j - i]), no division by sqrt(d). Hidden places get the score
-1000. Positions depend on the distance through an arctangent of its logarithm, so one table serves every
length.

    PE rows for three frames: offsets -2 -1 0 1 2; frame i reads the rows 2-i … 4-i.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from firstwords.encoders.zipformer import constraints
from firstwords.encoders.zipformer.activations import initialize_scaled
from firstwords.encoders.zipformer.constraints import Balancer, Whiten
from firstwords.encoders.zipformer.schedules import Schedule, Scheduled
from firstwords.nn.linear import Linear
from firstwords.nn.sharing import (
    SharedWeights,
    attend,
    attention_scores,
    join_heads,
    punish_large,
    share,
    span_of,
    split_heads,
    split_offsets,
    weights_of,
)
from firstwords.tensors import is_captured, split_evenly


class RelativePositions(nn.Module):
    """Number of frames -> encodings of all distances between them; computed once, kept, never saved."""

    def __init__(self, dim: int, dropout: float = 0.15) -> None:
        super().__init__()
        self.dim = dim
        self.dropout = nn.Dropout(dropout)
        self.table = torch.empty(0, dim)  # a plain attribute: no part of the weights

    def forward(self, time: int, left: int = 0, like: Tensor | None = None) -> Float[Tensor, "offsets dim"]:
        """Rows for the offsets -(time + left - 1) … time - 1, on the device and in the dtype of ``like``."""
        like = self.table if like is None else like
        if is_captured():
            return encode_offsets(-(time + left - 1), time - 1, self.dim, like.device).to(like.dtype)
        table, reach = self.table, self.table.shape[0] // 2
        need = time + left - 1
        elsewhere = (table.device, table.dtype) != (like.device, like.dtype)
        if len(table) == 0 or reach < need or elsewhere:
            # Doubled only when it is too short: training in bfloat16 and validating in float32 takes turns.
            reach = max(need, 64, 2 * reach) if reach < need else max(reach, 64)
            table = encode_offsets(-reach, reach, self.dim, like.device).to(like.dtype)
            self.table = table
        return self.dropout(table[reach - (time + left - 1) : reach + time])


def encode_offsets(first: int, last: int, dim: int, device: torch.device) -> Float[Tensor, "offsets dim"]:
    """Offsets (source - target) first … last -> cosines and sines of multiples of a squashed distance.

    z = sqrt(d) sign(x) (ln(|x| + sqrt(d)) - ln sqrt(d)), a = atan(2 pi z / d); columns cos a, sin a, cos 2a
    and so on, the last one is 1.
    """
    offsets = torch.arange(first, last + 1, dtype=torch.float32, device=device)
    root = math.sqrt(dim)
    squashed = root * offsets.sign() * ((offsets.abs() + root).log() - math.log(root))
    angles = (squashed * (2 * math.pi / dim)).atan()[:, None] * torch.arange(1, dim // 2 + 1, device=device)
    table = torch.stack((angles.cos(), angles.sin()), dim=2).flatten(1)
    return torch.cat((table[:, :-1], torch.ones_like(table[:, :1])), dim=1)


class AttentionWeights(Scheduled):
    """(B, T, D) -> attention weights (B, H, T, S): row = who looks, column = what is looked at."""

    def __init__(
        self,
        dim: int,
        position_dim: int,
        heads: int,
        query_head_dim: int,
        position_head_dim: int,
        position_skip: Schedule | float | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.query_head_dim, self.position_head_dim = heads, query_head_dim, position_head_dim
        skip = Schedule((0.0, 0.5), (4000.0, 0.0))
        self.position_skip = skip if position_skip is None else position_skip
        self.in_proj = Linear(dim, heads * (2 * query_head_dim + position_head_dim))
        initialize_scaled(self.in_proj, query_head_dim**-0.25)
        limit = Schedule((0.0, 3.0), (20000.0, 6.0), default=3.0)
        self.whiten_keys = Whiten(limit, groups=heads, grad_scale=0.025)
        self.balance_keys = Balancer(0.4, 0.6, 0.0, 100.0, probability=0.025)
        self.linear_pos = Linear(position_dim, heads * position_head_dim, bias=False)
        initialize_scaled(self.linear_pos, 0.05)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        positions: Float[Tensor, "offsets position_dim"],
        hidden: Bool[
            Tensor,
            (
                ...  # time sources
            ),
        ]
        | None = None,
    ) -> Float[Tensor, "batch heads time sources"]:
        """``hidden`` (True = must not be seen) broadcasts over (B, H, T, S)."""
        scores = attention_scores(*self._scored(x, positions), span_of(positions, hidden))
        if self._punishes():
            scores = punish_large(scores)
        return weights_of(scores, hidden)

    def shared(
        self,
        x: Float[Tensor, "batch time dim"],
        positions: Float[Tensor, "offsets position_dim"],
        hidden: Bool[Tensor, "*#some #time sources"] | None = None,
    ) -> SharedWeights:
        """The same weights for modules that use them through ``attend``: less memory, less time."""
        return share(*self._scored(x, positions), hidden, punish=self._punishes())

    def _punishes(self) -> bool:
        return self.training and torch.is_grad_enabled() and constraints.drawn(0.1)

    def _scored(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """What the scores are made of; sometimes in training the positions are left out."""
        q, k, p = self._project(x)
        k = self.whiten_keys(self.balance_keys(k))
        left_out = self.training and constraints.drawn(self.now(self.position_skip))
        p, r = self._place(p, positions)
        return split_heads(q, self.heads), split_heads(k, self.heads), None if left_out else p, r

    def step(
        self,
        x: Float[Tensor, "batch time dim"],
        positions: Float[Tensor, "offsets position_dim"],
        cache: Float[Tensor, "batch left keys"],
        hidden: Bool[Tensor, "batch 1 1 sources"] | None = None,
    ) -> tuple[Float[Tensor, "batch heads time sources"], Float[Tensor, "batch left keys"]]:
        """One chunk and the keys before it -> weights over both, and the next cache."""
        q, k, p = self._project(x)
        k = torch.cat((cache, k), dim=1)
        q, k_heads = split_heads(q, self.heads), split_heads(k, self.heads)
        scores = attention_scores(q, k_heads, *self._place(p, positions), span_of(positions, hidden))
        return weights_of(scores, hidden), k[:, k.shape[1] - cache.shape[1] :]

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = self.heads * self.query_head_dim
        q, k, p = self.in_proj(x).split((width, width, self.heads * self.position_head_dim), dim=2)
        return q, k, p

    def _place(self, p: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(p, self.heads), split_offsets(self.linear_pos(positions), self.heads)


class SelfAttention(nn.Module):
    """(B, T, D) and weights (B, H, T, S) -> (B, T, D): weighted sums of small values."""

    def __init__(self, dim: int, heads: int, value_head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(dim, heads * value_head_dim)
        self.out_proj = Linear(heads * value_head_dim, dim)
        initialize_scaled(self.out_proj, 0.05)
        self.whiten = Whiten(Schedule((0.0, 7.5), (20000.0, 22.5), default=7.5), grad_scale=0.01)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        weights: Float[Tensor, "batch heads time sources"] | SharedWeights,
    ) -> Float[Tensor, "batch time dim"]:
        return self.whiten(self._attend(self.in_proj(x), weights))

    def step(
        self,
        x: Float[Tensor, "batch time dim"],
        weights: Float[Tensor, "batch heads time sources"],
        cache: Float[Tensor, "batch left values"],
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch left values"]]:
        """One chunk and the values before it -> output and the next cache."""
        values = torch.cat((cache, self.in_proj(x)), dim=1)
        return self._attend(values, weights), values[:, values.shape[1] - cache.shape[1] :]

    def _attend(self, values: Tensor, weights: Tensor | SharedWeights) -> Tensor:
        sums = attend(weights, split_heads(values, self.heads))
        return self.out_proj(join_heads(sums))


class NonlinAttention(nn.Module):
    """(B, T, D) and weights, of which the first head is used -> (B, T, D): gate, attend, gate again."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.in_proj = Linear(dim, 3 * hidden)
        self.balancer = Balancer(
            Schedule((0.0, 0.25), (20000.0, 0.05)), Schedule((0.0, 0.75), (20000.0, 0.95)), 0.5, 5.0
        )
        self.whiten1 = Whiten(Schedule((0.0, 5.0), (20000.0, 10.0), default=5.0), grad_scale=0.01)
        self.out_proj = Linear(hidden, dim)
        initialize_scaled(self.out_proj, 0.05)
        self.whiten2 = Whiten(Schedule((0.0, 5.0), (20000.0, 15.0), default=5.0), grad_scale=0.01)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        weights: Float[Tensor, "batch heads time sources"] | SharedWeights,
    ) -> Float[Tensor, "batch time dim"]:
        s, x, y = split_evenly(self.in_proj(x), 3)
        x = self.whiten1(x) * self.balancer(s).tanh()
        sums = attend(weights, x.unsqueeze(1))  # not squeezed: ONNX would ask first whether it can be
        return self.whiten2(self.out_proj(sums.reshape(sums.shape[0], -1, int(sums.shape[3])) * y))

    def step(
        self,
        x: Float[Tensor, "batch time dim"],
        weights: Float[Tensor, "batch heads time sources"],
        cache: Float[Tensor, "batch left hidden"],
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch left hidden"]]:
        """One chunk and the gated frames before it -> output and the next cache."""
        s, x, y = split_evenly(self.in_proj(x), 3)
        x = torch.cat((cache, x * s.tanh()), dim=1)
        return self.out_proj((weights[:, 0] @ x) * y), x[:, x.shape[1] - cache.shape[1] :]
