"""Dropout that costs little on a CPU, and whole layers that are dropped.

Srivastava et al., "Dropout", JMLR 2014; stochastic depth: Huang et al., 2016, arXiv:1603.09382.
"""

from __future__ import annotations

from typing import Any, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from firstwords.tensors import is_captured

_LEAST = torch.iinfo(torch.int64).min


@final
class Dropout(nn.Module):
    """In training each value is zero with this probability, and the others grow to keep the mean.

    On a CPU torch draws a float for each value, which takes as long as a linear layer: 11 ms for two million
    values. Here every value gets one random byte, 0.7 ms for all, so the probability is a multiple of 1/256.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.probability == 0:
            return x
        if x.device.type != "cpu" or is_captured():
            return F.dropout(x, self.probability)
        return cast("Tensor", _Drop.apply(x, round(256 * self.probability)))


class _Drop(torch.autograd.Function):
    """Zero where a random byte is below ``dropped``; the mask is one byte per value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(_LEAST, None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        ctx.scale = 256 / (256 - dropped) if dropped < 256 else 0.0
        ctx.save_for_backward(kept)
        return torch.ops.aten.native_dropout_backward(x.contiguous(), kept, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (kept,) = ctx.saved_tensors
        return torch.ops.aten.native_dropout_backward(grads[0].contiguous(), kept, ctx.scale), None


def skip_for_some(
    before: Float[Tensor, "batch time dim"], after: Float[Tensor, "batch time dim"], probability: float
) -> Float[Tensor, "batch time dim"]:
    """What went through a layer, but for each utterance, with this probability, what went in."""
    if probability <= 0:
        return after
    kept = torch.rand(after.shape[0], 1, 1, device=after.device) >= probability
    return torch.where(kept, after, before.to(after.dtype))
