"""SwooshL, SwooshR, BiasNorm and dropout shared over time: arXiv:2310.11230, sections 3.3 and 3.4.

SwooshL(x) = ln(1 + e^(x-4)) - 0.08 x - 0.035, SwooshR(x) = ln(1 + e^(x-1)) - 0.08 x - 0.313261687.
Written as autograd functions that keep their input alone and work in few passes over memory, since on a
CPU an element-wise pass costs as much as the matrix product beside it. The derivative is exact (the
reference's training kernels round it to 8 bits).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from firstwords.encoders.zipformer.constraints import limit_parameter
from firstwords.encoders.zipformer.pieces import of_elements
from firstwords.tensors import is_captured, is_traced

_SLOPE = 0.08
_LOG2_E = math.log2(math.e)
_QUICK_LIMIT = 80.0  # e to more is no float32
_READERS = 2  # threads up to which one that looks numbers up in a table is faster than all that compute them


def _swoosh(x: Tensor, shift: float, offset: float) -> Tensor:
    y = torch.empty_like(x)
    on_cpu = x.device.type == "cpu"
    if on_cpu and x.dtype is torch.bfloat16 and torch.get_num_threads() <= _READERS and y.is_contiguous():
        _look_up(_table(shift, offset), x, y)
        return y
    quick = on_cpu and x.dtype in (torch.float32, torch.bfloat16)
    for part, out in of_elements(x, y):
        if quick and part.numel() and not float(part.amax()) > _QUICK_LIMIT:
            _quick_swoosh(part, out, shift, offset)
            continue
        shifted = part - shift
        torch.ops.aten.softplus.out(shifted, out=out)
        out.add_(shifted, alpha=-_SLOPE).sub_(offset + _SLOPE * shift)
    return y


def _quick_swoosh(x: Tensor, out: Tensor, shift: float, offset: float) -> None:
    """ln(1 + 2^((x - shift) log2 e)) in float32: 0.7 times the time of torch's softplus on a CPU."""
    values = x.float()  # x itself where it is float32
    inner = out if out.dtype is torch.float32 else torch.empty_like(values)
    torch.add(torch.tensor(-shift * _LOG2_E), values, alpha=_LOG2_E, out=inner)
    inner.exp2_().log1p_().add_(values, alpha=-_SLOPE).sub_(offset)
    if inner is not out:
        out.copy_(inner)


@cache
def _table(shift: float, offset: float) -> Tensor:
    """Swoosh of all 65,536 numbers that bfloat16 has, in the order of their bits, each rounded once."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16)
    shifted = bits.view(torch.bfloat16).double() - shift
    return (F.softplus(shifted) - _SLOPE * shifted - (offset + _SLOPE * shift)).bfloat16()


def _look_up(table: Tensor, x: Tensor, out: Tensor) -> None:
    """bfloat16 numbers -> their entries: two passes where computing takes eight, but on one core alone."""
    for part, place in of_elements(x, out):
        bits = part.view(torch.uint16).to(torch.int32)
        torch.index_select(table, 0, bits.reshape(-1), out=place.view(-1))


class _Swoosh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: float, offset: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.shift = shift
        return _swoosh(x, shift, offset)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,), grad = ctx.saved_tensors, grads[0]
        new = torch.empty_like(grad)
        for part, g, out in of_elements(x, grad, new):  # out = g * (sigmoid(x - shift) - 0.08)
            torch.ops.aten.softplus_backward.grad_input(g, part - ctx.shift, 1, 20, grad_input=out)
            out.sub_(g, alpha=_SLOPE)
        return new, None, None


def swoosh_l(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """SwooshL, element by element; about 0 for x well below 4, SwooshL(0) = -0.0169."""
    return _apply_swoosh(x, 4.0, 0.035)


def swoosh_r(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """SwooshR, element by element; SwooshR(0) = 0 to nine digits."""
    return _apply_swoosh(x, 1.0, 0.313261687)


def _apply_swoosh(x: Tensor, shift: float, offset: float) -> Tensor:
    if is_captured():
        shifted = x - shift
        return _bent(shifted) - (offset + _SLOPE * shift)
    if x.requires_grad and torch.is_grad_enabled():
        return _Swoosh.apply(x, shift, offset)  # pyright: ignore[reportReturnType]
    return _swoosh(x, shift, offset)


def _bent(x: Tensor) -> Tensor:
    """ln(1 + e^x) - 0.08 x; for ONNX in few steps, all of which onnxruntime has vector code for but the
    logarithm: ln(1 + e^x) = max(x, 0) - ln sigmoid(|x|)."""
    if not is_traced():
        return F.softplus(x) - _SLOPE * x
    lines = F.leaky_relu(x, -_SLOPE / (1 - _SLOPE)) * (1 - _SLOPE)
    return lines - x.abs().sigmoid().log()


def at_least_float32(x: Tensor) -> Tensor:
    """Half precisions become float32, float64 stays."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _BiasNormalize(torch.autograd.Function):
    """y = x s with s = e^g / rms(x - b); statistics in float32.

    With u = sum(gy x) e^g rms^-3 / C per frame: gx = s gy - u (x - b), gb = sum of u (x - b), gg = sum(gy y).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        scale = _bias_norm_scale(x, bias, log_scale)
        ctx.save_for_backward(x, bias, log_scale, scale)
        return (x * scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, bias, log_scale, scale = ctx.saved_tensors
        grad, values = at_least_float32(grads[0]), at_least_float32(x)
        dot = (grad * values).sum(dim=-1, keepdim=True)
        along = dot * scale
        weight = along * (scale / log_scale.exp()).square() / x.shape[-1]
        grad_x = (grad * scale).addcmul_(values, weight, value=-1.0).addcmul_(weight, bias)
        grad_bias = weight.reshape(-1) @ values.reshape(-1, x.shape[-1]) - weight.sum() * bias
        return grad_x.to(x.dtype), grad_bias, along.sum().reshape(log_scale.shape)


def _bias_norm_scale(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    centred = at_least_float32(x) - bias
    size = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
    return log_scale.exp() * int(x.shape[-1]) ** 0.5 / size


class BiasNorm(nn.Module):
    """(…, C) -> (…, C): divide by the root mean square of x - bias, multiply by e^log_scale (eq. 4).

    Only the gradient of log_scale is kept within [-1.5, 1.5], its value is free.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.empty(channels).normal_(mean=0.0, std=1e-4))

    def forward(self, x: Float[Tensor, "*rest channels"]) -> Float[Tensor, "*rest channels"]:
        if not torch.is_grad_enabled():
            return (x * _bias_norm_scale(x, self.bias, self.log_scale)).to(x.dtype)
        log_scale = limit_parameter(self.log_scale, -1.5, 1.5, training=self.training)
        return _BiasNormalize.apply(x, self.bias, log_scale)  # pyright: ignore[reportReturnType]


def dropout_over_time(
    x: Float[Tensor, "batch time channels"], probability: float, *, training: bool
) -> Float[Tensor, "batch time channels"]:
    """Dropout whose mask is the same at every frame of an utterance."""
    if not training or probability == 0:
        return x
    return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), probability)


def initialize_scaled(layer: nn.Linear | nn.Conv1d | nn.Conv2d, scale: float) -> None:
    """Shrink a freshly made layer: weight times ``scale``, bias uniform within 0.1 * ``scale``."""
    with torch.no_grad():
        layer.weight.mul_(scale)
        if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            layer.bias.uniform_(-0.1 * scale, 0.1 * scale)
