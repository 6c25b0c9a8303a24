"""ScaledAdam: Adam whose steps are proportional to the size of each tensor, and which learns that size.

Yao et al., 2023, "Zipformer", arXiv:2310.11230, section 3.5 and algorithm 1; behaviour checked step by step
against golden numbers of the reference. For a tensor p with gradient g at its t-th step (t = 0, 1, ...):

    direction   d = -lr * max(rms(p), min_rms) * g / (sqrt(v) + eps)        v: running mean of g^2
    size        every N steps p also grows or shrinks by a factor, Adam on the gradient of log(size)
    momentum    m = b1 m + (1 - b1) d,   p = p + m                          the rate is inside m

A tensor of one element has no size to learn: its step is ``scalar_lr_scale * lr``, without rms.

Clipping looks at sum((g * rms(p))^2), the gradient's effect at the tensors' own scale, per parameter group,
and clips at a multiple of the median of the last hundred norms. A step whose norm is not finite is taken
with zero gradients (momentum still moves); the running statistics stay clean.

Made fast by torch's fused list operations, about ten per step whatever the number of tensors; all
per-tensor numbers (norm, size gradient, rms) cross from the device in a single transfer. No tensor's result
depends on which others share its group, except through clipping. A parameter without gradient counts as
having a zero gradient; one with ``requires_grad=False`` is left alone and starts afresh when thawed.
"""

# torch's own optimizers are built on the _foreach_ operations, which its type stubs do not list as public.
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, cast, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from firstwords.errors import TrainingError

_CACHED = 1 << 18  # elements of one portion on a CPU
_CLIP_EARLY = (10, 20, 40)  # steps at which a first threshold is estimated before the period is over


class ScaledAdam(Optimizer):
    """Parameters or groups of them -> an optimizer; each group may override every setting.

    Args:
        lr: about ten times what Adam takes, since it multiplies the tensors' own size (0.02 to 0.05).
        clipping_scale: clip at this multiple of the median norm; None = never.
        scalar_lr_scale: factor on the rate of one-element tensors and of the size steps.
        param_min_rms, param_max_rms: a tensor's size is kept below the second; below the first it is
            treated as having the first and its size is not learned.
        scalar_max: one-element tensors stay within +- this value.
        size_update_period: steps between two size updates.
        clipping_update_period: steps between two estimates of the median norm.

    After each step ``last_grad_norm`` holds the norm over all groups (before clipping) and ``last_clip`` the
    smallest factor applied, 1.0 where nothing was clipped, 0.0 where the gradient was not finite.
    """

    last_grad_norm: float
    last_clip: float

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.045,
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        clipping_scale: float | None = 2.0,
        scalar_lr_scale: float = 0.1,
        param_min_rms: float = 1e-5,
        param_max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_update_period: int = 4,
        clipping_update_period: int = 100,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "clipping_scale": clipping_scale,
            "scalar_lr_scale": scalar_lr_scale,
            "param_min_rms": param_min_rms,
            "param_max_rms": param_max_rms,
            "scalar_max": scalar_max,
            "size_update_period": size_update_period,
            "clipping_update_period": clipping_update_period,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            group.setdefault("clip_step", 0)
            group.setdefault("clip_norms", [])
            group.setdefault("clip_threshold", None)
        self.last_grad_norm = 0.0
        self.last_clip = 1.0

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Gradients -> changed parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        squares, clip = 0.0, 1.0
        for group in self.param_groups:
            params = [p for p in cast("list[Tensor]", group["params"]) if p.requires_grad]
            if not params:
                continue
            norm, factor = self._step_group(group, params)
            squares += norm * norm
            clip = min(clip, factor)
        self.last_grad_norm, self.last_clip = math.sqrt(squares), clip
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> tuple[float, float]:
        grads = [_gradient(p) for p in params]
        states = [self._state_of(p, group) for p in params]
        period = int(group["size_update_period"])
        due = [i for i, s in enumerate(states) if s["step"] == 0 or s["step"] % period == period - 1]
        norms, dots, sizes = _measure(params, grads, [params[i] for i in due])
        for i, size in zip(due, sizes, strict=True):
            if states[i]["step"] == 0:
                states[i]["rms"] = size

        scalar = float(group["scalar_lr_scale"])
        total = math.fsum(
            (n * (scalar if p.numel() == 1 else s["rms"])) ** 2
            for n, p, s in zip(norms, params, states, strict=True)
        )
        for i, size in zip(due, sizes, strict=True):  # only now: the norm above uses the older sizes
            states[i]["rms"] = size
        norm = math.sqrt(total) if math.isfinite(total) else math.inf
        factor = _clip_factor(group, norm)
        if factor == 0.0:  # inf * 0 is nan: a step without gradients needs real zeros
            grads = [torch.zeros_like(p) for p in params]
            dots = [0.0] * len(params)

        # All tensors of a group share their step count unless some were thawed later.
        for count in sorted({int(s["step"]) for s in states}):
            same = [i for i, s in enumerate(states) if s["step"] == count]
            for some in _portions(same, params):
                _update(
                    group,
                    count,
                    factor,
                    [params[i] for i in some],
                    [grads[i] for i in some],
                    [dots[i] * factor for i in some],
                    [states[i] for i in some],
                )
        return norm, factor

    def _state_of(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """Running statistics of one tensor; numbers about the whole tensor are plain floats."""
        state = self.state[param]
        if not state:
            state["step"] = 0
            state["momentum"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            state["square"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            state["rms"] = 0.0
            if param.numel() > 1:
                state["size_gradients"] = [0.0] * int(group["size_update_period"])
                state["size_square"] = 0.0
        return state


def _gradient(param: Tensor) -> Tensor:
    if param.grad is None:
        return torch.zeros_like(param)
    if param.grad.is_sparse:
        raise TrainingError(
            "ScaledAdam got a sparse gradient.", mend="Build embeddings with sparse=False (the default)."
        )
    return param.grad


def _portions(indices: list[int], params: list[Tensor]) -> Iterator[list[int]]:
    """On a CPU, tensors that fit its cache together: five passes over memory become one."""
    some: list[int] = []
    held = 0
    for i in indices:
        if some and held + params[i].numel() > _CACHED and params[i].device.type == "cpu":
            yield some
            some, held = [], 0
        some.append(i)
        held += params[i].numel()
    if some:
        yield some


def _measure(
    params: list[Tensor], grads: list[Tensor], sized: list[Tensor]
) -> tuple[list[float], list[float], list[float]]:
    """Per tensor: norm of the gradient, sum(p * g) (gradient of the log size); and rms of those ``sized``."""
    dots = [torch.dot(p.reshape(-1), g.reshape(-1)) for p, g in zip(params, grads, strict=True)]
    numbers = [*torch._foreach_norm(grads), *dots, *(torch._foreach_norm(sized) if sized else ())]
    flat = cast("list[float]", torch.stack(numbers).tolist())  # the one transfer from the device
    n = len(params)
    sizes = [norm / math.sqrt(p.numel()) for norm, p in zip(flat[2 * n :], sized, strict=True)]
    return flat[:n], flat[n : 2 * n], sizes


def _clip_factor(group: dict[str, Any], norm: float) -> float:
    """This step's factor on all gradients of the group; remembers ``norm`` for later thresholds."""
    step, period = int(group["clip_step"]), int(group["clipping_update_period"])
    group["clip_step"] = step + 1
    factor = 1.0 if math.isfinite(norm) else 0.0
    scale = group["clipping_scale"]
    if scale is None or step == 0:
        return factor
    norms = cast("list[float]", group["clip_norms"])
    if len(norms) < period:
        norms.append(norm)
    else:
        norms[(step - 1) % period] = norm
    early = step in _CLIP_EARLY and step < period
    if early or step % period == 0:
        ordered = sorted(norms)
        median = ordered[2 * (len(ordered) // 4)]
        # Early norms are unlike later ones, so an early threshold is kept generous.
        group["clip_threshold"] = float(scale) * median * (2.0 if early else 1.0)
    threshold = group["clip_threshold"]
    if threshold is None:
        return factor
    return min(factor, float(threshold) / (norm + 1e-20))


def _update(
    group: dict[str, Any],
    step: int,
    factor: float,
    params: list[Tensor],
    grads: list[Tensor],
    dots: list[float],
    states: list[dict[str, Any]],
) -> None:
    """One step of tensors that all made ``step`` steps before."""
    lr, (b1, b2), eps = float(group["lr"]), group["betas"], float(group["eps"])
    squares = [cast("Tensor", s["square"]) for s in states]
    momenta = [cast("Tensor", s["momentum"]) for s in states]

    torch._foreach_mul_(squares, b2)
    torch._foreach_addcmul_(squares, grads, grads, value=(1 - b2) * factor * factor)
    correction = 1 - b2 ** (step + 1)
    root = math.sqrt(correction) if correction < 0.99 else 1.0  # g / (sqrt(v/c) + eps), multiplied out
    denominators = torch._foreach_sqrt(squares)
    torch._foreach_add_(denominators, eps * root)

    scale = -(1 - b1) * lr * factor * root
    min_rms, scalar_scale = float(group["param_min_rms"]), float(group["scalar_lr_scale"])
    factors = [
        scale * (scalar_scale if p.numel() == 1 else max(s["rms"], min_rms))
        for p, s in zip(params, states, strict=True)
    ]
    torch._foreach_mul_(momenta, b1)
    torch._foreach_addcdiv_(momenta, grads, denominators, factors)

    period = int(group["size_update_period"])
    slot = step % period
    larger = [i for i, p in enumerate(params) if p.numel() > 1]
    for i in larger:
        states[i]["size_gradients"][slot] = dots[i]
    if slot == period - 1 and larger:
        growths = [(1 - b1) * _size_step(group, step, states[i]) for i in larger]
        grown = torch._foreach_mul([params[i] for i in larger], growths)
        torch._foreach_add_([momenta[i] for i in larger], grown)

    torch._foreach_add_(params, momenta)
    single = [p for p in params if p.numel() == 1]
    if single:
        torch._foreach_clamp_min_(single, -float(group["scalar_max"]))
        torch._foreach_clamp_max_(single, float(group["scalar_max"]))
    for state in states:
        state["step"] = step + 1


def _size_step(group: dict[str, Any], step: int, state: dict[str, Any]) -> float:
    """Relative growth of one tensor: Adam (without momentum) on the last N gradients of log(size)."""
    gradients, rms = cast("list[float]", state["size_gradients"]), float(state["rms"])
    b2 = group["betas"][1] ** len(gradients)
    mean_square = math.fsum(s * s for s in gradients) / len(gradients)
    state["size_square"] = b2 * state["size_square"] + (1 - b2) * mean_square
    if rms < group["param_min_rms"]:
        return 0.0
    correction = 1 - group["betas"][1] ** (step + 1)
    rate = float(group["lr"]) * float(group["scalar_lr_scale"]) * math.sqrt(correction)
    growth = -rate * math.fsum(gradients) / (math.sqrt(state["size_square"]) + float(group["eps"]))
    growth = min(0.1, max(-0.1, growth))
    return min(growth, (float(group["param_max_rms"]) - rms) / rms)
