"""The twin as a whole: front end (N, C, T, F), stacks (T, N, C), the way down and up between frame rates."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firstwords.encoders.zipformer import ZipformerConfig
from firstwords.tensors import Padded
from reference.zipformer import regularizers
from reference.zipformer.attention import Distances
from reference.zipformer.layer import Bypass, Layer
from reference.zipformer.operators import BiasNorm, L, R, Swoosh, dropout_mask
from reference.zipformer.regularizers import Balancer, Clock, Part, Rate, ScaleGradient, Whiten


class ConvNeXt(Part):
    """(N, C, T, F) -> the same."""

    def __init__(self, clock: Clock, channels: int, in_bytes: bool) -> None:
        super().__init__(clock)
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, groups=channels, padding=3)
        self.pointwise_conv1 = nn.Conv2d(channels, 3 * channels, 1)
        self.hidden_balancer = Balancer(clock, 0.3, 1.0, 0.75, 5.0, channel=1)
        self.activation = Swoosh(L, in_bytes)
        self.pointwise_conv2 = nn.Conv2d(3 * channels, channels, 1)
        self.out_balancer = Balancer(clock, 0.4, 0.6, 1.0, 6.0, channel=1)
        self.out_whiten = Whiten(clock, 5.0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        y = self.hidden_balancer(self.pointwise_conv1(self.depthwise_conv(x)))
        y = self.pointwise_conv2(self.activation(y))
        if self.training:
            kept = regularizers.keep_rows(x.shape[0], self.now(Rate((0, 0.2), (20000, 0.015))))
            y = y if kept is None else y * kept.reshape(-1, 1, 1, 1)
        x = self.out_balancer(x + y)
        return self.out_whiten(x.transpose(1, 3)).transpose(1, 3)


class ConvEmbed(Part):
    """(N, T, mels) -> (T', N, dim), T' = (T - 7) // 2."""

    def __init__(
        self, clock: Clock, mels: int, dim: int, channels: tuple[int, int, int], dropout: Rate, in_bytes: bool
    ) -> None:
        super().__init__(clock)
        self.dropout = dropout
        first, second, third = channels
        self.conv = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=(0, 1)),
            ScaleGradient(0.2),
            Balancer(clock, max_abs=1.0, channel=1),
            Swoosh(R, in_bytes),
            nn.Conv2d(first, second, 3, stride=2),
            Balancer(clock, max_abs=4.0, channel=1),
            Swoosh(R, in_bytes),
            nn.Conv2d(second, third, 3, stride=(1, 2)),
            Balancer(clock, max_abs=4.0, channel=1),
            Swoosh(R, in_bytes),
        )
        self.convnext = ConvNeXt(clock, third, in_bytes)
        self.out = nn.Linear(third * (((mels - 1) // 2 - 1) // 2), dim)
        self.out_whiten = Whiten(clock, Rate((0, 4.0), (20000, 8.0), default=4.0), 0.02)
        self.out_norm = BiasNorm(clock, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convnext(self.conv(x.unsqueeze(1)))
        x = self.out(x.transpose(1, 2).flatten(2))
        x = self.out_norm(self.out_whiten(x)).transpose(0, 1)
        mask = dropout_mask(x, self.now(self.dropout), self.training)
        return x if mask is None else x * mask


class Downsample(nn.Module):
    """(T, N, C) -> (ceil(T / factor), N, C): a learned mean of each group; the last frame fills up."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.bias = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor) -> Tensor:
        missing = -x.shape[0] % self.factor
        if missing:
            x = torch.cat([x, x[-1:].expand(missing, -1, -1)])
        groups = x.reshape(-1, self.factor, *x.shape[1:])
        return (groups * self.bias.softmax(dim=0)[:, None, None]).sum(dim=1)


class Stack(nn.Module):
    def __init__(self, clock: Clock, config: ZipformerConfig, i: int, dropout: Rate) -> None:
        super().__init__()
        self.factor, layers = config.downsampling[i], config.layers[i]
        begin = config.warmup * (i + 1) / (len(config.dims) + 1)
        share = config.warmup / (len(config.dims) + 1) / layers
        last = 0.035 * self.factor**0.5
        skips = [
            Rate((begin + n * share, 0.5), (begin + (n + 1) * share, last), default=0.0)
            for n in range(layers)
        ]
        self.layers = nn.ModuleList(Layer(clock, config, i, dropout, skip) for skip in skips)
        self.distances = Distances(config.position_dim)
        self.downsample = Downsample(self.factor) if self.factor > 1 else None
        self.out_combiner = Bypass(clock, config.dims[i]) if self.factor > 1 else None

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        hidden: Tensor | None,
        padding: Tensor | None,
        chunk: int,
    ) -> Tensor:
        """Masks at the encoder's rate."""
        step = self.factor
        hidden = None if hidden is None else hidden[::step, ::step]
        padding = None if padding is None else padding[:, ::step]
        x = x if mask is None else x * mask
        before = x
        x = x if self.downsample is None else self.downsample(x)
        distances = self.distances(x)
        for layer in self.layers:
            x = layer(x, distances, hidden, padding, chunk // step)
            x = x if mask is None else x * mask
        if self.out_combiner is None:
            return x
        x = x.unsqueeze(1).expand(-1, step, -1, -1).flatten(0, 1)[: before.shape[0]]
        return self.out_combiner(before, x)


class EagerZipformer(nn.Module):
    """Log-mel frames (N, T, mels) -> (N, ((T - 7) // 2 + 1) // 2, widest dim); weights come from outside.

    Args:
        config: the product's sizes.
        in_bytes: keep the front end's activation derivatives in eight bits, as the published kernels do:
            less memory, noisy gradients, slower here.
    """

    def __init__(self, config: ZipformerConfig, input_dim: int = 80, *, in_bytes: bool = False) -> None:
        super().__init__()
        self.config, self.clock = config, Clock()
        self.dim = max(config.dims)
        dropout = Rate((0, config.dropout[0]), (20000, config.dropout[1]))
        self.embed = ConvEmbed(
            self.clock, input_dim, config.dims[0], config.embed_channels, dropout, in_bytes
        )
        self.stacks = nn.ModuleList(Stack(self.clock, config, i, dropout) for i in range(len(config.dims)))
        self.downsample_output = Downsample(config.output_downsampling)

    def set_step(self, count: float) -> None:
        """Tell every schedule the batch count."""
        self.clock.count = count

    def forward(self, frames: Padded, *, chunk: int | None = None, left: int | None = None) -> Padded:
        """``chunk`` and ``left`` in frames at 50 Hz; drawn in training where they are not given."""
        chunk, left = self._context(chunk, left)
        x = self.embed(frames.values)
        time, rows, _ = x.shape
        lengths = (frames.lengths - 7) // 2
        padding = torch.arange(time)[None, :] >= lengths[:, None]
        hidden = _hidden(time, chunk, left) if chunk > 0 else None
        masks = self._feature_masks(rows)
        outputs: list[Tensor] = []
        for i, stack in enumerate(self.stacks):
            dim = self.config.dims[i]
            x = x[:, :, :dim] if x.shape[2] >= dim else F.pad(x, (0, dim - x.shape[2]))
            x = cast("Stack", stack)(x, masks[i], hidden, padding, chunk)
            outputs.append(x)
        whole = outputs[-1]
        for output in reversed(outputs[:-1]):
            if output.shape[2] > whole.shape[2]:
                whole = torch.cat([whole, output[:, :, whole.shape[2] :]], dim=2)
        factor = self.config.output_downsampling
        return Padded(self.downsample_output(whole).transpose(0, 1), (lengths + factor - 1) // factor)

    def _context(self, chunk: int | None, left: int | None) -> tuple[int, int]:
        if not self.config.causal:
            return -1, -1
        if chunk is None and self.training:
            chunk = _pick(self.config.chunks)
            if chunk > 0 and left is None:
                left = _pick(self.config.left_contexts)
        return -1 if chunk is None else chunk, -1 if left is None else left

    def _feature_masks(self, rows: int) -> list[Tensor | None]:
        if not self.training:
            return [None] * len(self.stacks)
        first = (torch.rand(1, rows, 1) < 0.875).float()
        second = first * (torch.rand(1, rows, 1) < 0.875).float()
        masks: list[Tensor | None] = []
        for dim, unmasked in zip(self.config.dims, self.config.unmasked_dims, strict=True):
            middle = unmasked + (dim - unmasked) // 2
            mask = torch.ones(1, rows, dim)
            mask[:, :, unmasked:middle] = first
            mask[:, :, middle:] = second
            masks.append(mask)
        return masks


def _hidden(time: int, chunk: int, left: int) -> Tensor:
    """(T, S), True where the source's chunk comes later, or too long before."""
    number = torch.arange(time) // chunk
    ahead = number[None, :] - number[:, None]
    return (ahead > 0) if left < 0 else (ahead > 0) | (ahead < -max(1, left // chunk))


def _pick(choices: tuple[int, ...]) -> int:
    return choices[min(int(regularizers.draw() * len(choices)), len(choices) - 1)]
