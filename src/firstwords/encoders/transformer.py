"""Transformer encoder: Vaswani et al., 2017, arXiv:1706.03762; for speech Dong et al., ICASSP 2018.

Convolutional subsampling, positions added, layers of self-attention and feed-forward.
Differs from the papers: vectors are normalized before positions are added, where they multiply by sqrt(D) to
the same end. ``norm = "pre"`` (arXiv:2002.04745) trains without a long warm-up; "post" is the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, final

from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.encoders.encoder import Encoder
from firstwords.encoders.layers import Condition, Taps, run_layers
from firstwords.encoders.presets import preset_of
from firstwords.nn.attention import SelfAttention
from firstwords.nn.dropout import Dropout
from firstwords.nn.feedforward import FeedForward
from firstwords.nn.positions import LearnedPositions, SinusoidalPositions
from firstwords.nn.subsampling import Subsampling, SubsamplingConfig
from firstwords.tensors import Padded, is_full, real_frames, zero_padding

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "dim": 144,
        "layers": 8,
        "feedforward": 544,
        "subsampling": {"channels": 32},
    },
    "base": {"subsampling": {"channels": 256}},  # ESPnet's and WeNet's usual size
}


class TransformerConfig(Config):
    """Sizes and choices.

    >>> TransformerConfig.preset("tiny").layers
    8
    """

    kind: Literal["transformer"] = "transformer"
    dim: int = Field(default=256, ge=2)  # model width; even
    layers: int = Field(default=12, ge=1)
    heads: int = Field(default=4, ge=1)
    feedforward: int = Field(default=2048, ge=1)  # hidden width
    norm: Literal["pre", "post"] = "pre"  # before or after each module
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_frames: int = Field(default=1500, ge=1)  # of learned positions, after subsampling: a minute at 25 Hz
    dropout: float = Field(default=0.1, ge=0, lt=1)
    layer_drop: float = Field(default=0.0, ge=0, lt=1)  # of the last layer; earlier ones less
    subsampling: SubsamplingConfig = SubsamplingConfig()

    @classmethod
    def preset(cls, name: str) -> TransformerConfig:
        """The settings called tiny (2 M parameters) or base (12 layers of 256: 18 M)."""
        return cls.model_validate(preset_of(name, _PRESETS, "Transformer"))

    @model_validator(mode="after")
    def dim_splits_into_heads(self) -> TransformerConfig:
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim = {self.dim} must be even and a multiple of heads = {self.heads}.")
        return self


@final
class TransformerLayer(nn.Module):
    """x + attention, x + feed-forward, with a norm before or after each."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config.dim, config.heads)
        self.feed_norm = nn.LayerNorm(config.dim)
        self.feed = FeedForward(config.dim, config.feedforward, config.dropout, "relu")
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        hidden: Bool[Tensor, "batch 1 1 time"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        if self.pre:
            x = x + self.dropout(self.attention(self.attention_norm(x), hidden))
            return x + self.dropout(self.feed(self.feed_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, hidden)))
        return self.feed_norm(x + self.dropout(self.feed(x)))


@final
class Transformer(Encoder):
    """Frames (B, T, input_dim) -> (B, about T / subsampling, dim)."""

    def __init__(self, config: TransformerConfig, input_dim: int = 80) -> None:
        super().__init__()
        self.config = config
        self.dim, self.subsampling = config.dim, config.subsampling.factor
        self.embed = Subsampling(config.subsampling, input_dim, config.dim)
        learned = config.positions == "learned"
        self.positions = LearnedPositions(config.max_frames, config.dim) if learned else SinusoidalPositions()
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim) if config.norm == "pre" else nn.Identity()

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return self.embed.output_lengths(lengths)

    def forward(self, frames: Padded) -> Padded:
        return self.forward_with_intermediate(frames, ())[0]

    def forward_with_intermediate(
        self, frames: Padded, layers: Sequence[int], condition: Condition | None = None
    ) -> tuple[Padded, list[Padded]]:
        """See ``heads/intermediate.py``; ``layers`` are numbered from 0."""
        taps = Taps(layers, len(self.layers), condition)
        x, lengths = self.embed(frames)
        full = is_full(lengths, x.shape[1])
        hidden = None if full else ~real_frames(lengths, x.shape[1])[:, None, None]

        def output(x: Tensor) -> Padded:
            encoded = Padded(self.norm(x), lengths)
            return encoded if full else zero_padding(encoded)

        x = self.dropout(self.positions(x))
        drop = self.config.layer_drop if self.training else 0.0
        calls = [partial(layer, hidden=hidden) for layer in self.layers]
        x = run_layers(x, calls, taps, output, drop=drop)
        return output(x), taps.taken
