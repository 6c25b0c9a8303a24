"""Numbers that change while training goes on: piecewise-linear functions of the adjusted batch count.

Zipformer: Yao et al., 2024, arXiv:2310.11230; their "ScheduledFloat". A module that owns schedules is
``Scheduled`` and learns the count from one call, ``Zipformer.set_step``. In eval mode, and as long as
nobody told it the count, a module uses each schedule's default.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from torch import nn


@dataclass(frozen=True)
class Schedule:
    """Straight lines between (count, value) points, constant outside them.

    >>> Schedule((0.0, 0.2), (4000.0, 0.05))(2000.0)
    0.125
    """

    points: tuple[tuple[float, float], ...]
    default: float

    def __init__(self, *points: tuple[float, float], default: float = 0.0) -> None:
        if not points or any(a[0] >= b[0] for a, b in pairwise(points)):
            raise ValueError(f"A schedule needs points with growing counts, got {points}.")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "default", default)

    def __call__(self, count: float | int | None) -> float:
        """The value at ``count``; the default where the count is unknown."""
        if count is None:
            return self.default
        index = bisect_right(self.points, count, key=lambda point: point[0])
        if index == 0:
            return self.points[0][1]
        if index == len(self.points):
            return self.points[-1][1]
        (x0, y0), (x1, y1) = self.points[index - 1], self.points[index]
        return y0 + (count - x0) * (y1 - y0) / (x1 - x0)

    def __add__(self, other: Schedule | float | int) -> Schedule:
        """Sum of the functions and of the defaults."""
        return self._combine(other, lambda a, b: a + b, crossings=False)

    def maximum(self, other: Schedule | float | int) -> Schedule:
        """The larger of both everywhere; points where the lines cross are added."""
        return self._combine(other, max, crossings=True)

    def _combine(
        self, other: Schedule | float | int, join: Callable[[float, float], float], *, crossings: bool
    ) -> Schedule:
        if not isinstance(other, Schedule):
            other = Schedule((self.points[0][0], float(other)), default=float(other))
        counts = sorted({x for x, _ in self.points} | {x for x, _ in other.points})
        for x0, x1 in pairwise(counts) if crossings else ():
            before, after = self(x0) - other(x0), self(x1) - other(x1)
            if before * after < 0:
                counts = [*counts, x0 + (x1 - x0) * before / (before - after)]
        points = tuple((x, join(self(x), other(x))) for x in sorted(counts))
        return Schedule(*points, default=join(self.default, other.default))


class Scheduled(nn.Module):
    """A module with schedules. ``count`` is the adjusted batch count, None until somebody sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.count: float | None = None

    def now(self, value: Schedule | float) -> float:
        """The value to use in this forward pass."""
        if isinstance(value, Schedule):
            return value(self.count if self.training else None)
        return value


def set_count(module: nn.Module, count: float | int) -> None:
    """Tell every scheduled part of ``module`` the adjusted batch count."""
    for part in module.modules():
        if isinstance(part, Scheduled):
            part.count = float(count)
