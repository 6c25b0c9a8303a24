"""Convolutional subsampling: feature frames -> a quarter (or half, or an eighth) as many vectors.

Features are normalized; then 3x3 convolutions of stride 2 over time and frequency, ReLU after each, a
projection, and a norm. No padding at the edges: an output frame sees nothing beyond its utterance, and
streaming needs no cache inside:

    factor 4      T' = ((T - 1) // 2 - 1) // 2      frame t sees the input 4 t … 4 t + 6

The norm is a batch norm: after the ReLUs all frames share a large mean, which a layer norm of each frame
keeps, so that attention layers tell frames apart only after a long plateau. On 50 minutes of yoruba with the
same AdamW (LOG.md, 2026-11-21) a Conformer had a CTC loss of 3.2 per letter after 400 steps with a layer
norm, 1.1 with a batch norm. In use it becomes a part of the projection (nn/folding.py).

Plain: Dong et al., "Speech-Transformer", ICASSP 2018. Separable: all but the first convolution are depthwise,
with a 1x1 convolution after it: Rekesh et al., "Fast Conformer", 2023, arXiv:2305.05084, section 2.1 (there
with padded edges, of time and of features, and without the norm).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.errors import ConfigError
from firstwords.nn.convolution import convolve
from firstwords.nn.input_norm import InputNorm
from firstwords.nn.linear import Linear, linear
from firstwords.nn.norms import Folded, MaskedBatchNorm
from firstwords.tensors import Padded, is_captured, is_full, real_frames, zero_padding


class SubsamplingConfig(Config):
    """Factor, width and kind of the convolutions; FastConformer: factor 8, separable, 256 channels."""

    factor: Literal[2, 4, 8] = 4
    channels: int = Field(default=64, ge=1)  # of every convolution
    separable: bool = False  # depthwise and 1x1 convolutions after the first one
    norm: Literal["batch", "layer"] = "batch"  # of the vectors that come out

    @property
    def strides(self) -> int:
        """Number of convolutions that halve the frames."""
        return self.factor.bit_length() - 1

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Feature frames -> output frames; too short an utterance gives none."""
        for _ in range(self.strides):
            lengths = ((lengths - 1) // 2).clamp(min=0)
        return lengths

    def window(self, frames: int) -> int:
        """Output frames -> feature frames that they see together; ``factor * frames`` of them are new."""
        return self.factor * (frames + 1) - 1


@final
class Subsampling(nn.Module):
    """(B, T, features) -> (B, about T / factor, dim), zero beyond each length."""

    def __init__(self, config: SubsamplingConfig, input_dim: int, dim: int) -> None:
        super().__init__()
        self.config = config
        bins = input_dim
        for _ in range(config.strides):
            bins = (bins - 1) // 2
        if bins < 1:
            raise ConfigError(
                f"{input_dim} features per frame are too few for a subsampling by {config.factor}.",
                mend=f"Use at least {config.window(1)} features, or a smaller encoder.subsampling.factor.",
            )
        channels, groups = config.channels, config.channels if config.separable else 1
        self.input_norm = InputNorm(input_dim)
        self.first = nn.Conv2d(1, channels, 3, stride=2)
        self.strided = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, groups=groups) for _ in range(config.strides - 1)
        )
        mixed = config.strides - 1 if config.separable else 0
        self.pointwise = nn.ModuleList(Linear(channels, channels) for _ in range(mixed))
        self.out = Linear(bins * channels, dim)
        self.norm = MaskedBatchNorm(dim) if config.norm == "batch" else nn.LayerNorm(dim)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Feature frames -> output frames; too short an utterance gives none."""
        return self.config.output_lengths(lengths)

    def forward(self, frames: Padded) -> Padded:
        """A batch too short for one frame gives one of zeros, of length 0."""
        x, least = self.input_norm(frames), self.config.window(1)
        if x.shape[1] < least:
            x = F.pad(x, (0, 0, 0, least - x.shape[1]))
        y, lengths = self.out(self._convolutions(x).flatten(2)), self.output_lengths(frames.lengths)
        real = None if is_full(lengths, y.shape[1]) else real_frames(lengths, y.shape[1])
        if isinstance(self.norm, MaskedBatchNorm | Folded):
            return Padded(self.norm(y, real), lengths)
        encoded = Padded(self.norm(y), lengths)
        return encoded if real is None else zero_padding(encoded)

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [("norm", "out")] if self.config.norm == "batch" else []

    def _convolutions(
        self, x: Float[Tensor, "batch time features"]
    ) -> Float[Tensor, "batch frames bins channels"]:
        # With one input channel a product with the nine values of each place is faster than a convolution.
        if is_captured():
            y = convolve(x.unsqueeze(-1), self.first).relu()
        else:
            places = x.unfold(1, 3, 2).unfold(2, 3, 2).flatten(3)
            y = linear(places, self.first.weight.flatten(1), self.first.bias).relu()
        for n, layer in enumerate(self.strided):
            y = _convolve(y, cast("nn.Conv2d", layer))
            y = self.pointwise[n](y) if self.config.separable else y
            y = y.relu()
        return y


def _convolve(
    x: Float[Tensor, "batch time bins channels"], layer: nn.Conv2d
) -> Float[Tensor, "batch frames outbins outchannels"]:
    """A strided convolution; a depthwise one that learns in bfloat16 runs in float32 on a CPU.

    There the kernel for a depthwise weight's gradient takes six times as long in bfloat16: 38 ms instead of
    7 at 4 x 499 x 39 x 64.
    """
    depthwise = layer.groups > 1 and x.device.type == "cpu"
    if depthwise and x.dtype is torch.bfloat16 and layer.weight.dtype is torch.float32:
        with torch.autocast("cpu", enabled=False):
            return convolve(x.float(), layer)
    return convolve(x, layer)
