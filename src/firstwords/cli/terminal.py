"""Where commands write to, and the bars that they show there while they work; none where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_REDRAWN_AFTER = 1 << 18  # bytes of text: to redraw for every line would take longer than to read it


def plain_console(*, stderr: bool = False) -> Console:
    """A console that writes lines as they are: nothing in them is markup, wrapped or coloured."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)


def counting_bar(console: Console) -> Progress:
    """A bar of so many of so many things, and the time that is left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def counted(console: Console, what: str) -> Generator[Callable[[int, int], None]]:
    """The same for one task: call it with what is done, and of how many."""
    with counting_bar(console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def reading_bar(console: Console, what: str, files: Sequence[Path]) -> Generator[Callable[[int], None]]:
    """A bar over the bytes of the files: call it with the size of what was read."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        # what a compressed file holds is not known beforehand
        known = not any(path.suffix == ".gz" for path in files)
        task = bar.add_task("", total=sum(p.stat().st_size for p in files) if known else None)
        done = waiting = 0

        def told(size: int) -> None:
            nonlocal done, waiting
            done, waiting = done + size, waiting + size
            if waiting > _REDRAWN_AFTER:
                bar.update(task, completed=done)
                waiting = 0

        yield told
