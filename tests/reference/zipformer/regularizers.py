"""Schedules, random decisions, and the modules that leave values alone and bend gradients.

Balancer and Whiten are written as the specification defines them: the gradient of a small loss, taken by
autograd inside the backward pass and rescaled. Statistics are float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn


class Rate:
    """A piecewise-linear function of the batch count; ``default`` in eval mode and while no count is set."""

    def __init__(self, *points: tuple[float, float], default: float = 0.0) -> None:
        self.points, self.default = points, default

    def at(self, count: float) -> float:
        before, after = self.points[0], self.points[-1]
        if count <= before[0]:
            return before[1]
        for after in self.points[1:]:
            if count <= after[0]:
                share = (count - before[0]) / (after[0] - before[0])
                return before[1] + share * (after[1] - before[1])
            before = after
        return after[1]


@dataclass
class Clock:
    """The batch count that all parts of one encoder read."""

    count: float | None = None


class Part(nn.Module):
    """A module that reads the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def now(self, rate: Rate | float) -> float:
        if not isinstance(rate, Rate):
            return rate
        return rate.default if self.clock.count is None or not self.training else rate.at(self.clock.count)


def draw() -> float:
    """A uniform number; tests replace it to switch every decision on or off."""
    return float(torch.rand(()))


def happens(probability: float) -> bool:
    """True with this probability; certain things are not drawn."""
    return probability > 0 and (probability >= 1 or draw() < probability)


def keep_rows(rows: int, skip: float) -> Tensor | None:
    """(1, N, 1): 0 for the utterances that skip a branch, else 1; None where none can."""
    return None if skip <= 0 else (torch.rand(1, rows, 1) >= skip).float()


class _Balance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, limits: tuple[float, float, float, float], scale: float, channel: int
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits, ctx.scale, ctx.channel = limits, scale, channel
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (saved,), grad = ctx.saved_tensors, grads[0]
        low_m, high_m, low_r, high_r = ctx.limits
        others = [d for d in range(saved.dim()) if d != ctx.channel % saved.dim()]
        with torch.enable_grad():
            x = saved.detach().float().requires_grad_()
            mean = x.mean(dim=others, keepdim=True)
            square = x.square().mean(dim=others, keepdim=True)
            m = mean / (square - mean.square()).clamp(min=1e-20).sqrt()
            r = square.clamp(min=1e-20).sqrt()
            loss = (m - m.clamp(low_m, high_m)).abs() + (r.clamp(low_r, high_r) / r).log().abs()
            (push,) = torch.autograd.grad(loss.sum(), x)
        size = push.square().mean(dim=others, keepdim=True).sqrt().clamp(min=1e-20)
        return grad + grad.abs() * (push * (ctx.scale / size)), None, None, None


class Balancer(Part):
    """Keeps each channel's share of positive values and mean absolute value in a range."""

    def __init__(
        self,
        clock: Clock,
        min_positive: Rate | float = 0.05,
        max_positive: Rate | float = 0.95,
        min_abs: Rate | float = 0.2,
        max_abs: Rate | float = 100.0,
        probability: Rate | float | None = None,
        channel: int = -1,
    ) -> None:
        super().__init__(clock)
        self.positive, self.size = (min_positive, max_positive), (min_abs, max_abs)
        default = Rate((0, 0.5), (8000, 0.125), default=0.4)
        self.probability = default if probability is None else probability
        self.channel = channel

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and x.requires_grad and happens(self.now(self.probability))):
            return x
        means = [_mean_of_positive(self.now(p)) for p in self.positive]
        sizes = [1.25331413732 * self.now(a) for a in self.size]
        return cast("Tensor", _Balance.apply(x, (*means, *sizes), 0.04, self.channel))


def _mean_of_positive(p: float) -> float:
    x = 2 * p - 1
    return 0.8139535143 * 0.5 * (math.log(1 + x + 1e-10) - math.log(1 - x + 1e-10))


class _Whitening(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, owner: Whiten, limit: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.owner, ctx.limit = owner, limit
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (saved,), grad, owner = ctx.saved_tensors, grads[0], ctx.owner
        with torch.enable_grad():
            x = saved.detach().float().requires_grad_()
            metric = whitening_metric(x, owner.groups)
            owner.high = bool(metric >= ctx.limit)
            if not owner.high:
                return grad, None, None
            (push,) = torch.autograd.grad(metric, x)
        scale = owner.grad_scale * grad.float().norm() / (push.norm() + 1e-20)
        return grad + (push * scale).to(grad.dtype), None, None


def whitening_metric(x: Tensor, groups: int) -> Tensor:
    """1 where the channels of every group are uncorrelated and of equal variance, else larger."""
    channels = x.shape[-1]
    rows = x.reshape(-1, groups, channels // groups).transpose(0, 1)
    rows = rows - rows.mean(dim=1, keepdim=True)
    covariance = rows.transpose(1, 2) @ rows
    variance = covariance.diagonal(dim1=1, dim2=2).mean()
    return covariance.square().sum() / channels / (variance.square() + 1e-20)


class Whiten(Part):
    """Pushes channels towards equal variance without correlation, above a limit of the metric."""

    def __init__(self, clock: Clock, limit: Rate | float, grad_scale: float, groups: int = 1) -> None:
        super().__init__(clock)
        self.limit, self.grad_scale, self.groups = limit, grad_scale, groups
        self.high = True  # the metric was above the limit when last looked at

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and x.requires_grad and happens(0.25 if self.high else 0.025)):
            return x
        return cast("Tensor", _Whitening.apply(x, self, self.now(self.limit)))


class _Limit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(p)
        ctx.low, ctx.high = low, high
        return p.view_as(p)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (p,), grad = ctx.saved_tensors, grads[0]
        outward = ((p < ctx.low) & (grad > 0)) | ((p > ctx.high) & (grad < 0))
        return torch.where(outward, -grad, grad), None, None


def limit(p: Tensor, low: float, high: float, training: bool) -> Tensor:
    """p; its gradient never leads further out of [low, high] (in training, 6 times in 10)."""
    return cast("Tensor", _Limit.apply(p, low, high)) if training and happens(0.6) else p


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grads[0] * ctx.scale, None


class ScaleGradient(nn.Module):
    """Identity; in training the gradient is multiplied."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", _ScaleGradient.apply(x, self.scale)) if self.training else x


class _WithLoss(torch.autograd.Function):
    """x, with a loss whose gradient is taken with weight one whatever becomes of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor) -> Tensor:
        ctx.loss = loss.new_ones(loss.shape)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grads[0], ctx.loss


def punish_beyond(x: Tensor, most: float, penalty: float) -> Tensor:
    """x, with the loss penalty * |x| over the values beyond +-most."""
    loss = penalty * (x.abs() * (x.detach().abs() > most)).sum()
    return cast("Tensor", _WithLoss.apply(x, loss))
