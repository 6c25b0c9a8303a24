"""Squeezeformer encoder: Kim et al., 2022, arXiv:2206.00888.

Attention, feed-forward, convolution, feed-forward, each with a learned scale and shift before it and a norm
after it; the middle layers run at half the rate:

    layers 0 … reduce_at - 1            T frames        ── saved ──────────────────────┐
    layers reduce_at … recover_at - 1   ceil(T / 2)     depthwise convolution, stride 2 │
    layers recover_at …                 T frames        each frame twice, linear, + ────┘

Differs from the paper: no dropout on attention weights, subsampling and reduction never look beyond an
utterance, batch statistics never count padding, and there is a batch norm after the subsampling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from firstwords.encoders.layers import Condition, Taps, run_layers
from firstwords.encoders.stack import AttentionStack, StackConfig, View, view_of
from firstwords.nn.attention import RelativeSelfAttention
from firstwords.nn.convolution import ConvolutionModule, convolve_over_time
from firstwords.nn.dropout import Dropout
from firstwords.nn.feedforward import FeedForward
from firstwords.nn.linear import Linear
from firstwords.nn.subsampling import SubsamplingConfig
from firstwords.tensors import Padded


def _published(layers: int, dim: int, heads: int) -> dict[str, Any]:
    return {
        "layers": layers,
        "dim": dim,
        "heads": heads,
        "feedforward": 4 * dim,
        "reduce_at": layers // 2 - 1,
        "recover_at": layers - 1,
        "subsampling": {"channels": dim, "separable": True},
    }


_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "layers": 6,
        "dim": 112,
        "feedforward": 448,
        "kernel": 15,
        "reduce_at": 2,
        "recover_at": 5,
        "subsampling": {"channels": 32, "separable": True},
    },
    # arXiv:2206.00888, table 2
    "XS": _published(16, 144, 4),
    "S": _published(18, 196, 4),
    "SM": _published(16, 256, 4),
    "M": _published(20, 324, 4),
    "ML": _published(18, 512, 8),
    "L": _published(22, 640, 8),
}


class SqueezeformerConfig(StackConfig):
    """Sizes and choices.

    >>> SqueezeformerConfig.preset("XS").recover_at
    15
    """

    called: ClassVar[str] = "Squeezeformer"
    presets: ClassVar[Mapping[str, dict[str, Any]]] = _PRESETS  # tiny has 2 M parameters

    kind: Literal["squeezeformer"] = "squeezeformer"  # pyright: ignore[reportIncompatibleVariableOverride]
    layers: int = Field(default=12, ge=2)
    kernel: int = Field(default=31, ge=1)  # depthwise convolution, in frames of the layer; odd
    convolution_norm: Literal["layer", "batch"] = "batch"  # after the depthwise convolution
    reduce_at: int = Field(default=5, ge=0)  # the first layer at half the rate
    recover_at: int = Field(default=11, ge=1)  # the first layer at the full rate again
    dropout: float = Field(default=0.1, ge=0, lt=1)
    layer_drop: float = Field(default=0.0, ge=0, lt=1)  # of the last layer; earlier ones less
    subsampling: SubsamplingConfig = SubsamplingConfig(separable=True)

    @model_validator(mode="after")
    def sizes_fit(self) -> SqueezeformerConfig:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} must be odd.")
        if not self.reduce_at < self.recover_at <= self.layers:
            raise ValueError(
                f"reduce_at = {self.reduce_at} must be below recover_at = {self.recover_at}, "
                f"and that at most layers = {self.layers}."
            )
        return self


@final
class Scaled(nn.Module):
    """norm(x + dropout(module(scale * x + shift))): paper, section 3.2 and figure 4."""

    scale: nn.Parameter | None  # both None once they are part of the module's first matrix (nn/folding.py)
    shift: nn.Parameter | None

    def __init__(self, module: nn.Module, dim: int, dropout: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim))
        self.module = module
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [("", "module.in_proj")]

    def forward(self, x: Float[Tensor, "batch time dim"], *context: Any) -> Float[Tensor, "batch time dim"]:
        """``context`` is what the module takes beside its input."""
        scaled = x
        if self.scale is not None and self.shift is not None:
            scaled = torch.addcmul(self.shift.to(x.dtype), x, self.scale.to(x.dtype))
        return self.norm(x + self.dropout(self.module(scaled, *context)))


@final
class SqueezeformerLayer(nn.Module):
    """Attention and feed-forward, convolution and feed-forward ("MF/CF", paper, section 3.1.2)."""

    def __init__(self, config: SqueezeformerConfig) -> None:
        super().__init__()
        dim, dropout = config.dim, config.dropout

        def feed() -> FeedForward:
            return FeedForward(dim, config.feedforward, dropout, "swish")

        convolution = ConvolutionModule(dim, config.kernel, gate="swish", norm=config.convolution_norm)
        self.attention = Scaled(RelativeSelfAttention(dim, config.heads), dim, dropout)
        self.feed_after_attention = Scaled(feed(), dim, dropout)
        self.convolution = Scaled(convolution, dim, dropout)
        self.feed_after_convolution = Scaled(feed(), dim, dropout)

    def forward(self, x: Float[Tensor, "batch time dim"], view: View) -> Float[Tensor, "batch time dim"]:
        x = self.feed_after_attention(self.attention(x, view.positions, view.hidden))
        return self.feed_after_convolution(self.convolution(x, view.real))


@final
class TimeReduction(nn.Module):
    """(B, T, D) -> (B, ceil(T / 2), D): depthwise convolution around every other frame, then 1x1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, 3, groups=dim)
        self.pointwise = Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "batch time dim"], real: Bool[Tensor, "batch time"] | None
    ) -> Float[Tensor, "batch half dim"]:
        if real is not None:
            x = x.masked_fill(~real.unsqueeze(2), 0.0)
        return self.pointwise(
            convolve_over_time(x, self.depthwise.weight, self.depthwise.bias, padding=1, stride=2)
        )


@final
class Squeezeformer(AttentionStack):
    """Frames (B, T, input_dim) -> (B, about T / subsampling, dim)."""

    def __init__(self, config: SqueezeformerConfig, input_dim: int = 80) -> None:
        super().__init__(config, input_dim)
        self.config = config
        self.layers = nn.ModuleList(SqueezeformerLayer(config) for _ in range(config.layers))
        self.reduction = TimeReduction(config.dim)
        self.recovery = Linear(config.dim, config.dim)

    def forward_with_intermediate(
        self, frames: Padded, layers: Sequence[int], condition: Condition | None = None
    ) -> tuple[Padded, list[Padded]]:
        """See ``heads/intermediate.py``; ``layers`` are numbered from 0.

        In the middle part the output is what the recovery would make of it, and every other frame of an
        answer is added.
        """
        taps = Taps(layers, len(self.layers), condition)
        x, lengths = self.embed(frames)
        view, half = view_of(x, lengths), view_of(x[:, ::2], (lengths + 1) // 2)
        first, last, drop = self.config.reduce_at, self.config.recover_at, self.drop

        def output(x: Tensor) -> Padded:
            return self.output(x, lengths, view)

        x = run_layers(self.enter(x), self.calls(view, 0, first), taps, output, drop=drop)
        if taps.stopped:
            return taps.taken[-1], taps.taken
        saved = x
        x = run_layers(
            self.reduction(x, view.real),
            self.calls(half, first, last),
            taps,
            lambda x: output(self._recover(x, saved)),
            first=first,
            stride=2,
            drop=drop,
        )
        if taps.stopped:
            return taps.taken[-1], taps.taken
        x = run_layers(self._recover(x, saved), self.calls(view, last), taps, output, first=last, drop=drop)
        return taps.taken[-1] if taps.stopped else output(x), taps.taken

    def _recover(
        self, x: Float[Tensor, "batch half dim"], saved: Float[Tensor, "batch time dim"]
    ) -> Float[Tensor, "batch time dim"]:
        """Each frame twice, added to what was saved (paper, section 3.1.1)."""
        return saved + self.recovery(x).repeat_interleave(2, dim=1)[:, : saved.shape[1]]
