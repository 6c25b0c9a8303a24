"""A stack of layers at one frame rate, with the way down to that rate and back up (arXiv:2310.11230, 3.1)."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from firstwords.encoders.layers import present
from firstwords.encoders.zipformer.attention import RelativePositions
from firstwords.encoders.zipformer.layer import Bypass, LayerCache, LayerShape, View, ZipformerLayer
from firstwords.encoders.zipformer.schedules import Schedule
from firstwords.tensors import is_captured


class _Combine(torch.autograd.Function):
    """(B, G, F, D) and F weights -> weighted sums (B, G, D), one pass over x (an einsum copies it first)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, weights)
        weights = weights.to(x.dtype)
        total = x[:, :, 0] * weights[0]
        for place in range(1, x.shape[2]):
            total.addcmul_(x[:, :, place], weights[place])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, weights), grad = ctx.saved_tensors, grads[0]
        parts = [(x[:, :, place] * grad).sum(dtype=weights.dtype) for place in range(x.shape[2])]
        return grad.unsqueeze(2) * weights.to(x.dtype)[:, None], torch.stack(parts)


class Downsample(nn.Module):
    """(B, T, D) -> (B, ceil(T / factor), D): a learned weighted mean of each group of frames.

    A group that is not full repeats the last frame:  a b c d e  ->  (a b) (c d) (e e)
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.bias = nn.Parameter(torch.zeros(factor))

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        lengths: Int[Tensor, " batch"] | None = None,
        *,
        even: bool = False,
    ) -> Float[Tensor, "batch groups dim"]:
        """With ``lengths`` each utterance repeats its own last frame, without them the batch's.

        ``even``: the time is known to be a multiple of the factor, whatever graph is captured.
        """
        time = x.shape[1]
        groups = (time + self.factor - 1) // self.factor
        if lengths is not None:
            x = repeat_last(x, lengths)
        if not even and (is_captured() or groups * self.factor != time):
            x = torch.cat((x, x[:, -1:].expand(-1, groups * self.factor - time, -1)), dim=1)
        grouped = x.reshape(x.shape[0], groups, self.factor, int(x.shape[2]))
        weights = self.bias.softmax(dim=0)
        if is_captured():
            return (grouped * weights[:, None]).sum(dim=2)
        return cast("Tensor", _Combine.apply(grouped, weights))


def repeat_last(
    x: Float[Tensor, "batch time dim"], lengths: Int[Tensor, " batch"]
) -> Float[Tensor, "batch time dim"]:
    """Everything beyond each length becomes that utterance's last frame (its first one where it has none)."""
    time = torch.arange(x.shape[1], device=x.device)
    last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, x.shape[2])
    return torch.where((time[None, :] < lengths[:, None])[:, :, None], x, x.gather(1, last))


def upsample(x: Float[Tensor, "batch groups dim"], factor: int, time: int) -> Float[Tensor, "batch time dim"]:
    """Each frame ``factor`` times, cut to ``time``."""
    return x.unsqueeze(2).expand(-1, -1, factor, -1).flatten(1, 2)[:, :time]


def change_width(x: Float[Tensor, "batch time dim"], dim: int) -> Float[Tensor, "batch time width"]:
    """The first ``dim`` channels, or zero channels appended."""
    width = int(x.shape[2])
    if width == dim:
        return x
    return x[:, :, :dim] if width > dim else F.pad(x, (0, dim - width))


def warm_up(begin: float, end: float, layers: int, factor: int) -> list[Schedule]:
    """Skip rates of the layers' bypasses: each layer comes in during its own share of [begin, end]."""
    share = (end - begin) / layers
    final = 0.035 * factor**0.5
    return [
        Schedule((begin + i * share, 0.5), (begin + (i + 1) * share, final), default=0.0)
        for i in range(layers)
    ]


class Stack(nn.Module):
    """(B, T, D) at the encoder's rate -> the same shape; the layers run at 1 / factor of it."""

    def __init__(
        self, shape: LayerShape, layers: int, factor: int = 1, warmup: tuple[float, float] = (0.0, 4000.0)
    ) -> None:
        super().__init__()
        self.factor = factor
        self.positions = RelativePositions(shape.position_dim)
        self.layers = nn.ModuleList(ZipformerLayer(shape) for _ in range(layers))
        for layer, skip in zip(self.layers, warm_up(*warmup, layers, factor), strict=True):
            cast("ZipformerLayer", layer).bypass.skip = skip
        self.downsample = Downsample(factor) if factor > 1 else None
        self.out_combiner = Bypass(shape.dim) if factor > 1 else None

    @property
    def present(self) -> list[ZipformerLayer]:
        """The layers that were not cut out."""
        return cast("list[ZipformerLayer]", present(self.layers))

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        view: View,
        repeat: Int[Tensor, " batch"] | None = None,
        feature_mask: Float[Tensor, "batch 1 dim"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """``view`` at the stack's own rate; ``repeat``: lengths at the encoder's rate for ``Downsample``."""
        if feature_mask is not None:
            x = x * feature_mask
        before = x
        if self.downsample is not None:
            x = self.downsample(x, repeat)
        positions = self.positions(x.shape[1], 0, x)
        for layer in self.layers:
            x = layer(x, positions, view)
            if feature_mask is not None:
                x = x * feature_mask
        if self.out_combiner is None:
            return x
        return self.out_combiner(before, upsample(x, self.factor, before.shape[1]))

    def step(
        self,
        x: Float[Tensor, "batch chunk dim"],
        caches: tuple[LayerCache, ...],
        hidden: Bool[Tensor, "batch sources"] | None,
        repeat: Int[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch chunk dim"], tuple[LayerCache, ...]]:
        """One chunk and ``repeat`` at the encoder's rate; caches and ``hidden`` at this stack's own rate."""
        before = x
        if self.downsample is not None:
            x = self.downsample(x, repeat, even=True)
        positions = self.positions(x.shape[1], caches[0].keys.shape[1], x)
        after: list[LayerCache] = []
        for layer, cache in zip(self.present, caches, strict=True):
            x, cache = layer.step(x, positions, cache, hidden)
            after.append(cache)
        if self.out_combiner is not None:
            x = self.out_combiner(before, upsample(x, self.factor, before.shape[1]))
        return x, tuple(after)
