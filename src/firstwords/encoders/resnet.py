"""Residual convolutions over time and frequency: He et al., 2016, arXiv:1512.03385.

The log-mel frames are an image with one channel. A first convolution halves both axes, stages of basic blocks
(two 3x3 convolutions and the input, figure 2) follow, and what is left of the frequency axis is laid side by
side for one linear layer.

With ``separable`` the 3x3 convolutions of the blocks are a depthwise and a pointwise one each, with nothing
between them (Howard et al., 2017, arXiv:1704.04861, section 3.1, there with norm and ReLU): an eighth of the
work.

Differs from the paper: no pooling at either end; an utterance's own end is the image's edge, batch statistics
leave padding out. Images are (B, T, F, C), channels last in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, cast, final

from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from firstwords.encoders.encoder import Encoder, EncoderConfig
from firstwords.encoders.presets import preset_of
from firstwords.nn.convolution import convolve
from firstwords.nn.frames import enter, mask_of, strided
from firstwords.nn.linear import Linear
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.tensors import Padded, zero_padding

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "nano": {"channels": (16, 32, 48, 96), "out": 192},
}


class ResNetConfig(EncoderConfig):
    """Stages of equal blocks; the defaults have about 2 M parameters at 80 mels."""

    kind: Literal["resnet"] = "resnet"
    channels: tuple[int, ...] = (24, 48, 112, 208)  # of each stage
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    # Over time, of the first convolution and of each stage's first block; over frequency: 2, 1, 2, 2 …
    strides: tuple[int, ...] = (2, 1, 2, 1, 1)
    out: int = Field(default=256, ge=1)  # width of the output
    dropout: float = Field(default=0.1, ge=0, lt=1)  # before and after the last linear layer
    separable: bool = False  # the 3x3 convolutions of the blocks

    @classmethod
    def preset(cls, name: str) -> ResNetConfig:
        """The settings called tiny (2 M parameters) or nano (0.5 M)."""
        return cls.model_validate(preset_of(name, _PRESETS, "ResNet"))

    @model_validator(mode="after")
    def sizes_fit(self) -> ResNetConfig:
        stages = len(self.channels)
        if not stages:
            raise ValueError("channels needs one number per stage, got none.")
        if len(self.blocks) != stages:
            raise ValueError(
                f"blocks = {list(self.blocks)} has {len(self.blocks)} numbers for {stages} stages."
            )
        if len(self.strides) != stages + 1:
            raise ValueError(
                f"strides = {list(self.strides)} needs {stages + 1} numbers for {stages} stages."
            )
        if min(*self.channels, *self.blocks, *self.strides) < 1:
            raise ValueError("channels, blocks and strides: every number must be at least 1.")
        return self


@final
class ImageConv(nn.Module):
    """(B, T, F, in) -> (B, T / stride, F / stride, out): a convolution and batch norm.

    Reads zeros as padding and gives zeros there.

    Args:
        strides: over time and over frequency.
    """

    def __init__(self, dim: int, out: int, kernel: int, strides: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(dim, out, kernel, strides, kernel // 2, bias=False)
        self.norm = MaskedBatchNorm(out)

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [("norm", "convolution")]

    def forward(
        self, x: Float[Tensor, "batch time bins dim"], real: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch frames outbins out"]:
        """``real`` of the output."""
        around = self.convolution.kernel_size[0] // 2
        return self.norm(convolve(x, self.convolution, (around, around)), real)


@final
class SeparableImageConv(nn.Module):
    """(B, T, F, in) -> (B, T / stride, F / stride, out): depthwise, pointwise, batch norm.

    Reads zeros as padding and gives zeros there.

    Args:
        strides: over time and over frequency.
    """

    def __init__(self, dim: int, out: int, kernel: int, strides: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, kernel, strides, kernel // 2, groups=dim, bias=False)
        self.pointwise = Linear(dim, out, bias=False)
        self.norm = MaskedBatchNorm(out)

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [("norm", "pointwise")]

    def forward(
        self, x: Float[Tensor, "batch time bins dim"], real: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch frames outbins out"]:
        """``real`` of the output."""
        around = self.depthwise.kernel_size[0] // 2
        return self.norm(self.pointwise(convolve(x, self.depthwise, (around, around))), real)


@final
class ResNetBlock(nn.Module):
    """Two 3x3 convolutions and the input; where shapes differ the input goes through a 1x1 convolution."""

    def __init__(self, dim: int, out: int, strides: tuple[int, int], *, separable: bool = False) -> None:
        super().__init__()
        self.stride = strides[0]
        layer = SeparableImageConv if separable else ImageConv
        self.first = layer(dim, out, 3, strides)
        self.second = layer(out, out, 3)
        self.shortcut = ImageConv(dim, out, 1, strides) if strides != (1, 1) or dim != out else None

    def forward(
        self, x: Float[Tensor, "batch time bins dim"], real: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch frames outbins out"]:
        y = self.second(self.first(x, real).relu(), real)
        return (y + (x if self.shortcut is None else self.shortcut(x, real))).relu()


@final
class ResNet(Encoder):
    """(B, T, input_dim) -> (B, ceil(T / product of strides), out)."""

    def __init__(self, config: ResNetConfig, input_dim: int = 80) -> None:
        super().__init__()
        self.config = config
        self.dim, self.subsampling = config.out, math.prod(config.strides)
        self.input_norm = MaskedBatchNorm(input_dim)
        width = config.channels[0]
        self.first = ImageConv(1, width, 3, (config.strides[0], 2))
        bins = -(-input_dim // 2)
        self.blocks = nn.ModuleList()
        for number, (out, count) in enumerate(zip(config.channels, config.blocks, strict=True)):
            strides = (config.strides[number + 1], 1 if number == 0 else 2)
            bins = -(-bins // strides[1])
            for repeat in range(count):
                there = (1, 1) if repeat else strides
                self.blocks.append(ResNetBlock(width, out, there, separable=config.separable))
                width = out
        self.dropout = nn.Dropout(config.dropout)
        self.out = Linear(bins * width, config.out)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        for stride in self.config.strides:
            lengths = strided(lengths, stride)
        return lengths

    def forward(self, frames: Padded) -> Padded:
        values, lengths = enter(frames)
        x = self.input_norm(values, mask_of(lengths, values.shape[1])).unsqueeze(-1)
        lengths = strided(lengths, self.config.strides[0])
        real = mask_of(lengths, _strided(x.shape[1], self.config.strides[0]))
        x = self.first(x, real).relu()
        for layer in self.blocks:
            block = cast("ResNetBlock", layer)
            if block.stride > 1:
                lengths = strided(lengths, block.stride)
                real = mask_of(lengths, _strided(x.shape[1], block.stride))
            x = block(x, real)
        encoded = Padded(self.dropout(self.out(self.dropout(x.flatten(2)))), lengths)
        return encoded if real is None else zero_padding(encoded)


def _strided(frames: int, stride: int) -> int:
    """Written without negative numbers: a graph for ONNX rounds them towards zero."""
    return (frames + stride - 1) // stride
