"""Attention of a recurrent decoder: which frames its state looks at next.

    dot         e_t = φ(s) · ψ(h_t) / sqrt(d)                        Chan et al., 2015, arXiv:1508.01211
    additive    e_t = w · tanh(W s + V h_t + b)                      Bahdanau et al., 2014, arXiv:1409.0473
    location    e_t = w · tanh(W s + V h_t + U f_t + b), f = F * α   Chorowski et al., 2015, arXiv:1506.07503

with α the weights of the token before, or the sum of all before (``accumulate``), at first even over the
frames. The weights are softmax(sharpening * e) over an utterance's own frames. Several attention heads have a
φ (or W) each and share ψ (V, U, w); their contexts are joined and projected.

Queries stand in an axis K of their own: one per utterance in training, one per hypothesis in a search, so
that the frames need not be copied for each hypothesis. Axes: B batch, K queries, H heads, T frames.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple, TypeAlias, final

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.heads.numeric import at_least_float32
from firstwords.nn.linear import Linear
from firstwords.tensors import Padded, real_frames


class DotAttentionConfig(Config):
    """One hidden layer with ReLU on both sides."""

    kind: Literal["dot"] = "dot"
    dim: PositiveInt = 128
    heads: PositiveInt = 1
    sharpening: PositiveFloat = 1.0  # up to 2 where long recordings blur the weights


class AdditiveAttentionConfig(Config):
    """A small network that compares state and frame."""

    kind: Literal["additive"] = "additive"
    dim: PositiveInt = 128
    heads: PositiveInt = 1
    sharpening: PositiveFloat = 1.0


class LocationAttentionConfig(Config):
    """Additive, and knows where it looked before."""

    kind: Literal["location"] = "location"
    dim: PositiveInt = 128
    heads: PositiveInt = 1
    sharpening: PositiveFloat = 1.0
    filters: PositiveInt = 10
    radius: PositiveInt = 15  # frames seen to each side of the one asked about; 15 of 40 ms are 0.6 s
    accumulate: bool = False  # look at the sum of all weights before, not at the last ones


MechanismConfig: TypeAlias = DotAttentionConfig | AdditiveAttentionConfig | LocationAttentionConfig


class Memory(NamedTuple):
    """The frames of a batch, and what can be computed of them once."""

    frames: Float[Tensor, "batch time dim"]
    keys: Float[Tensor, "batch time attention_dim"]
    real: Bool[Tensor, "batch time"]


class Look(NamedTuple):
    """The weights of the token before, and what the next one may know of the past."""

    weights: Float[Tensor, "batch queries heads time"]
    past: Float[Tensor, "batch queries heads time"]


@final
class DotEnergy(nn.Module):
    """Product of two one-layer networks."""

    def __init__(self, config: DotAttentionConfig, query_dim: int, memory_dim: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = Linear(query_dim, config.heads * config.dim)
        self.key = Linear(memory_dim, config.dim)
        self.scale = 1 / math.sqrt(config.dim)

    def keys(self, frames: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time attention_dim"]:
        return self.key(frames).relu()

    def forward(
        self,
        query: Float[Tensor, "batch queries query_dim"],
        keys: Float[Tensor, "batch time attention_dim"],
        past: Float[Tensor, "batch queries heads time"],
    ) -> Float[Tensor, "batch queries heads time"]:
        asked = self.query(query).relu().unflatten(2, (self.heads, -1)).flatten(1, 2)  # (B, K * H, d)
        return (self.scale * asked @ keys.transpose(1, 2)).unflatten(1, (-1, self.heads))


@final
class AdditiveEnergy(nn.Module):
    """A network with one hidden layer over state and frame, and the past weights if it is to know them."""

    conv: nn.Conv1d | None
    location: nn.Linear | None

    def __init__(
        self, config: AdditiveAttentionConfig | LocationAttentionConfig, query_dim: int, memory_dim: int
    ) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = Linear(query_dim, config.heads * config.dim, bias=False)
        self.key = Linear(memory_dim, config.dim)
        self.conv, self.location = None, None
        if isinstance(config, LocationAttentionConfig):
            width = 2 * config.radius + 1
            self.conv = nn.Conv1d(1, config.filters, width, padding=config.radius, bias=False)
            self.location = Linear(config.filters, config.dim, bias=False)
        self.energy = Linear(config.dim, 1, bias=False)

    def keys(self, frames: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time attention_dim"]:
        return self.key(frames)

    def forward(
        self,
        query: Float[Tensor, "batch queries query_dim"],
        keys: Float[Tensor, "batch time attention_dim"],
        past: Float[Tensor, "batch queries heads time"],
    ) -> Float[Tensor, "batch queries heads time"]:
        asked = self.query(query).unflatten(2, (self.heads, 1, -1))  # (B, K, H, 1, d)
        hidden = asked + keys[:, None, None]
        if self.conv is not None and self.location is not None:
            seen = self.conv(past.flatten(0, 2)[:, None].to(hidden.dtype)).transpose(1, 2)
            hidden = hidden + self.location(seen).view(hidden.shape)
        return self.energy(hidden.tanh()).squeeze(-1)


@final
class Attention(nn.Module):
    """State of the decoder and frames -> the frames' weighted mean ("context") and the weights."""

    project: nn.Linear | None  # joined contexts of several heads -> the width of one

    def __init__(self, config: MechanismConfig, query_dim: int, memory_dim: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.sharpening = config.sharpening
        self.accumulate = isinstance(config, LocationAttentionConfig) and config.accumulate
        if isinstance(config, DotAttentionConfig):
            self.energy = DotEnergy(config, query_dim, memory_dim)
        else:
            self.energy = AdditiveEnergy(config, query_dim, memory_dim)
        self.project = Linear(config.heads * memory_dim, memory_dim) if config.heads > 1 else None

    def memory(self, encoded: Padded) -> Memory:
        """Encoded (B, T, D) -> what every token of the utterance looks at.

        At least one frame, if an unreal one: torch convolves nothing else.
        """
        frames = encoded.values
        if frames.shape[1] == 0:
            frames = frames.new_zeros(frames.shape[0], 1, frames.shape[2])
        return Memory(frames, self.energy.keys(frames), real_frames(encoded.lengths, frames.shape[1]))

    def start(self, memory: Memory, queries: int) -> Look:
        """Before the first token: even weights over each utterance's frames."""
        count = memory.real.sum(dim=1).clamp(min=1)
        even = memory.real.float() / count[:, None]
        weights = even[:, None, None].expand(-1, queries, self.heads, -1)
        return Look(weights, weights)

    def forward(
        self, query: Float[Tensor, "batch queries query_dim"], memory: Memory, before: Look
    ) -> tuple[Float[Tensor, "batch queries memory_dim"], Look]:
        """The decoder's state and the last look -> context and the next look.

        An utterance without frames has no weights, and its context is zero.
        """
        energies = self.sharpening * at_least_float32(self.energy(query, memory.keys, before.past))
        hidden = ~memory.real[:, None, None]
        lowest = torch.finfo(energies.dtype).min  # not -inf: an utterance without frames would give nan
        weights = energies.masked_fill(hidden, lowest).softmax(dim=-1).masked_fill(hidden, 0)
        context = weights.flatten(1, 2).to(memory.frames.dtype) @ memory.frames  # (B, K * H, D)
        context = context.unflatten(1, (-1, self.heads)).flatten(2)
        if self.project is not None:
            context = self.project(context)
        return context, Look(weights, before.past + weights if self.accumulate else weights)


AttentionSettings: TypeAlias = Annotated[MechanismConfig, Field(discriminator="kind")]
