"""Training regularisers that leave the forward pass alone and bend the gradient.

Balancer, Whiten, limits on parameters and on attention scores (arXiv:2310.11230, section 3.4 and the
published code). All are drawn at random for each forward pass; when not drawn they cost nothing.
Both big ones are worked out in closed form: the Balancer's gradient is one affine function of x per
channel, Whiten's is one matrix product, so no second graph is built inside the backward pass.

Differs from the reference: they act in training mode only (there also in eval mode while gradients flow).
Statistics are float32 whatever the precision of x. Channels are the last axis.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from firstwords.encoders.zipformer.pieces import of_rows
from firstwords.encoders.zipformer.schedules import Schedule, Scheduled


def draw() -> float:
    """One uniform number in [0, 1) from torch's default generator. Every random choice asks here."""
    return float(torch.rand(()))


def drawn(probability: float) -> bool:
    """True with this probability; no number is drawn where there is no choice."""
    return probability > 0 and (probability >= 1 or draw() < probability)


def _limit_of_mean(positive: float) -> float:
    """Share of positive values wanted -> bound on mean / standard deviation, for Gaussian values."""
    x = 2 * positive - 1
    return 0.8139535143 * (math.log(1 + x + 1e-10) - math.log(1 - x + 1e-10)) / 2


_ROOT_HALF_PI = 1.25331413732  # sqrt(pi / 2): mean absolute value -> root mean square of a Gaussian


class _Balance(torch.autograd.Function):
    """Identity; the new gradient is g + |g| G, where G is affine in x with one slope per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, limits: tuple[float, float, float, float], scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits, ctx.scale = limits, scale
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,), grad = ctx.saved_tensors, grads[0]
        rows = x.reshape(-1, x.shape[-1])
        grad_rows = grad.reshape(rows.shape)
        mean, variance = moments(rows)
        base, slope = balance_direction(mean, variance, len(rows), ctx.limits, ctx.scale)
        new = torch.empty_like(grad_rows, memory_format=torch.contiguous_format)
        for part, g, out in of_rows(rows, grad_rows, new):
            push = torch.addcmul(base, part.float() - mean, slope)
            g = g.float()
            out.copy_(push.mul_(g.abs()).add_(g))
        return new.view(grad.shape), None, None


def moments(
    x: Float[Tensor, "frames channels"],
) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Mean and variance of each channel over all frames, in float32, in one pass.

    Sums are taken from near the mean, so that squares lose no digits; the last frames correct for "near".
    """
    near, total, squares = x.new_zeros(3, x.shape[1], dtype=torch.float32)
    for start, (part,) in enumerate(of_rows(x)):
        values = part.float()
        if start == 0:
            near = values.mean(dim=0)
        values = values - near
        total += values.sum(dim=0)
        squares += values.square_().sum(dim=0)
    off = total / len(x)
    return near + off, (squares / len(x) - off.square()).clamp_min(0.0)


def balance_direction(
    mean: Float[Tensor, " channels"],
    variance: Float[Tensor, " channels"],
    frames: int,
    limits: tuple[float, float, float, float],
    scale: float,
) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """(base, slope): the gradient of the Balancer's loss at x is base + slope (x - mean).

    It is scaled per channel to rms ``scale``; 0 where nothing is amiss. Loss per channel: |m - clamp(m)| +
    |ln(clamp(r) / r)| with m = mean / deviation and r = root mean square. Before it is scaled the gradient
    has mean square base^2 + slope^2 variance.
    """
    low_m, high_m, low_r, high_r = limits
    square = variance + mean.square()
    deviation = variance.clamp(min=1e-20).sqrt()
    rms = square.clamp(min=1e-20).sqrt()
    m = mean / deviation
    pull_m = (m > high_m).float() - (m < low_m).float()
    pull_r = ((rms > high_r).float() - (rms < low_r).float()) * (square > 1e-20)
    # d m / dx = 1 / deviation - mean (x - mean) / deviation^3; d ln r / dx = x / r^2 (both over frames)
    base = pull_m / deviation + pull_r * mean / rms.square()
    slope = pull_r / rms.square() - pull_m * (variance > 1e-20) * m / deviation.square()
    size = (base.square() + slope.square() * variance).sqrt()
    # the reference divides by the number of frames before its floor of 1e-20; kept so that both agree
    factor = scale / max(frames, 1) / (size / max(frames, 1)).clamp(min=1e-20)
    return base * factor, slope * factor


class Balancer(Scheduled):
    """Pushes each channel's share of positive values and mean absolute value into a range.

    Args:
        min_positive, max_positive: share of values above zero.
        min_abs, max_abs: mean absolute value.
        probability: of acting in one forward pass.
        grad_scale: size of the push, relative to the gradient.
    """

    def __init__(
        self,
        min_positive: Schedule | float = 0.05,
        max_positive: Schedule | float = 0.95,
        min_abs: Schedule | float = 0.2,
        max_abs: Schedule | float = 100.0,
        probability: Schedule | float | None = None,
        grad_scale: float = 0.04,
    ) -> None:
        super().__init__()
        self.min_positive, self.max_positive = min_positive, max_positive
        self.min_abs, self.max_abs = min_abs, max_abs
        default = Schedule((0.0, 0.5), (8000.0, 0.125), default=0.4)
        self.probability = default if probability is None else probability
        self.grad_scale = grad_scale

    def forward(self, x: Float[Tensor, "*rest channels"]) -> Float[Tensor, "*rest channels"]:
        if not (self.training and x.requires_grad and drawn(self.now(self.probability))):
            return x
        limits = (
            _limit_of_mean(self.now(self.min_positive)),
            _limit_of_mean(self.now(self.max_positive)),
            _ROOT_HALF_PI * self.now(self.min_abs),
            _ROOT_HALF_PI * self.now(self.max_abs),
        )
        return _Balance.apply(x, limits, self.grad_scale)  # pyright: ignore[reportReturnType]


class _Whitening(torch.autograd.Function):
    """Identity; adds grad_scale ‖g‖ P / ‖P‖, P the direction in which x gets whiter's opposite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, owner: Whiten) -> Tensor:
        ctx.save_for_backward(x)
        ctx.owner, ctx.limit = owner, owner.now(owner.limit)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,), grad, owner = ctx.saved_tensors, grads[0], ctx.owner
        channels = x.shape[-1] // owner.groups

        def by_group(values: Tensor) -> Tensor:
            return values.reshape(-1, owner.groups, channels).transpose(0, 1)

        rows, grad_rows = by_group(x), by_group(grad)
        metric, centre, step = whitening(rows)
        owner.high = bool(metric >= ctx.limit)
        if not owner.high:
            return grad, None
        new, push = grad.new_empty(x.shape), grad.new_empty(x.shape, dtype=torch.float32)
        wanted, found = x.new_zeros(2, dtype=torch.float32)
        for part, g, pushed in of_rows(rows, grad_rows, by_group(push)):
            pushed.copy_((part.float() - centre) @ step)
            wanted += g.float().square().sum()
            # As it came out: where step points nowhere (all channels alike) it is rounding alone.
            found += pushed.square().sum()
        scale = owner.grad_scale * wanted.sqrt() / (found.sqrt() + 1e-20)
        for pushed, g, out in of_rows(by_group(push), grad_rows, by_group(new)):
            out.copy_(pushed.mul_(scale).add_(g))
        return new, None


def whitening(
    x: Float[Tensor, "groups frames channels"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "groups 1 channels"], Float[Tensor, "groups channels channels"]]:
    """(metric, mean, step), float32: metric is 1 for white x; (x - mean) @ step points where it grows.

    metric = (sum of squared covariances / channels) / (mean variance)², over all groups. Sums are taken from
    near the mean, as in ``moments``.
    """
    groups, frames, channels = x.shape
    near, total = x.new_zeros(2, groups, 1, channels, dtype=torch.float32)
    covariance = x.new_zeros(groups, channels, channels, dtype=torch.float32)
    for start, (part,) in enumerate(of_rows(x)):
        values = part.float()
        if start == 0:
            near = values.mean(dim=1, keepdim=True)
        values = values - near
        total += values.sum(dim=1, keepdim=True)
        covariance.baddbmm_(values.transpose(1, 2), values)
    off = total / frames
    covariance -= frames * off.transpose(1, 2) * off
    mean_variance = covariance.diagonal(dim1=1, dim2=2).mean()
    power = covariance.square().sum() / (groups * channels)
    metric = power / (mean_variance.square() + 1e-20)
    identity = torch.eye(channels, dtype=covariance.dtype, device=covariance.device)
    step = covariance / (mean_variance + 1e-20) - metric * identity
    return metric, near + off, step


class Whiten(Scheduled):
    """Pushes the channels of each group towards equal variances without correlation, above a limit.

    Args:
        limit: metric up to which x is left alone; 1 is white.
        groups: the channels are split into so many groups.
        grad_scale: size of the push, relative to the whole gradient.
    """

    LOW, HIGH = 0.025, 0.25  # probability of acting while the metric was last below / above the limit

    def __init__(self, limit: Schedule | float, groups: int = 1, grad_scale: float = 0.01) -> None:
        super().__init__()
        self.limit, self.groups, self.grad_scale = limit, groups, grad_scale
        self.high = True

    def forward(self, x: Float[Tensor, "*rest channels"]) -> Float[Tensor, "*rest channels"]:
        if not (self.training and x.requires_grad and drawn(self.HIGH if self.high else self.LOW)):
            return x
        return _Whitening.apply(x, self)  # pyright: ignore[reportReturnType]


class _LimitParameter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(parameter)
        ctx.low, ctx.high = low, high
        return parameter.view_as(parameter)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (parameter,), grad = ctx.saved_tensors, grads[0]
        wrong = ((parameter < ctx.low) & (grad > 0)) | ((parameter > ctx.high) & (grad < 0))
        return torch.where(wrong, -grad, grad), None, None


def limit_parameter(parameter: Tensor, low: float, high: float, *, training: bool) -> Tensor:
    """The parameter itself; outside [low, high] a gradient that would lead further out is turned round.

    Drawn with probability 0.6 in training. The value is never clamped.
    """
    if training and drawn(0.6):
        return _LimitParameter.apply(parameter, low, high)  # pyright: ignore[reportReturnType]
    return parameter


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grads[0] * ctx.scale, None


def scale_gradient(x: Tensor, scale: float, *, training: bool) -> Tensor:
    """x itself; in training its gradient is multiplied by ``scale``."""
    return _ScaleGradient.apply(x, scale) if training else x  # pyright: ignore[reportReturnType]
