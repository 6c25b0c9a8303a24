"""QuartzNet: Kriman et al., 2020, arXiv:1910.10261: a deep stack of time-channel separable convolutions.

A separable convolution is a depthwise one over time, then a pointwise one over channels, batch normalization
and ReLU. Blocks repeat it R times and add their input, by way of a pointwise convolution of its own, before
the last ReLU (figure 1).

Differs from the paper: the rate falls by ``subsampling`` (there 2) in as many separable convolutions with
stride 2 as it takes; features are normalized first; batch statistics leave padding out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast, final

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
    "nano": {
        "channels": (112, 120, 144, 144),
        "kernels": (17, 21, 25, 31),
        "blocks": (1, 1, 1, 1),
        "last": (192, 224),
    },
}


class QuartzNetConfig(EncoderConfig):
    """Groups of equal blocks; the defaults have about 2 M parameters at 80 mels."""

    kind: Literal["quartznet"] = "quartznet"
    subsampling: Literal[1, 2, 4, 8] = 4
    first_kernel: int = Field(default=11, ge=1)  # of the strided convolutions, in frames they read; odd
    channels: tuple[int, ...] = (160, 160, 176, 208, 208)  # of the blocks of each group
    kernels: tuple[int, ...] = (17, 19, 25, 31, 37)  # in frames after subsampling; odd
    blocks: tuple[int, ...] = (2, 2, 2, 2, 2)  # of each group
    repeats: int = Field(default=4, ge=1)  # separable convolutions of a block: R of the paper
    last: tuple[int, int] = (320, 384)  # channels of the dilated convolution after the blocks, of the output
    last_kernel: int = Field(default=43, ge=1)  # with dilation 2; odd
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @classmethod
    def preset(cls, name: str) -> QuartzNetConfig:
        """The settings called tiny (2 M parameters) or nano (0.5 M)."""
        return cls.model_validate(preset_of(name, _PRESETS, "QuartzNet"))

    @model_validator(mode="after")
    def sizes_fit(self) -> QuartzNetConfig:
        groups = len(self.channels)
        for name in ("kernels", "blocks"):
            value: tuple[int, ...] = getattr(self, name)
            if len(value) != groups:
                raise ValueError(f"{name} = {list(value)} has {len(value)} numbers for {groups} groups.")
        if not groups or min(*self.channels, *self.kernels, *self.blocks, *self.last) < 1:
            raise ValueError("channels, kernels, blocks and last need numbers of at least 1.")
        if any(kernel % 2 == 0 for kernel in (*self.kernels, self.first_kernel, self.last_kernel)):
            raise ValueError("every kernel must be odd.")
        return self


@final
class SeparableConv(nn.Module):
    """(B, T, in) -> (B, T / stride, out): depthwise over time, pointwise over channels, batch norm.

    Reads zeros as padding and gives zeros there.
    """

    def __init__(self, dim: int, out: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = DepthwiseConv(dim, kernel, stride=stride, dilation=dilation)
        self.pointwise = Linear(dim, out, bias=False)
        self.norm = MaskedBatchNorm(out)

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [("norm", "pointwise")]

    def forward(
        self, x: Float[Tensor, "batch time dim"], real: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch frames out"]:
        return self.norm(self.pointwise(self.depthwise(x)), real)


@final
class QuartzNetBlock(nn.Module):
    """(B, T, in) -> (B, T, out): R separable convolutions, and the input through a pointwise one."""

    def __init__(self, dim: int, out: int, kernel: int, repeats: int, dropout: float) -> None:
        super().__init__()
        widths = [dim] + [out] * repeats
        self.convolutions = nn.ModuleList(SeparableConv(widths[i], out, kernel) for i in range(repeats))
        self.shortcut = Linear(dim, out, bias=False)
        self.shortcut_norm = MaskedBatchNorm(out)
        self.dropout = nn.Dropout(dropout)

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [("shortcut_norm", "shortcut")]

    def forward(
        self, x: Float[Tensor, "batch time dim"], real: Bool[Tensor, "batch time"] | None
    ) -> Float[Tensor, "batch time out"]:
        y = x
        for number, convolution in enumerate(self.convolutions):
            if number:
                y = self.dropout(y.relu())
            y = convolution(y, real)
        return self.dropout((y + self.shortcut_norm(self.shortcut(x), real)).relu())


@final
class QuartzNet(Encoder):
    """(B, T, input_dim) -> (B, ceil(T / subsampling), last[1])."""

    def __init__(self, config: QuartzNetConfig, input_dim: int = 80) -> None:
        super().__init__()
        self.config = config
        self.dim, self.subsampling = config.last[1], config.subsampling
        self.input_norm = MaskedBatchNorm(input_dim)
        width = config.channels[0]
        strides = [2] * (config.subsampling.bit_length() - 1) or [1]
        widths = [input_dim] + [width] * len(strides)
        self.first = nn.ModuleList(
            SeparableConv(widths[i], width, config.first_kernel, stride=stride)
            for i, stride in enumerate(strides)
        )
        self.blocks = nn.ModuleList()
        for out, kernel, count in zip(config.channels, config.kernels, config.blocks, strict=True):
            for _ in range(count):
                self.blocks.append(QuartzNetBlock(width, out, kernel, config.repeats, config.dropout))
                width = out
        self.wide = SeparableConv(width, config.last[0], config.last_kernel, dilation=2)
        self.out = Linear(config.last[0], config.last[1], bias=False)
        self.out_norm = MaskedBatchNorm(config.last[1])
        self.dropout = nn.Dropout(config.dropout)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return strided(lengths, self.subsampling)

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [("out_norm", "out")]

    def forward(self, frames: Padded) -> Padded:
        x, lengths = enter(frames)
        real = mask_of(lengths, x.shape[1])
        x = self.input_norm(x, real)
        for layer in self.first:
            convolution = cast("SeparableConv", layer)
            lengths = strided(lengths, convolution.stride)
            stride = convolution.stride
            real = mask_of(lengths, (x.shape[1] + stride - 1) // stride)
            x = convolution(x, real).relu()
        for block in self.blocks:
            x = block(x, real)
        x = self.dropout(self.wide(x, real).relu())
        return Padded(self.out_norm(self.out(x), real).relu(), lengths)
