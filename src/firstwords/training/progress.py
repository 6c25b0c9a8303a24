"""What the user sees while a model learns: one live line, or plain lines where there is no terminal.

    step 840/2190 · loss 1.32 · dev CER 24.1 % · 34 audio-s/s · waiting for data 1 % · 12 to 15 min left

The time left is a range: from the faster and the slower fifth of the recent steps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from firstwords.training.tasks.task import Sample, Validation

PLAIN_EVERY = 30.0  # seconds between lines where nothing can be redrawn
WINDOW = 50  # steps that speed and time left are taken from


@dataclass
class Standing:
    """Where the run is; what the line is made of."""

    step: int = 0
    steps: int = 0
    loss: float = float("nan")
    dev: str = ""
    audio_per_second: float = 0.0
    waiting: float = 0.0  # share of the time spent on waiting for data
    left: tuple[float, float] | None = None  # seconds
    unit: str = "audio-s"

    def line(self) -> str:
        """One line of text."""
        parts = [f"step {self.step}/{self.steps}", f"loss {self.loss:.3f}"]
        parts += [self.dev] if self.dev else []
        parts += [f"{self.audio_per_second:.0f} {self.unit}/s", f"waiting for data {self.waiting:.0%}"]
        parts += [f"{time_range(*self.left)} left"] if self.left else []
        return " · ".join(parts)


class Progress:
    """Draws the line. ``quiet`` draws nothing (other processes, tests); speed is in ``unit``s a second."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False, unit: str = "audio-s") -> None:
        self.console = console or Console()  # rich honours NO_COLOR and finds out about terminals
        self.quiet = quiet
        self.unit = unit
        self._times: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)  # seconds, audio, waited
        self._live: Live | None = None
        self._plain_at = 0.0
        self._loss = float("nan")
        self._dev = ""

    def start(self) -> None:
        """Begin to draw."""
        if not self.quiet and self.console.is_terminal:
            self._live = Live(Text("starting"), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        self._plain_at = time.monotonic()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, message: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self.console.print(escape(message), highlight=False, soft_wrap=True)

    def step(
        self, step: int, steps: int, *, loss: float, seconds: float, audio: float, waited: float
    ) -> None:
        """One more step of ``seconds`` with ``audio`` seconds (or tokens) in it."""
        self._times.append((seconds, audio, waited))
        smooth = 0.9 if self._loss == self._loss else 0.0
        self._loss = (
            smooth * (self._loss if smooth else 0.0) + (1 - smooth) * loss if loss == loss else self._loss
        )
        if self.quiet:
            return
        standing = self.standing(step, steps)
        if self._live is not None:
            self._live.update(Text(standing.line()))
        elif time.monotonic() - self._plain_at >= PLAIN_EVERY:
            self._plain_at = time.monotonic()
            self.console.print(standing.line(), highlight=False, soft_wrap=True)

    def standing(self, step: int, steps: int) -> Standing:
        """The numbers of the line."""
        seconds = [s for s, _, _ in self._times]
        total = max(sum(seconds), 1e-9)
        left = time_left(seconds, steps - step)
        return Standing(
            step,
            steps,
            self._loss,
            self._dev,
            sum(a for _, a, _ in self._times) / total,
            sum(w for _, _, w in self._times) / total,
            left,
            self.unit,
        )

    def validated(self, step: int, validation: Validation, which: str, best: bool) -> None:
        """Show a dev result with a few decoded utterances."""
        numbers = validation.numbers
        self._dev = validation.headline or f"dev CER {100 * numbers.get('cer', validation.objective):.1f} %"
        if self.quiet:
            return
        shown = (
            f"step {step}: {self._dev}, WER {100 * numbers['wer']:.1f} %" if "wer" in numbers else self._dev
        )
        self.say(f"{shown} ({which} weights{', best so far' if best else ''})")
        for sample in validation.samples:
            self.say(_shown(sample))


def _shown(sample: Sample) -> str:
    width = 90
    reference, hypothesis = (
        t if len(t) <= width else t[: width - 1] + "…" for t in (sample.reference, sample.hypothesis)
    )
    return f"    said   {reference}\n    heard  {hypothesis or '(nothing)'}"


def time_left(seconds: Sequence[float], steps: int) -> tuple[float, float] | None:
    """Times of recent steps and the number to come -> seconds left, from and to."""
    if len(seconds) < 3:
        return None
    # Means of blocks of five: single steps differ by the length of their utterances, which evens out.
    blocks = [sum(seconds[i : i + 5]) / len(seconds[i : i + 5]) for i in range(0, len(seconds), 5)]
    blocks.sort()
    fast, slow = blocks[len(blocks) // 5], blocks[-1 - len(blocks) // 5]
    return fast * steps, slow * steps


def time_range(low: float, high: float) -> str:
    """Seconds from and to -> a range as people say it: '12 to 15 min'."""
    unit, name = (1, "s") if high < 90 else (60, "min") if high < 5400 else (3600, "h")
    digits = 1 if name == "h" else 0
    first, second = f"{low / unit:.{digits}f}", f"{high / unit:.{digits}f}"
    return f"{first} {name}" if first == second else f"{first} to {second} {name}"
