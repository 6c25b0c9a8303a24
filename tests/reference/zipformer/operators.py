"""Swoosh, BiasNorm, dropout over time, and activation + dropout + linear map as one step.

The three autograd functions keep the input of the activation alone, as the published code does; their
backward passes are the plain formulas.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.zipformer.regularizers import Clock, Part, limit

L = (4.0, 0.035)  # shift and offset of SwooshL
R = (1.0, 0.313261687)  # and of SwooshR
_BYTE = 1.005 / 255  # step of a derivative kept in eight bits; derivatives lie in (-0.08, 0.92)


def swoosh(x: Tensor, kind: tuple[float, float]) -> Tensor:
    """ln(1 + e^(x - shift)) - 0.08 x - offset."""
    shift, offset = kind
    return F.softplus(x - shift).sub_(x, alpha=0.08).sub_(offset)


def swoosh_derivative(x: Tensor, kind: tuple[float, float]) -> Tensor:
    """sigmoid(x - shift) - 0.08."""
    return (x - kind[0]).sigmoid_().sub_(0.08)


class _Swoosh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: tuple[float, float], in_bytes: bool) -> Tensor:
        ctx.kind, ctx.in_bytes = kind, in_bytes
        if in_bytes:
            steps = swoosh_derivative(x, kind).add_(0.08).mul_(1 / _BYTE).add_(torch.rand_like(x))
            ctx.save_for_backward(steps.to(torch.uint8))
        else:
            ctx.save_for_backward(x)
        return swoosh(x, kind)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (kept,) = ctx.saved_tensors
        derivative = (
            kept.float().mul_(_BYTE).sub_(0.08) if ctx.in_bytes else swoosh_derivative(kept, ctx.kind)
        )
        return derivative.mul_(grads[0]), None, None


class Swoosh(nn.Module):
    """``in_bytes``: keep the derivative in eight bits, rounded at random, instead of the input."""

    def __init__(self, kind: tuple[float, float], in_bytes: bool) -> None:
        super().__init__()
        self.kind, self.in_bytes = kind, in_bytes

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return swoosh(x, self.kind)
        return cast("Tensor", _Swoosh.apply(x, self.kind, self.in_bytes))


class _ActivateAndMap(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None, kind: tuple[float, float]
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mask)
        ctx.kind = kind
        y = swoosh(x, kind)
        return F.linear(y if mask is None else y.mul_(mask), weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, weight, mask), kind, grad = ctx.saved_tensors, ctx.kind, grads[0]
        y = swoosh(x, kind)
        y = y if mask is None else y.mul_(mask)
        flat = grad.reshape(-1, grad.shape[-1])
        grad_weight = flat.t() @ y.reshape(-1, y.shape[-1])
        grad_x = (grad @ weight).mul_(swoosh_derivative(x, kind))
        grad_x = grad_x if mask is None else grad_x.mul_(mask)
        return grad_x, grad_weight, flat.sum(dim=0), None, None


def activate_and_map(
    x: Tensor, layer: nn.Linear, kind: tuple[float, float], mask: Tensor | None = None
) -> Tensor:
    """layer(swoosh(x) * mask)."""
    return cast("Tensor", _ActivateAndMap.apply(x, layer.weight, layer.bias, mask, kind))


def dropout_mask(x: Tensor, probability: float, training: bool) -> Tensor | None:
    """(1, N, C) for x (T, N, C): one draw for all frames of an utterance; None where nothing is dropped."""
    if not training or probability == 0:
        return None
    return F.dropout(x.new_ones(1, *x.shape[1:]), probability)


class _BiasNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, bias, log_scale)
        return bias_norm(x, bias, log_scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.enable_grad():
            inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
            y = bias_norm(*inputs)
        return torch.autograd.grad(y, inputs, grads[0])


def bias_norm(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
    """x / rms(x - bias) * e^log_scale, over the last axis."""
    return x * ((x - bias).square().mean(dim=-1, keepdim=True).rsqrt() * log_scale.exp())


class BiasNorm(Part):
    def __init__(self, clock: Clock, channels: int) -> None:
        super().__init__(clock)
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        log_scale = limit(self.log_scale, -1.5, 1.5, self.training)
        return cast("Tensor", _BiasNorm.apply(x, self.bias, log_scale))
