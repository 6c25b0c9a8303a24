"""What the columns of a table look like, whatever their names: guesses, to be shown and never acted upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from firstwords.errors import quoted


def parse_seconds(cell: str) -> float:
    """'12.5', '12,5' or '0:00:12.5' -> seconds; anything else is a ValueError."""
    sign, rest = (-1, cell.strip()[1:]) if cell.strip().startswith("-") else (1, cell.strip())
    seconds = 0.0
    for part in rest.replace(",", ".").split(":"):
        seconds = seconds * 60 + float(part)
    return sign * seconds


def likely_columns(
    header: Sequence[str], lines: Sequence[Sequence[str]], leads: Callable[[str], bool]
) -> dict[str, str]:
    """The columns that look most like audio (their cells lead to recordings) and text (most letters)."""
    cells = [[line[i].strip() for line in lines if i < len(line)] for i in range(len(header))]
    leading = [sum(map(leads, column)) for column in cells]
    audio = leading.index(max(leading))
    letters = [sum(c.isalpha() for cell in column for c in cell) for column in cells]
    others = [i for i in range(len(header)) if i != audio] or [audio]
    return {"audio": header[audio], "text": header[max(others, key=lambda i: letters[i])]}


def without_times(rows: Sequence[tuple[str, str, Mapping[str, str]]]) -> list[str]:
    """What to tell of rows (audio, text, other cells) where several texts stand for one recording."""
    texts: dict[str, set[str]] = {}
    for audio, text, _ in rows:
        texts.setdefault(audio, set()).add(text)
    several = sum(len(texts[audio]) > 1 for audio, _, _ in rows)
    if not several or 2 * several < len(rows):
        return []
    numbers = {name: _seconds([labels[name] for _, _, labels in rows]) for name in rows[0][2]}
    filled = [(name, column) for name, column in numbers.items() if column]
    pairs = (
        (a, b)
        for (a, first), (b, last) in combinations(filled, 2)
        if all(x < y for x, y in zip(first, last, strict=True))
    )
    start, end = next(pairs, ("NAME", "NAME"))
    return [
        f"{several} rows share their recording with others, and no column is known to say when each begins, "
        "so every row was taken for the whole recording. Say which columns hold the times in seconds: "
        f"--column start={quoted(start)} --column end={quoted(end)} (or duration=, start_ms=, end_ms=)."
    ]


def _seconds(cells: Sequence[str]) -> list[float]:
    """A column as times; empty where one of its cells is none."""
    try:
        return [parse_seconds(cell) for cell in cells]
    except ValueError:
        return []
