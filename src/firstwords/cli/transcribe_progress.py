"""What 'firstwords transcribe' shows while it works: a bar, or a line a minute where there is no terminal.

3 h 12 min of 10 h 0 min of audio, 41 min 20 s left
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from firstwords.inference.journal import hours_and_minutes

PLAIN_EVERY = 60.0  # seconds between lines where nothing can be redrawn
_RECENT = 50  # updates that the speed is taken from


class AudioProgress:
    """How much audio is done, and how long the rest will take at the speed of late.

    Args:
        total: seconds of audio of all recordings.
        clock: seconds that only grow.
    """

    def __init__(self, console: Console, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._total, self._clock = console, total, clock
        self._before = 0.0  # seconds of the recordings that are over
        self._marks: deque[tuple[float, float]] = deque([(clock(), 0.0)], maxlen=_RECENT)  # (when, done)
        self._said = clock()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[audio]}", markup=False),
            TimeElapsedColumn(),
        )
        self._bar = Progress(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=False,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("transcribing", total=total, audio="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, seconds: float) -> None:
        """So many seconds of the present recording are done."""
        done = min(self._before + seconds, self._total)
        self._marks.append((self._clock(), done))
        self._bar.update(self._task, completed=done, audio=self.line())
        if not self._console.is_terminal and self._clock() - self._said >= PLAIN_EVERY:
            self._said = self._clock()
            self._console.print(self.line())

    def take_up(self, seconds: float) -> None:
        """An earlier call did so many seconds of the present recording: they say nothing about the speed."""
        self._marks.clear()
        self.show(seconds)

    def next(self, duration: float) -> None:
        """The present recording is over."""
        self._before += duration
        self.show(0.0)

    def line(self) -> str:
        """What is done and what is left, in words."""
        (began, first), (now, done) = self._marks[0], self._marks[-1]
        line = f"{hours_and_minutes(done)} of {hours_and_minutes(self._total)} of audio"
        if done <= first or now <= began:
            return line
        left = (self._total - done) * (now - began) / (done - first)
        return f"{line}, {hours_and_minutes(left)} left"
