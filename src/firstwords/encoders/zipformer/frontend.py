"""The convolutional front end of the Zipformer, 100 Hz -> 50 Hz (arXiv:2310.11230, section 3.1).

Everything runs with channels last in memory: as plain tensors (B, T, F, C), F frequency bins, which the 2-D
convolutions read as channels-last images without a copy, so that the 1x1 convolutions are plain matrix
products (as convolutions they fall into a slow CPU kernel).
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from firstwords.encoders.zipformer.activations import (
    BiasNorm,
    dropout_over_time,
    initialize_scaled,
    swoosh_l,
    swoosh_r,
)
from firstwords.encoders.zipformer.constraints import Balancer, Whiten, scale_gradient
from firstwords.encoders.zipformer.layer import keep_utterances
from firstwords.encoders.zipformer.pieces import by_rows
from firstwords.encoders.zipformer.schedules import Schedule, Scheduled
from firstwords.nn.convolution import convolve
from firstwords.nn.linear import Linear, as_multiplied, linear
from firstwords.tensors import is_captured, real_frames

LOOK_AHEAD = 3  # frames at 50 Hz that the 7x7 convolution sees to either side


class _DepthwiseConvolve(torch.autograd.Function):
    """A depthwise 2-D convolution on a CPU with a backward pass that is not slow.

    torch's own takes 8 (float32) to 20 times (bfloat16) its forward pass, since its kernel for the weight's
    gradient is poor in bfloat16 and runs again for the bias. Here the input's gradient is a forward pass
    with the kernel turned round, the bias is a sum, and in bfloat16 the weight's gradient is one convolution
    over time for each column of the kernel: 38 -> 16 ms at 8 x 496 x 19 x 24.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        with torch.autocast(x.device.type, enabled=False):
            return _depthwise(x, weight.to(x.dtype), bias.to(x.dtype), padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, weight), grad, padding = ctx.saved_tensors, grads[0].contiguous(), ctx.padding
        turned = weight.to(x.dtype).flip(2, 3)
        grad_x = _depthwise(grad, turned, None, weight.shape[2] - 1 - padding)
        make = _weight_gradient if x.dtype is torch.bfloat16 else _weight_gradient_whole
        return grad_x, make(x, grad, weight, padding), grad.sum(dim=(0, 1, 2), dtype=weight.dtype), None


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    weight = weight.contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=x.shape[3])
    return y.permute(0, 2, 3, 1)


def _correlate(x: Tensor, grad: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    channels = weight.shape[0]
    one = [1, 1]
    only_weight = [False, True, False]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, one, padding, one, False, [0, 0], channels, only_weight
    )[1]


def _weight_gradient_whole(x: Tensor, grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    return _correlate(x.permute(0, 3, 1, 2), grad.permute(0, 3, 1, 2), weight.to(x.dtype), [padding] * 2)


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    batch, time, bins, channels = grad.shape
    kernel = weight.shape[2]
    padded = F.pad(x, (0, 0, padding, padding))
    over_time = grad.reshape(batch, time, 1, bins * channels).permute(0, 3, 1, 2)
    shape = weight.new_empty(bins * channels, 1, kernel, 1, dtype=x.dtype)
    columns: list[Tensor] = []
    for shift in range(kernel):
        source = padded[:, :, shift : shift + bins].reshape(batch, -1, 1, bins * channels)
        column = _correlate(source.permute(0, 3, 1, 2), over_time, shape, [padding, 0])
        columns.append(column.view(bins, channels, kernel).sum(dim=0, dtype=weight.dtype))
    return torch.stack(columns, dim=2).unsqueeze(1)


class ConvNeXt(Scheduled):
    """(B, T, F, C) -> the same shape: a residual 7x7 depthwise convolution (arXiv:2201.03545, adapted)."""

    def __init__(self, channels: int, skip: Schedule | float | None = None) -> None:
        super().__init__()
        default = Schedule((0.0, 0.2), (20000.0, 0.015))
        self.skip = default if skip is None else skip
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, groups=channels, padding=LOOK_AHEAD)
        self.pointwise_conv1 = nn.Conv2d(channels, 3 * channels, 1)
        self.hidden_balancer = Balancer(0.3, 1.0, 0.75, 5.0)
        self.pointwise_conv2 = nn.Conv2d(3 * channels, channels, 1)
        initialize_scaled(self.pointwise_conv2, 0.01)
        self.out_balancer = Balancer(0.4, 0.6, 1.0, 6.0)
        self.out_whiten = Whiten(5.0, grad_scale=0.01)

    def forward(
        self,
        x: Float[Tensor, "batch time bins channels"],
        real: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time bins channels"]:
        """Frames that are not ``real`` count as zero, as beyond the ends of the batch."""
        if real is not None:
            x = x.masked_fill(~real[:, :, None, None], 0.0)
        branch = self._branch(self._depthwise(x))
        if self.training:
            kept = keep_utterances(branch.flatten(2), self.now(self.skip))
            branch = branch if kept is None else branch * kept.unsqueeze(-1)
        return self.out_whiten(self.out_balancer(x + branch))

    def step(
        self,
        x: Float[Tensor, "batch ahead bins channels"],
        cache: Float[Tensor, "batch 3 bins channels"],
    ) -> tuple[Float[Tensor, "batch chunk bins channels"], Float[Tensor, "batch 3 bins channels"]]:
        """A chunk plus 3 frames of look-ahead, and the 3 frames before it -> the chunk, next cache."""
        chunk = x.shape[1] - LOOK_AHEAD
        joined = torch.cat((cache, x), dim=1)
        branch = self._branch(convolve(joined, self.depthwise_conv, (0, LOOK_AHEAD)))
        return x[:, :chunk] + branch, joined[:, chunk : chunk + LOOK_AHEAD]

    def _depthwise(self, x: Tensor) -> Tensor:
        layer = self.depthwise_conv
        if x.device.type == "cpu" and torch.is_grad_enabled() and not is_captured():
            return cast("Tensor", _DepthwiseConvolve.apply(x, layer.weight, layer.bias, LOOK_AHEAD))
        return convolve(x, layer, (LOOK_AHEAD, LOOK_AHEAD))

    def _branch(self, x: Tensor) -> Tensor:
        widen = as_multiplied(self.pointwise_conv1)
        back = as_multiplied(self.pointwise_conv2)

        def mix(rows: Tensor) -> Tensor:
            return linear(swoosh_l(self.hidden_balancer(linear(rows, *widen))), *back)

        return by_rows(mix, x, self.pointwise_conv1.out_channels)


class ConvEmbed(Scheduled):
    """(B, T, mels) -> (B, (T - 7) // 2, dim)."""

    def __init__(
        self, mels: int, dim: int, channels: tuple[int, int, int], dropout: Schedule | float
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.dropout = dropout
        # The places of the convolutions among the other steps are part of published parameter names.
        self.conv = nn.ModuleDict(
            {
                "0": nn.Conv2d(1, first, 3, padding=(0, 1)),
                "4": nn.Conv2d(first, second, 3, stride=2),
                "7": nn.Conv2d(second, third, 3, stride=(1, 2)),
            }
        )
        self.balancers = nn.ModuleList(Balancer(max_abs=limit) for limit in (1.0, 4.0, 4.0))
        self.convnext = ConvNeXt(third)
        self.channels, self.bins = third, ((mels - 1) // 2 - 1) // 2
        self.out = Linear(third * self.bins, dim)
        limit = Schedule((0.0, 4.0), (20000.0, 8.0), default=4.0)
        self.out_whiten = Whiten(limit, grad_scale=0.02)
        self.out_norm = BiasNorm(dim)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames at 100 Hz -> frames at 50 Hz; too short an utterance gives none."""
        return ((lengths - 7) // 2).clamp(min=0)

    def forward(
        self,
        x: Float[Tensor, "batch time mels"],
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch frames dim"]:
        """With ``lengths`` (of x) the frames near an utterance's end equal those of the utterance alone."""
        x = self._convolutions(x)
        real = None if lengths is None else real_frames(self.output_lengths(lengths), x.shape[1])
        x = self.out_norm(self.out_whiten(self._project(self.convnext(x, real))))
        return dropout_over_time(x, self.now(self.dropout), training=self.training)

    def step(
        self,
        x: Float[Tensor, "batch window mels"],
        cache: Float[Tensor, "batch 3 bins channels"],
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch chunk dim"], Float[Tensor, "batch 3 bins channels"]]:
        """2 * chunk + 13 frames and the cache -> chunk frames at 50 Hz and the next cache.

        With ``lengths`` (of x) below that, frames beyond count as zero, as beyond the end of an utterance.
        """
        x = self._convolutions(x)
        if lengths is not None:
            real = real_frames(self.output_lengths(lengths), x.shape[1])
            x = x.masked_fill(~real[:, :, None, None], 0.0)
        x, cache = self.convnext.step(x, cache)
        return self.out_norm(self._project(x)), cache

    def _convolutions(self, x: Tensor) -> Tensor:
        x = convolve(x.unsqueeze(-1), self.conv["0"], (0, 1))  # pyright: ignore[reportArgumentType]
        x = scale_gradient(x, 0.2, training=self.training)
        x = swoosh_r(self.balancers[0](x))
        x = convolve(x, self.conv["4"])  # pyright: ignore[reportArgumentType]
        x = swoosh_r(self.balancers[1](x))
        x = convolve(x, self.conv["7"])  # pyright: ignore[reportArgumentType]
        return swoosh_r(self.balancers[2](x))

    def _project(self, x: Tensor) -> Tensor:
        # The weight's columns run channel by channel, x bin by bin: turning the weight is the smaller copy.
        weight = self.out.weight.unflatten(1, (self.channels, self.bins)).transpose(1, 2).flatten(1)
        wide = x.reshape(x.shape[0], x.shape[1], self.bins * self.channels)
        return linear(wide, weight, self.out.bias)
