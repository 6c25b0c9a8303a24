"""What 'firstwords lm tune' shows: how much is tried, how far it is, what was found and what it brought."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from firstwords.errors import quoted

if TYPE_CHECKING:
    from firstwords.inference.tuning import Choice, Progress
    from firstwords.scoring.error_rate import ErrorRate
    from firstwords.scoring.significance import Interval
    from firstwords.search.interface import SearchConfig
    from firstwords.search.tuning import Setting, TakenOff, Tuned

_PLAIN_EVERY = 60.0  # seconds between lines where nothing can be redrawn


def print_plan(searches: Sequence[SearchConfig], *, source: bool, console: Console) -> None:
    """How many settings there are for each search, and how many of them will be tried."""
    from firstwords.inference.tuning import grid_for
    from firstwords.search.search import search_words

    for search in searches:
        grid = grid_for(search, source=source)
        axes = ", ".join(name.replace("_", " ") for name in grid.axes)
        console.print(
            f"{search_words(search)}: of {grid.combinations:,} combinations of {axes} about "
            f"{grid.usual_trials} are tried."
        )


def print_choice(choice: Choice, measure: str, source: Path | None, console: Console) -> None:
    """Tables of what was tried, and what the best of it brings.

    Args:
        measure: "WER" or "CER".
        source: folder of the model of the training transcripts, if there is one.
    """
    from firstwords.inference.tuning import is_approximate
    from firstwords.search.search import search_words

    name, tuned = search_words(choice.search), choice.tuned
    looked_for = _looked_for(choice)
    fixed = "".join(f", {off.replace('_', ' ')} {value:g}" for off, value in looked_for.items())
    table = f"{name}: {measure} in % by weight (rows) and bonus (columns)"
    console.print(f"\n{table}{', nothing taken off' if looked_for else ''}, * the best")
    _print_table(_grid(tuned, tuned.untouched), console)
    if tuned.setting.taken_off:
        console.print(f"{table}{fixed}, * the best")
        _print_table(_grid(tuned, tuned.setting), console)
    for off, best in looked_for.items():
        console.print(f"{name}: {measure} in % by {off.replace('_', ' ')}, whatever the others; * the best")
        tried = tuned.along(off).items()
        _print_table([[f"{value:g}" for value, _ in tried], [_cell(r, v == best) for v, r in tried]], console)
    setting, before, after = tuned.setting, tuned.without, tuned.rate
    line = (
        f"{name}: weight {setting.weight:g}, bonus {setting.bonus:g}{fixed}; {measure} "
        f"{100 * before.rate:.2f} % without the language model, {100 * after.rate:.2f} % with it"
        f"{_saved(before, after, choice.gain)}"
    )
    if not setting.weight:
        line += "; the language model does not help here"
    if how := is_approximate(choice):
        line += f"; {how}"
    console.print(f"{line}.")
    for off, value in looked_for.items():
        if not value:
            console.print(f"{name}: {_named(off, source)} is not taken off: that does not help here.")
    if choice.gain_off is not None:
        kept = tuned.tried[tuned.untouched]
        what = " and ".join(_named(off, source) for off, value in looked_for.items() if value)
        console.print(
            f"{name}: {what} taken off; {measure} {100 * kept.rate:.2f} % at best where nothing is, "
            f"{100 * after.rate:.2f} % so{_saved(kept, after, choice.gain_off)}."
        )


def print_end(model: Path, corpus: Path, lm: Path, last: Choice, rest: str, console: Console) -> None:
    """Where it was written, and the next step.

    Args:
        rest: further options of that step.
    """
    beam = f" --beam {last.setting.beam}" if last.setting.beam > 1 else ""
    console.print(
        "They were chosen on these utterances, so these figures are a little too good; what they are worth "
        "is measured on others."
    )
    console.print(
        f"Written to {lm / 'tuned.toml'}.\n"
        f"Next: firstwords evaluate {quoted(model)} {quoted(corpus)} --lm {quoted(lm)}{beam}{rest}"
    )


@contextmanager
def shown(
    console: Console, clock: Callable[[], float] = time.monotonic
) -> Generator[Callable[[Progress], None]]:
    """A bar with the time that is left, or a line a minute where there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, int] = {}
        begun: dict[str, float] = {}
        said = clock()

        def told(progress: Progress) -> None:
            nonlocal said
            if progress.what not in tasks:
                tasks[progress.what] = bar.add_task(progress.what, total=progress.total)
                begun[progress.what] = clock()
            bar.update(tasks[progress.what], completed=progress.done, total=progress.total)  # pyright: ignore[reportArgumentType]
            if not console.is_terminal and clock() - said >= _PLAIN_EVERY and progress.done:
                said = clock()
                left = (said - begun[progress.what]) / progress.done * (progress.total - progress.done)
                console.print(
                    f"{progress.what}: {progress.done} of about {progress.total}, {left / 60:.0f} min left"
                )

        yield told


# -- one step below


def _looked_for(choice: Choice) -> dict[TakenOff, float]:
    """What might have been taken off, and how much of it is."""
    both: dict[TakenOff, float | None] = {
        "source_weight": choice.setting.source_weight,
        "internal_weight": choice.setting.internal_weight,
    }
    return {name: value for name, value in both.items() if value is not None}


def _named(off: TakenOff, source: Path | None) -> str:
    """What is taken off, in words."""
    return (
        f"language model {source}" if off == "source_weight" else "what the recogniser itself knows of text"
    )


def _saved(before: ErrorRate, after: ErrorRate, gain: Interval) -> str:
    """How many errors are saved, with its interval; nothing where there were none."""
    if not before.errors:
        return ""
    return (
        f": {100 * (1 - after.errors / before.errors):.1f} % fewer errors ({100 * gain.level:.0f} % interval "
        f"{100 * gain.low:.1f} to {100 * gain.high:.1f} %, bootstrap over {gain.groups} {gain.unit}s)"
    )


def _grid(tuned: Tuned, best: Setting) -> list[list[str]]:
    """What was tried where as much is taken off as in this setting; places that were not are empty."""
    tried = {s: rate for s, rate in tuned.tried.items() if s[2:] == best[2:]}
    bonuses = sorted({setting.bonus for setting in tried})
    rows = [["", *(f"{bonus:g}" for bonus in bonuses)]]
    for weight in sorted({setting.weight for setting in tried}):
        places = [best._replace(weight=weight, bonus=bonus) for bonus in bonuses]
        rows.append([f"{weight:g}", *(_cell(tried.get(place), place == best) for place in places)])
    return rows


def _cell(rate: ErrorRate | None, best: bool) -> str:
    return "" if rate is None else f"{100 * rate.rate:.2f}{'*' if best else ' '}"


def _print_table(rows: Sequence[Sequence[str]], console: Console) -> None:
    """Rows of equally many cells, which stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        console.print(" ".join(cells).rstrip())
