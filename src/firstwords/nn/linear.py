"""Linear layers whose float32 products use the whole width of the processor.

torch computes float32 matrix products on a CPU with MKL, which (2024.2) stays with 256 bits on AMD's
processors where they have AVX-512. oneDNN, which torch brings too, asks the processor itself: 210 GFLOP/s
a core instead of 95 on Zen 5, with errors as small (LOG.md, 2026-11-22). But it prepares a product anew for
each number of rows, for a millisecond and a third of a megabyte, and utterances differ in length: with all
products of a Zipformer by oneDNN it read at half its speed (LOG.md, 2026-11-23). So these are torch's own
for all but large products, and everywhere else.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from firstwords.device import has_narrow_mkl
from firstwords.tensors import is_captured

# Below these oneDNN's preparations, for a number of rows met once, cost more than its product saves: MKL
# needs 2.8 ms for 2^27 multiply-accumulates, oneDNN 1.3 and about one for what it prepares.
_FEWEST_ROWS = 4
_LEAST_WORK = 2**27  # multiply-accumulates


class Linear(nn.Linear):
    """``nn.Linear`` by way of ``linear``."""

    def forward(self, input: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        return linear(input, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*rows in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*rows out"]:
    """What ``F.linear`` computes, autocast and graphs for export included."""
    if not _wins(x, weight) or is_captured() or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return cast("Tensor", _Product.apply(x, weight, bias))
    return _onednn(x, weight, bias)


def as_multiplied(layer: nn.Conv2d) -> tuple[Float[Tensor, "out in"], Float[Tensor, " out"] | None]:
    """Weight and bias of a 1 x 1 convolution for ``linear`` in pieces; without gradients rounded once."""
    weight, bias = layer.weight.flatten(1), layer.bias
    place = weight.device.type
    if torch.is_grad_enabled() or is_captured() or not torch.is_autocast_enabled(place):
        return weight, bias
    dtype = torch.get_autocast_dtype(place)
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def product(
    x: Float[Tensor, "*rows in"], weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*rows out"]:
    """``linear`` without gradients and in the format of its operands: for functions that bring their own."""
    return _onednn(x, weight, bias) if _wins(x, weight) else F.linear(x, weight, bias)


def onednn_linear() -> Any:
    """oneDNN's product as torch calls it, of this build; None where it has none."""
    place = getattr(torch.ops, "mkldnn", None)
    return getattr(place, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


@cache
def _is_faster_here() -> bool:
    return has_narrow_mkl() and onednn_linear() is not None


def _wins(x: Tensor, weight: Tensor) -> bool:
    work = x.numel() * weight.shape[0]
    return (
        work >= _LEAST_WORK
        and x.numel() >= _FEWEST_ROWS * weight.shape[1]
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and x.device.type == "cpu"
        and _is_faster_here()
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return cast("Tensor", onednn_linear()(x, weight, bias, "none", [], ""))


@final
class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        d_x = d_weight = d_bias = None
        rows = grads[0].reshape(-1, weight.shape[0])
        if ctx.needs_input_grad[0]:
            d_x = product(rows, weight.t()).view(x.shape)
        if ctx.needs_input_grad[1]:
            d_weight = product(rows.t(), x.reshape(-1, weight.shape[1]).t())
        if ctx.needs_input_grad[2]:
            d_bias = rows.sum(0)
        return d_x, d_weight, d_bias
