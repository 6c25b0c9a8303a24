"""Attention weights from content and distance, self-attention, gated attention: (T, N, C) sequences."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.zipformer.regularizers import Balancer, Clock, Part, Rate, Whiten, happens, punish_beyond


def encode_distances(time: int, dim: int) -> Tensor:
    """(2 T - 1, dim): rows for the offsets -(T-1) ... T-1 of a source from the frame that looks at it."""
    x = torch.arange(-(time - 1), time).float()
    c = math.sqrt(dim)
    z = c * x.sign() * ((x.abs() + c).log() - math.log(c))
    angle = (2 * math.pi * z / dim).atan()
    table = torch.empty(len(x), dim)
    for k in range(1, dim // 2 + 1):
        table[:, 2 * k - 2], table[:, 2 * k - 1] = (k * angle).cos(), (k * angle).sin()
    table[:, -1] = 1.0
    return table


class Distances(nn.Module):
    """Encodings for the last length asked for, with dropout."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.table = torch.empty(0, dim)

    def forward(self, like: Tensor) -> Tensor:
        """For as many frames as ``like`` (T, N, C) has, in its dtype."""
        time = like.shape[0]
        if len(self.table) != 2 * time - 1 or self.table.dtype != like.dtype:
            self.table = encode_distances(time, self.dim).to(like.dtype)
        return F.dropout(self.table, 0.15, self.training)


class AttentionWeights(Part):
    """(T, N, C) -> (H, N, T, S), rows sum to one."""

    def __init__(
        self, clock: Clock, dim: int, position_dim: int, heads: int, query_dim: int, position_head_dim: int
    ) -> None:
        super().__init__(clock)
        self.heads, self.query_dim, self.position_head_dim = heads, query_dim, position_head_dim
        self.in_proj = nn.Linear(dim, heads * (2 * query_dim + position_head_dim))
        self.linear_pos = nn.Linear(position_dim, heads * position_head_dim, bias=False)
        self.balance_keys = Balancer(clock, 0.4, 0.6, 0.0, 100.0, probability=0.025)
        self.whiten_keys = Whiten(clock, Rate((0, 3.0), (20000, 6.0), default=3.0), 0.025, groups=heads)

    def forward(self, x: Tensor, distances: Tensor, hidden: Tensor | None, padding: Tensor | None) -> Tensor:
        """``hidden`` (T, S) and ``padding`` (N, S): True = not to be seen."""
        time, rows, _ = x.shape
        heads = self.heads
        q, k, p = self.in_proj(x).split([heads * self.query_dim] * 2 + [heads * self.position_head_dim], -1)
        k = self.whiten_keys(self.balance_keys(k))
        q = q.reshape(time, rows, heads, -1).permute(2, 1, 0, 3)
        k = k.reshape(time, rows, heads, -1).permute(2, 1, 3, 0)
        scores = q @ k
        if not (self.training and happens(self.now(Rate((0, 0.5), (4000, 0.0))))):
            p = p.reshape(time, rows, heads, -1).permute(2, 1, 0, 3)
            r = self.linear_pos(distances).reshape(1, 2 * time - 1, heads, -1).permute(2, 0, 3, 1)
            scores = scores + _by_distance((p @ r).contiguous())
        if self.training and torch.is_grad_enabled() and happens(0.1):
            scores = punish_beyond(scores, 25.0, 1e-4)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -1000.0)
        if padding is not None:
            scores = scores.masked_fill(padding.unsqueeze(1), -1000.0)
        return scores.softmax(dim=-1)


def _by_distance(scores: Tensor) -> Tensor:
    """(H, N, T, 2T-1) -> (H, N, T, T): row i, column j is row i, column T-1-i+j before; a view."""
    heads, rows, time, offsets = scores.shape
    strides = (scores.stride(0), scores.stride(1), offsets - 1, 1)
    return scores.as_strided((heads, rows, time, time), strides, storage_offset=time - 1)


class SelfAttention(nn.Module):
    def __init__(self, clock: Clock, dim: int, heads: int, value_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(dim, heads * value_dim)
        self.out_proj = nn.Linear(heads * value_dim, dim)
        self.whiten = Whiten(clock, Rate((0, 7.5), (20000, 22.5), default=7.5), 0.01)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        time, rows, _ = x.shape
        values = self.in_proj(x).reshape(time, rows, self.heads, -1).permute(2, 1, 0, 3)
        summed = (weights @ values).permute(2, 1, 0, 3).reshape(time, rows, -1)
        return self.whiten(self.out_proj(summed))


class NonlinAttention(nn.Module):
    """One head of weights over gated values, gated once more."""

    def __init__(self, clock: Clock, dim: int) -> None:
        super().__init__()
        hidden = 3 * dim // 4
        self.in_proj = nn.Linear(dim, 3 * hidden)
        low, high = Rate((0, 0.25), (20000, 0.05)), Rate((0, 0.75), (20000, 0.95))
        self.balancer = Balancer(clock, low, high, 0.5, 5.0)
        self.whiten1 = Whiten(clock, Rate((0, 5.0), (20000, 10.0), default=5.0), 0.01)
        self.out_proj = nn.Linear(hidden, dim)
        self.whiten2 = Whiten(clock, Rate((0, 5.0), (20000, 15.0), default=5.0), 0.01)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``weights`` (1, N, T, S)."""
        s, x, y = self.in_proj(x).chunk(3, dim=-1)
        x = self.whiten1(x)
        x = x * self.balancer(s).tanh()
        x = (weights[0] @ x.transpose(0, 1)).transpose(0, 1)
        return self.whiten2(self.out_proj(x * y))


def uniform(weights: Tensor) -> Tensor:
    """The same weight for every source that has one; no gradient."""
    seen = (weights > 0).to(weights.dtype)
    return seen / seen.sum(dim=-1, keepdim=True)
