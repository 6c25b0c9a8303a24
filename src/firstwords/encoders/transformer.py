"""Transformer encoder: Vaswani et al., 2017, arXiv:1706.03762; for speech Dong et al., ICASSP 2018.

Convolutional subsampling, positions added, layers of self-attention and feed-forward.
Differs from the papers: vectors are normalized before positions are added, where they multiply by sqrt(D) to
the same end. ``norm = "pre"`` (arXiv:2002.04745) trains without a long warm-up; "post" is the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, final

from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from firstwords.encoders.stack import AttentionStack, StackConfig, View
from firstwords.nn.attention import SelfAttention
from firstwords.nn.dropout import Dropout
from firstwords.nn.feedforward import FeedForward
from firstwords.nn.positions import LearnedPositions, SinusoidalPositions
from firstwords.nn.subsampling import SubsamplingConfig
from firstwords.tensors import Padded

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "dim": 144,
        "layers": 8,
        "feedforward": 544,
        "subsampling": {"channels": 32},
    },
    "base": {"subsampling": {"channels": 256}},  # ESPnet's and WeNet's usual size
}


class TransformerConfig(StackConfig):
    """Sizes and choices.

    >>> TransformerConfig.preset("tiny").layers
    8
    """

    called: ClassVar[str] = "Transformer"
    presets: ClassVar[Mapping[str, dict[str, Any]]] = _PRESETS  # tiny has 2 M parameters, base 18 M

    kind: Literal["transformer"] = "transformer"  # pyright: ignore[reportIncompatibleVariableOverride]
    feedforward: int = Field(default=2048, ge=1)  # hidden width
    norm: Literal["pre", "post"] = "pre"  # before or after each module
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_frames: int = Field(default=1500, ge=1)  # of learned positions, after subsampling: a minute at 25 Hz
    dropout: float = Field(default=0.1, ge=0, lt=1)
    layer_drop: float = Field(default=0.0, ge=0, lt=1)  # of the last layer; earlier ones less
    subsampling: SubsamplingConfig = SubsamplingConfig()


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
class Transformer(AttentionStack):
    """Frames (B, T, input_dim) -> (B, about T / subsampling, dim)."""

    def __init__(self, config: TransformerConfig, input_dim: int = 80) -> None:
        super().__init__(config, input_dim)
        self.config = config
        learned = config.positions == "learned"
        self.longest = config.max_frames if learned else None
        self.positions = LearnedPositions(config.max_frames, config.dim) if learned else SinusoidalPositions()
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim) if config.norm == "pre" else nn.Identity()

    def enter(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        return self.dropout(self.positions(x))

    def calls(self, view: View, first: int = 0, last: int | None = None) -> list[Callable[[Tensor], Tensor]]:
        return [partial(layer, hidden=view.hidden) for layer in list(self.layers)[first:last]]

    def output(
        self, x: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"], view: View
    ) -> Padded:
        return super().output(self.norm(x), lengths, view)
