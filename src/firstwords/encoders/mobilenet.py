"""Inverted bottlenecks over time: MobileNetV2, Sandler et al., 2018, arXiv:1801.04381, in one dimension.

A block widens the channels by a pointwise convolution, filters each over time by a depthwise one, and comes
back to few channels without an activation (their figure 3b); it adds its input where shapes agree. The gate
over channels is that of MobileNetV3 (Howard et al., 2019, arXiv:1905.02244, section 5): a squeeze-and-excite
(arXiv:1709.01507) whose mean is over the real frames of the utterance; so is ContextNet's (arXiv:2005.03191).

Differs from the papers: one axis, time, since the mel bins are the channels of the input; kernels are longer;
hard-swish everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, cast, final

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from firstwords.encoders.encoder import Encoder, EncoderConfig
from firstwords.encoders.presets import preset_of
from firstwords.nn.depthwise import DepthwiseConv
from firstwords.nn.frames import enter, mask_of, strided
from firstwords.nn.linear import Linear
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.tensors import Padded

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "nano": {"channels": (56, 72, 88, 96), "blocks": (1, 2, 2, 2), "expansion": 3, "out": 224},
}


class MobileNetConfig(EncoderConfig):
    """Stages of equal blocks; the defaults have about 2 M parameters at 80 mels."""

    kind: Literal["mobilenet"] = "mobilenet"
    channels: tuple[int, ...] = (64, 88, 104, 120)  # between the blocks of each stage
    blocks: tuple[int, ...] = (2, 3, 4, 4)
    kernels: tuple[int, ...] = (9, 13, 17, 21)  # in frames that the stage's later blocks see; odd
    strides: tuple[int, ...] = (2, 2, 1, 1)  # of each stage's first block
    expansion: int = Field(default=4, ge=1)  # how much wider the inside of a block is
    squeeze: bool = True  # gate each channel by the utterance's mean
    out: int = Field(default=384, ge=1)  # channels of the last pointwise convolution
    dropout: float = Field(default=0.1, ge=0, lt=1)  # of what a block adds

    @classmethod
    def preset(cls, name: str) -> MobileNetConfig:
        """The settings called tiny (2 M parameters) or nano (0.5 M)."""
        return cls.model_validate(preset_of(name, _PRESETS, "MobileNet"))

    @model_validator(mode="after")
    def sizes_fit(self) -> MobileNetConfig:
        stages = len(self.channels)
        if not stages:
            raise ValueError("channels needs one number per stage, got none.")
        for name in ("channels", "blocks", "kernels", "strides"):
            value: tuple[int, ...] = getattr(self, name)
            if len(value) != stages:
                raise ValueError(f"{name} = {list(value)} has {len(value)} numbers for {stages} stages.")
            if min(value) < 1:
                raise ValueError(f"{name} = {list(value)}: every number must be at least 1.")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels = {list(self.kernels)}: every kernel must be odd.")
        return self


@final
class SqueezeExcite(nn.Module):
    """(B, T, C) -> (B, T, C): each channel times a number between 0 and 1 from the utterance's means.

    Reads zeros as padding.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = Linear(channels, channels // 4)
        self.excite = Linear(channels // 4, channels)

    def forward(
        self, x: Float[Tensor, "batch time channels"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch time channels"]:
        mean = x.sum(dim=1, dtype=self.squeeze.weight.dtype) / lengths.clamp(min=1).unsqueeze(1)
        gate = F.hardsigmoid(self.excite(self.squeeze(mean).relu()))
        return x * gate.to(x.dtype).unsqueeze(1)


@final
class InvertedBottleneck(nn.Module):
    """(B, T, in) -> (B, T / stride, out): wide inside, narrow outside. Reads and gives zeros as padding."""

    def __init__(self, dim: int, out: int, kernel: int, stride: int, config: MobileNetConfig) -> None:
        super().__init__()
        inside = dim * config.expansion
        self.stride, self.adds_input = stride, stride == 1 and dim == out
        self.widen = Linear(dim, inside, bias=False)
        self.widen_norm = MaskedBatchNorm(inside)
        self.depthwise = DepthwiseConv(inside, kernel, stride=stride)
        self.depthwise_norm = MaskedBatchNorm(inside)
        self.gate = SqueezeExcite(inside) if config.squeeze else None
        self.narrow = Linear(inside, out, bias=False)
        self.narrow_norm = MaskedBatchNorm(out)
        self.dropout = nn.Dropout(config.dropout)

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [(f"{name}_norm", name) for name in ("widen", "depthwise", "narrow")]

    def forward(
        self, x: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frames out"]:
        """``lengths`` of x."""
        real, after, shorter = _masks(lengths, x.shape[1], self.stride)
        y = F.hardswish(self.widen_norm(self.widen(x), real))
        y = F.hardswish(self.depthwise_norm(self.depthwise(y), after))
        if self.gate is not None:
            y = self.gate(y, shorter)
        y = self.dropout(self.narrow_norm(self.narrow(y), after))
        return x + y if self.adds_input else y


def _masks(
    lengths: Tensor, time: int, stride: int
) -> tuple[Bool[Tensor, "batch time"] | None, Bool[Tensor, "batch frames"] | None, Tensor]:
    """Real frames before and after a stride, and the lengths after it."""
    real = mask_of(lengths, time)
    if stride == 1:
        return real, real, lengths
    shorter = strided(lengths, stride)
    return real, mask_of(shorter, (time + stride - 1) // stride), shorter


@final
class MobileNet(Encoder):
    """(B, T, input_dim) -> (B, ceil(T / product of strides), out)."""

    def __init__(self, config: MobileNetConfig, input_dim: int = 80) -> None:
        super().__init__()
        self.config = config
        self.dim, self.subsampling = config.out, math.prod(config.strides)
        self.input_norm = MaskedBatchNorm(input_dim)
        width = config.channels[0]
        self.first = Linear(input_dim, width, bias=False)
        self.first_norm = MaskedBatchNorm(width)
        self.blocks = nn.ModuleList()
        stages = zip(config.channels, config.blocks, config.kernels, config.strides, strict=True)
        for out, count, kernel, stride in stages:
            for number in range(count):
                step = stride if number == 0 else 1
                self.blocks.append(InvertedBottleneck(width, out, kernel, step, config))
                width = out
        self.last = Linear(width, config.out, bias=False)
        self.last_norm = MaskedBatchNorm(config.out)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        for stride in self.config.strides:
            lengths = strided(lengths, stride)
        return lengths

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [("first_norm", "first"), ("last_norm", "last")]

    def forward(self, frames: Padded) -> Padded:
        x, lengths = enter(frames)
        real = mask_of(lengths, x.shape[1])
        x = F.hardswish(self.first_norm(self.first(self.input_norm(x, real)), real))
        for layer in self.blocks:
            block = cast("InvertedBottleneck", layer)
            x, lengths = block(x, lengths), strided(lengths, block.stride)
        x = F.hardswish(self.last_norm(self.last(x), mask_of(lengths, x.shape[1])))
        return Padded(x, lengths)
