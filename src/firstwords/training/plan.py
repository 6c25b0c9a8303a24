"""How long a run is, and where in it a step stands.

Everything that follows a schedule (learning rate, regularisers, averaging, validation) follows the
*progress* of the run, 0 before the first step and 1 after the last. With a time budget the number of steps
comes from a measured speed; when the machine turns out faster or slower, the rest of the run is planned
anew, and progress goes on from where it is, so the learning rate still reaches its end when the time does:

    progress 1 |            . `    steps 0-400 planned for 1000; from step 400 on for 800
               |        . `
               |   . `
               +----+----+----+
               0   400  800 1000

A plan is part of every checkpoint: a resumed run keeps it, and replans at the same steps or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

# The reference trains with batches of 600 seconds and its schedules end after 20000 of them
# (zipformer.md 9). A run of an hour makes a tenth of that: scaled so, it passes through all phases in its
# first third. (With phases all through the run and dropout from 0.3, yoruba was still writing nothing after 8
# of 80 passes; with a scale 2.3 times as large and dropout from 0.15 it was at 48 % CER: LOG.md, 2026-11-21.
# A third is a choice between that and the two to four times of later runs, not a measurement.)
REFERENCE_SECONDS = 600.0
REFERENCE_STEPS = 20000.0
PHASES = 0.3  # of the run

REPLAN_AT = (0.1, 0.25, 0.45, 0.65, 0.8)  # progress at which the time left is looked at again
_WORTH_REPLANNING = 0.05  # relative change of the steps left
_FEWEST = 3  # validations
_MOST_VALIDATING = 1 / 3  # of the time


@dataclass(frozen=True)
class Segment:
    """From ``step`` at ``progress``, straight to progress 1 at step ``end``."""

    step: int
    progress: float
    end: int


@dataclass(frozen=True)
class Plan:
    """The length of a run.

    Args:
        steps: optimizer steps as first planned; schedules are shaped for this number.
        segments: how progress grows; at least one.
        batch_seconds: most cost-seconds of a batch after the memory was measured.
        validate_every: optimizer steps.
        schedule_scale: batches of the reference recipe per step.
        minutes: wall clock of the whole run, None: as long as it takes.
    """

    steps: int
    segments: tuple[Segment, ...]
    batch_seconds: float
    validate_every: int
    schedule_scale: float
    minutes: float | None = None
    most_steps: int | None = None  # more than these are never planned, whatever the time allows
    reserve_seconds: float = 0.0  # of the time budget, for what comes after the last step

    @property
    def last_step(self) -> int:
        """The step after which training ends, as things stand."""
        return self.segments[-1].end

    def progress(self, step: int) -> float:
        """Share of the run that is done after ``step`` steps, 0 to 1."""
        segment = next(s for s in reversed(self.segments) if s.step <= step or s is self.segments[0])
        if step >= segment.end:
            return 1.0
        share = (step - segment.step) / (segment.end - segment.step)
        return segment.progress + share * (1.0 - segment.progress)

    def planned_step(self, step: int) -> int:
        """The step of the first plan with the same progress: what schedules see, from 1."""
        return max(1, min(self.steps, round(self.progress(step) * self.steps)))

    def count(self, step: int) -> float:
        """Batches of the reference recipe that ``step`` stands for."""
        return self.planned_step(step) * self.schedule_scale

    def crosses(self, step: int, marks: tuple[float, ...]) -> bool:
        """True where ``step`` is the first one at or beyond one of ``marks`` of progress."""
        before, now = self.progress(step - 1), self.progress(step)
        return any(before < mark <= now for mark in marks)

    def replanned(self, step: int, steps_left: int) -> Self:
        """The plan with another number of steps from ``step`` on; itself where it hardly changes."""
        if self.most_steps is not None:
            steps_left = min(steps_left, self.most_steps - step)
        old = self.last_step - step
        if old <= 0 or abs(steps_left - old) < _WORTH_REPLANNING * old:
            return self
        segment = Segment(step, self.progress(step), step + max(1, steps_left))
        return replace(self, segments=(*self.segments, segment))

    def to_record(self) -> dict[str, Any]:
        """Plan -> JSON."""
        record = {k: v for k, v in self.__dict__.items() if k != "segments"}
        return record | {"segments": [[s.step, s.progress, s.end] for s in self.segments]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """JSON -> Plan."""
        segments = cast("list[list[Any]]", record["segments"])
        rest = {k: v for k, v in record.items() if k != "segments"}
        return cls(segments=tuple(Segment(int(a), float(b), int(c)) for a, b, c in segments), **rest)


def make_plan(
    *,
    steps: int | None,
    epochs: float | None,
    minutes: float | None,
    steps_in_epoch: float,
    seconds_per_step: float,
    validation_seconds: float,
    elapsed: float,
    batch_seconds: float,
    step_seconds: float,
    schedule_scale: float | None = None,
    validate_every: int | None = None,
) -> Plan:
    """Limits of the recipe and measured speeds -> plan: the least of steps, epochs and minutes.

    Args:
        seconds_per_step: measured wall clock of one optimizer step.
        validation_seconds: expected wall clock of one validation.
        elapsed: of the budget, already used when training starts.
        batch_seconds: most cost-seconds of a batch.
        step_seconds: audio of one optimizer step over all processes.
    """
    if steps is None and epochs is None and minutes is None:
        minutes = 60.0
    limits: list[int] = []
    if steps is not None:
        limits.append(steps)
    if epochs is not None:
        limits.append(round(epochs * steps_in_epoch))
    most = min(limits) if limits else None
    reserve, fewest = 0.0, _FEWEST
    if minutes is not None:
        reserve = 2 * validation_seconds + 3.0  # the end: last and averaged weights, and the files
        usable = minutes * 60 - elapsed - reserve
        # Validations may take a twentieth of the time, but there are at least three of them, unless that is
        # more than a third of it. The last one is in the reserve where there are fewer.
        affordable = int(_MOST_VALIDATING * usable / max(validation_seconds, 1e-3))
        fewest = max(1, min(_FEWEST, affordable))
        counted = fewest if fewest == _FEWEST else fewest - 1
        for_steps = usable - max(0.05 * usable, counted * validation_seconds)
        limits.append(int(max(0.0, for_steps) / seconds_per_step))
    total = max(1, min(limits))
    if validate_every is None:
        cheap = 0.05 * total * seconds_per_step / max(validation_seconds, 1e-3)
        validate_every = max(1, -(-total // max(fewest, min(20, int(cheap)))))
    if schedule_scale is None:
        schedule_scale = max(REFERENCE_STEPS / (PHASES * total), step_seconds / REFERENCE_SECONDS)
    return Plan(
        steps=total,
        segments=(Segment(0, 0.0, total),),
        batch_seconds=batch_seconds,
        validate_every=validate_every,
        schedule_scale=schedule_scale,
        minutes=minutes,
        most_steps=most,
        reserve_seconds=reserve,
    )
