"""Numbers -> charts as inline SVG, each with a table of the same numbers for those who cannot see it.

The drawing area is laid out in percent and the letters in rem, so text keeps its size at 360 and at 1366
pixels; only marks stretch. Curves live in an inner SVG that may stretch both ways while
``vector-effect: non-scaling-stroke`` keeps their width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from firstwords.report.page import Cell, details, table
from firstwords.report.style import DASHES

_HEIGHT = 220  # drawing area in pixels
_ROW = 36  # one horizontal bar with its label above
_SERIES = len(DASHES)


def _figure(
    title: str,
    note: str,
    drawing: Markup,
    headers: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    digits: int,
) -> Markup:
    small = Markup("<small>{0}</small>").format(note) if note else Markup("")
    twin = details("The same in numbers", table(headers, rows, caption=title, digits=digits))
    return Markup("<figure><figcaption>{0}{1}</figcaption>{2}{3}</figure>").format(
        title, small, drawing, twin
    )


def number(value: float) -> str:
    """A short axis label: 0.25, 12, 1500, 2.5e+06."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most ``most`` + 1 round numbers that span [low, high]."""
    size = max(abs(low), abs(high))
    if high - low <= 1e-6 * size or high <= low:  # too narrow to tell steps apart
        high = low + max(1.0, 1e-3 * size)
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def bar_chart(
    values: Mapping[str, float],
    *,
    title: str,
    unit: str = "",
    note: str = "",
    digits: int = 2,
    most: int = 30,
) -> Markup:
    """Label -> number as horizontal bars, in the given order.

    Only the first ``most`` are drawn (the caption says so); the table holds all.
    """
    shown = list(values.items())[:most]
    largest = max((v for _, v in shown if math.isfinite(v)), default=0.0) or 1.0
    bars: list[Markup] = []
    for row, (label, value) in enumerate(shown):
        width = max(0.0, value / largest * 100) if math.isfinite(value) else 0.0
        short = label if len(label) <= 40 else label[:39] + "…"
        y = row * _ROW
        bars.append(
            Markup(
                '<g><title>{0}: {1}</title><text x="0" y="{2}">{3}</text>'
                '<rect x="0" y="{4}" width="{5:.2f}%" height="12" fill="var(--series-1)"/>'
                '<text x="{5:.2f}%" dx="6" y="{6}">{1}</text></g>'
            ).format(label, f"{value:,.{digits}f} {unit}".strip(), y + 12, short, y + 17, width, y + 27)
        )
    if len(values) > most:
        note = f"{note} The first {most} of {len(values)} are drawn.".strip()
    summary = f"{title}: {len(values)} bars, largest {number(largest)} {unit}".strip()
    drawing = Markup('<svg class="chart bars" role="img" aria-label="{0}" height="{1}">{2}</svg>').format(
        summary, max(1, len(shown)) * _ROW, Markup("").join(bars)
    )
    return _figure(title, note, drawing, ["", unit or "value"], list(values.items()), digits)


def histogram(
    values: Sequence[float],
    *,
    title: str,
    x_label: str,
    y_label: str = "count",
    bins: int = 24,
    note: str = "",
    low: float | None = None,
    high: float | None = None,
) -> Markup:
    """Numbers -> how many fall into each of about ``bins`` equal steps.

    Numbers outside [low, high] are counted in the first and last step.
    """
    finite = [float(v) for v in values if math.isfinite(v)]
    if not finite:
        return _figure(title, "No numbers.", Markup(""), [x_label, y_label], [], 0)
    first = min(finite) if low is None else low
    last = max(finite) if high is None else high
    edges = ticks(first, last, most=bins)
    counts = [0] * (len(edges) - 1)
    step = edges[1] - edges[0]
    for value in finite:
        counts[min(len(counts) - 1, max(0, math.floor((value - edges[0]) / step + 1e-9)))] += 1
    names = [f"{number(a)}–{number(b)}" for a, b in itertools.pairwise(edges)]
    top = ticks(0, max(counts))
    width = 100 / len(counts)
    marks = [
        Markup(
            '<g><title>{0}: {1}</title><rect x="{2:.3f}%" y="{3:.1f}" width="{4:.3f}%" height="{5:.1f}"'
            ' fill="var(--series-1)" stroke="var(--paper)"/></g>'
        ).format(name, count, k * width, _HEIGHT - (h := count / top[-1] * _HEIGHT), width, h)
        for k, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    every = max(1, math.ceil(len(edges) / 6))
    below = [(k * width, number(edge)) for k, edge in enumerate(edges) if k % every == 0]
    drawing = _plot(title, Markup("").join(marks), below, top, x_label, y_label)
    return _figure(title, note, drawing, [x_label, y_label], list(zip(names, counts, strict=True)), 0)


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    note: str = "",
    digits: int = 4,
) -> Markup:
    """Name -> points (x, y) as curves, at most five; non-finite points are left out of the curve.

    Args:
        log_y: draw the logarithm (points at or below 0 are left out).
    """
    if len(series) > _SERIES:
        raise ValueError(f"chart '{title}': {len(series)} curves, at most {_SERIES} can be told apart")
    clean = {
        name: [(float(x), float(y)) for x, y in points if math.isfinite(y) and (y > 0 or not log_y)]
        for name, points in series.items()
    }
    every = [p for points in clean.values() for p in points]
    rows: list[list[Cell]] = [
        [name, x, float(y)] for name, points in series.items() for x, y in _thin(points)
    ]
    headers = ["curve", x_label, y_label]
    if not every:
        return _figure(title, "No numbers yet.", Markup(""), headers, rows, digits)
    scale = math.log10 if log_y else float
    heights = [scale(y) for _, y in every]
    if log_y:
        side = [float(k) for k in range(math.floor(min(heights)), math.ceil(max(heights)) + 1)]
        side = side if len(side) > 1 else [side[0], side[0] + 1]
    else:
        side = ticks(min(0.0, *heights), max(heights))
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    right = right if right > left else left + 1
    curves, legend = Markup(""), Markup("")
    for k, (name, points) in enumerate(clean.items()):
        across, down = 1000 / (right - left), 1000 / (side[-1] - side[0])
        path = " ".join(f"{(x - left) * across:.1f},{(side[-1] - scale(y)) * down:.1f}" for x, y in points)
        ink = Markup('stroke="var(--series-{0})" stroke-dasharray="{1}"').format(k + 1, DASHES[k])
        shape = 'M {0} l 0 0" stroke-linecap="round' if len(points) == 1 else "M {0}"
        curves += Markup('<path class="line" d="' + shape + '" {1}><title>{2}</title></path>').format(
            path, ink, name
        )
        legend += Markup(
            '<li><svg aria-hidden="true"><line x1="0" x2="100%" y1="50%" y2="50%" stroke-width="2"'
            ' style="stroke:var(--series-{0});stroke-dasharray:{1}"/></svg><span dir="auto">{2}</span></li>'
        ).format(k + 1, DASHES[k], name)
    inner = Markup(
        '<svg width="100%" height="{0}" viewBox="0 0 1000 1000" preserveAspectRatio="none">{1}</svg>'
    ).format(_HEIGHT, curves)
    below = [((x - left) / (right - left) * 100, number(x)) for x in ticks(left, right) if left <= x <= right]
    names = [number(10.0**s) for s in side] if log_y else None
    drawing = Markup('<ul class="legend">{0}</ul>').format(legend)
    drawing += _plot(title, inner, below, side, x_label, y_label, names)
    return _figure(title, note, drawing, headers, rows, digits)


def _thin(points: Sequence[tuple[float, float]], most: int = 60) -> list[tuple[float, float]]:
    """At most about ``most`` points for the table, first and last always among them."""
    if len(points) <= most:
        return list(points)
    step = math.ceil(len(points) / most)
    kept = list(points[::step])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _plot(
    title: str,
    marks: Markup,
    below: Sequence[tuple[float, str]],
    side: Sequence[float],
    x_label: str,
    y_label: str,
    names: Sequence[str] | None = None,
) -> Markup:
    """Marks over a grid: labels ``below`` at percents of the width, ``side`` values from bottom to top."""
    grid = Markup("")
    span = side[-1] - side[0]
    for k, value in enumerate(side):
        y = _HEIGHT - (value - side[0]) / span * _HEIGHT
        grid += Markup(
            '<line x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>'
            '<text class="axis" x="-6" y="{0:.1f}" dy="4" text-anchor="end">{1}</text>'
        ).format(y, names[k] if names else number(value))
    for x, label in below:
        grid += Markup('<text class="axis" x="{0:.2f}%" y="{1}" text-anchor="middle">{2}</text>').format(
            x, _HEIGHT + 18, label
        )
    ends = Markup(
        '<text class="axis" x="0" y="12">{0}</text>'
        '<text class="axis" x="100%" y="{1}" text-anchor="end">{2}</text>'
    ).format(y_label, _HEIGHT + 50, x_label)
    return Markup(
        '<svg class="chart" role="img" aria-label="{0}: {1} over {2}" height="{3}">'
        '<g transform="translate(0 16)">{4}{5}</g>{6}</svg>'
    ).format(title, y_label, x_label, _HEIGHT + 58, grid, marks, ends)


def scatter_chart(
    points: Sequence[tuple[str, float, float]],
    front: Sequence[str],
    *,
    title: str,
    x_label: str,
    y_label: str,
    note: str = "",
    digits: int = 3,
) -> Markup:
    """(name, x, y) as labelled dots; those named in ``front`` are joined by a line, in the order of x.

    Points that are not finite stand in the table alone.
    """
    shown = [(name, x, y) for name, x, y in points if math.isfinite(x) and math.isfinite(y)]
    headers, rows = ["", x_label, y_label], [[*point] for point in points]
    if not shown:
        return _figure(title, "No numbers.", Markup(""), headers, rows, digits)
    across = ticks(min(0.0, *(x for _, x, _ in shown)), max(x for _, x, _ in shown))
    side = ticks(min(0.0, *(y for _, _, y in shown)), max(y for _, _, y in shown))

    def left(x: float) -> float:
        return (x - across[0]) / (across[-1] - across[0]) * 100

    def top(y: float) -> float:
        return _HEIGHT - (y - side[0]) / (side[-1] - side[0]) * _HEIGHT

    best = sorted((x, y) for name, x, y in shown if name in front)
    marks = Markup("").join(
        Markup(
            '<line x1="{0:.2f}%" y1="{1:.1f}" x2="{2:.2f}%" y2="{3:.1f}" style="stroke:var(--series-1)"/>'
        ).format(left(x1), top(y1), left(x2), top(y2))
        for (x1, y1), (x2, y2) in itertools.pairwise(best)
    )
    for name, x, y in shown:
        end = left(x) > 60  # the label stands where there is room
        marks += Markup(
            "<g><title>{0}: {1}, {2}</title>"
            '<circle cx="{3:.2f}%" cy="{4:.1f}" r="{5}" fill="var(--series-1)"/>'
            '<text x="{3:.2f}%" y="{4:.1f}" dx="{6}" dy="-6" text-anchor="{7}">{8}</text></g>'
        ).format(
            name,
            number(x),
            number(y),
            left(x),
            top(y),
            5 if name in front else 3,
            -8 if end else 8,
            "end" if end else "start",
            name if len(name) <= 24 else name[:23] + "…",
        )
    below = [(left(x), number(x)) for x in across]
    return _figure(title, note, _plot(title, marks, below, side, x_label, y_label), headers, rows, digits)
