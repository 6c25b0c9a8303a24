"""What a small model must keep to: "size<1MB, rtf<0.05, cer<=+1.0".

    size        bytes of model.safetensors: B, KB, MB (powers of ten), KiB, MiB
    parameters  weights: plain numbers, K, M
    macs        multiply-accumulates per second of audio: plain numbers, M, G
    memory      what the model adds to the program, at most, while it reads 15 s; bytes as in size
    rtf         seconds of computing per second of audio, one thread, 5 s of speech
    cer, wer    percent; with a sign, points more than the original has: cer<=+1.0

Limits are joined by commas; each is metric, < or <=, number, unit. ``Measures`` are what a model has of
these; a limit on something that was not measured counts as broken, since nobody knows.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from firstwords.errors import FirstwordsError, UsageError

Metric = Literal["size", "parameters", "macs", "memory", "rtf", "cer", "wer"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Measures = Mapping[Metric, float]  # rates in percent, the rest as in the table above

_BYTES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1024.0, "mib": 1024.0**2}
_COUNT = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_WRITTEN = {
    "b": "B",
    "kb": "KB",
    "mb": "MB",
    "gb": "GB",
    "kib": "KiB",
    "mib": "MiB",
    "k": "K",
    "m": "M",
    "g": "G",
}
_UNITS: dict[Metric, dict[str, float]] = {
    "size": _BYTES,
    "memory": _BYTES,
    "parameters": _COUNT,
    "macs": _COUNT,
    "rtf": {"": 1.0},
    "cer": {"": 1.0, "%": 1.0},
    "wer": {"": 1.0, "%": 1.0},
}
_RATES: tuple[Metric, ...] = ("cer", "wer")
_LIMIT = re.compile(r"([a-z]+)\s*(<=|<)\s*([+-]?)(\d+\.?\d*|\.\d+)\s*([a-z%]*)")
EXAMPLE = '"size<1MB, rtf<0.05, cer<=+1.0"'


@dataclass(frozen=True)
class Limit:
    """One bound.

    Args:
        strict: True for <, False for <=.
        relative: True where ``value`` is points more than the original has.
    """

    metric: Metric
    value: float
    strict: bool
    relative: bool = False

    def bound(self, original: Measures) -> float:
        """The greatest value that is allowed; nan where that depends on what was not measured."""
        return self.value + original.get(self.metric, math.nan) if self.relative else self.value

    def holds(self, measures: Measures, original: Measures) -> bool:
        """False, too, where nothing is known."""
        value, bound = measures.get(self.metric, math.nan), self.bound(original)
        # Rates are quotients of counts: 11.0 points may be 10.999999999999998.
        return value < bound if self.strict else value <= bound + 1e-9 * max(1.0, abs(bound))

    def excess(self, measures: Measures, original: Measures) -> float:
        """How far beyond the bound, in doublings: 0 inside, 1 for twice as much; infinite if unknown.

        Doublings, so that a limit that nobody can keep does not drown the others with the noise of its
        measurement. A bound that is not above 0 has none: there it is the difference.
        """
        if self.holds(measures, original):
            return 0.0
        value, bound = measures.get(self.metric, math.nan), self.bound(original)
        if math.isnan(value) or math.isnan(bound):
            return math.inf
        return max(math.log2(value / bound) if bound > 0 else value - bound, 1e-9)

    def __str__(self) -> str:
        sign = ("+" if self.value >= 0 else "") if self.relative else ""
        return f"{self.metric}{'<' if self.strict else '<='}{sign}{shown(self.metric, self.value)}"


@dataclass(frozen=True)
class Broken:
    """A limit that a model does not keep, in words."""

    limit: Limit
    value: float
    bound: float

    def __str__(self) -> str:
        if math.isnan(self.value) or math.isnan(self.bound):
            return f"{self.limit.metric} was not measured (wanted {self.limit})"
        metric, over = self.limit.metric, self.value - self.bound
        by = f"{over:.2f} points" if metric in _RATES else f"{shown(metric, over)}"
        share = f", {100 * over / self.bound:.0f} %" if metric not in _RATES and self.bound > 0 else ""
        return f"{metric} is {shown(metric, self.value)}, {by} above {shown(metric, self.bound)}{share}"


@dataclass(frozen=True)
class Target:
    """All limits."""

    limits: tuple[Limit, ...]

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises UsageError that names what is wrong and what there is."""
        limits: list[Limit] = []
        for part in (piece.strip() for piece in text.lower().split(",")):
            limits.append(_limit(part, text))
            if [limit.metric for limit in limits].count(limits[-1].metric) > 1:
                raise UsageError(f"--target: {limits[-1].metric} stands twice.", mend="Keep one of them.")
        return cls(tuple(limits))

    def broken(self, measures: Measures, original: Measures) -> list[Broken]:
        """The limits that are not kept."""
        return [
            Broken(limit, measures.get(limit.metric, math.nan), limit.bound(original))
            for limit in self.limits
            if not limit.holds(measures, original)
        ]

    def excess(self, measures: Measures, original: Measures) -> float:
        """The sum of all excesses: 0 where the target is met. What attempts are ranked by."""
        return sum(limit.excess(measures, original) for limit in self.limits)

    def limit(self, metric: Metric) -> Limit | None:
        """The bound on one metric, if there is one."""
        return next((limit for limit in self.limits if limit.metric == metric), None)

    def __str__(self) -> str:
        return ", ".join(map(str, self.limits))


def fitting(candidates: Sequence[tuple[Path, Measures]], target: Target) -> tuple[Path | None, list[str]]:
    """Of several models the one with the fewest errors that keeps to the limits, or why none does.

    Relative limits are points more than the first one has.
    """
    if not candidates:
        raise FirstwordsError("There is nothing to choose from.", mend="Name model folders.")
    original = candidates[0][1]
    why: list[str] = []
    fits: list[tuple[float, float, Path]] = []
    for folder, measures in candidates:
        broken = target.broken(measures, original)
        if broken:
            why.append(f"{folder}: {'; '.join(map(str, broken))}")
        else:
            fits.append((measures.get("cer", 0.0), measures.get("size", 0.0), folder))
    return (min(fits)[2] if fits else None), why


def shown(metric: Metric, value: float) -> str:
    """A value of a metric with its unit."""
    if metric in ("size", "memory"):
        for unit, scale in (("MB", 1e6), ("KB", 1e3)):
            if abs(value) >= scale:
                return f"{value / scale:.2f}{unit}"
        return f"{value:.0f}B"
    if metric in ("parameters", "macs"):
        for unit, scale in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
            if abs(value) >= scale:
                return f"{value / scale:.2f}{unit}"
        return f"{value:.0f}"
    return f"{value:.2f}%" if metric in _RATES else f"{value:.4g}"


def _limit(part: str, text: str) -> Limit:
    found = _LIMIT.fullmatch(part)
    if found is None:
        raise UsageError(
            f"--target: '{part}' is no limit{f' (in {text!r})' if part != text else ''}.",
            mend=f"Write metric, < or <=, number, unit, and commas between: {EXAMPLE}.",
        )
    name, sign, plus, number, unit = found.groups()
    metric = dict(zip(map(str, METRICS), METRICS, strict=True)).get(name)
    if metric is None:
        near = difflib.get_close_matches(name, METRICS, n=1)
        raise UsageError(
            f"--target: there is no metric '{name}'.",
            mend=f"Did you mean {near[0]}?" if near else f"There are {', '.join(METRICS)}.",
        )
    if unit not in _UNITS[metric]:
        known = ", ".join(_WRITTEN.get(u, u.upper()) for u in _UNITS[metric] if u) or "none"
        raise UsageError(f"--target: {metric} has no unit '{unit}'.", mend=f"Units of {metric}: {known}.")
    if plus and metric not in _RATES:
        raise UsageError(
            f"--target: {part}: only cer and wer may be told as points more than the original has.",
            mend=f"Leave the '{plus}' away.",
        )
    value = float(number) * _UNITS[metric][unit] * (-1.0 if plus == "-" else 1.0)
    if value == 0 and not plus and metric not in _RATES:
        raise UsageError(f"--target: {part}: nothing has a {metric} of 0.", mend="Give more.")
    return Limit(metric, value, sign == "<", bool(plus))
