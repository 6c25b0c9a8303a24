"""The training loop: fetch, loss, backward, clip, step, log; now and then validate and save.

Drives any Task. What a step adds up is in gradients.py, what survives a kill in session.py, how long it
lasts in plan.py.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Literal, Protocol, Self, TypeVar, cast

import torch
from torch.optim.optimizer import Optimizer

from firstwords.errors import TrainingError
from firstwords.training.averaging import RunningAverage
from firstwords.training.gradients import StepSums, backward, clip, gradient_norm, join
from firstwords.training.scaled_adam import ScaledAdam
from firstwords.training.session import Run
from firstwords.training.tasks.task import BatchT, Task

Outcome = Literal["finished", "stopped early", "time over", "interrupted"]
EMPTY_BATCHES = 20  # in a row without a readable utterance, then the corpus is at fault


BatchT_co = TypeVar("BatchT_co", covariant=True)


class Batches(Protocol[BatchT_co]):
    """What the loop asks of a loader."""

    waited: float
    skipped: dict[str, str]
    repaired: dict[str, str]

    def batches(self, after: int = 0) -> Iterator[tuple[int, BatchT_co | None]]:
        """Numbered batches without end."""
        ...


class Validations(Protocol[BatchT_co]):
    """Dev batches, as often as asked, and what one pass over them costs."""

    seconds: float
    skipped: dict[str, str]

    def __iter__(self) -> Iterator[BatchT_co]: ...


def train(
    task: Task[BatchT], loader: Batches[BatchT], dev: Validations[BatchT], optimizer: Optimizer, run: Run
) -> Outcome:
    """Train from where ``run`` stands to the end of its plan, or to a signal, which saves and returns."""
    task.model.train()
    with StopSignals() as stop:
        if run.step == 0:
            run.save(task, optimizer)  # the plan is fixed from here on, and a roll-back has a target
        for batches in _groups(loader, run.config.accumulate, after=run.step):
            waited = loader.waited
            step = run.begin(task, optimizer)
            sums = join(task.model, backward(task, batches, seed=run.step_seed(step)), run.processes)
            norm = gradient_norm(task.model)
            if sums.size == 0:
                pass  # no process could read any of these utterances: named by the loader
            elif math.isfinite(sums.loss) and math.isfinite(norm):
                _clip(task, optimizer, norm, run.config.max_grad_norm)
                optimizer.step()
                _average(run.average, task, run, step)
                run.counters.bad_in_row = 0
            else:
                run.skip(sums, norm, task, optimizer)
            optimizer.zero_grad(set_to_none=True)
            run.end(task, sums, norm, waited=loader.waited - waited)
            _note_left_out(run, sums, loader)
            run.replan(dev.seconds)
            over = run.processes.agree(run.overdue)
            if run.validation_due or over:
                try:
                    _validate(task, dev, run)
                finally:
                    _tell_left_out(run, dev.skipped)
            stopped = run.processes.agree(stop.requested)
            done = run.finished or over
            if stopped or done or run.processes.agree(run.save_due):
                run.save(task, optimizer)
            if done:
                return "time over" if over else ending(run)
            if stopped:
                return "interrupted"
    raise TrainingError(  # never with loaders of ours, which have no end
        "The loader ended before training did.", mend="Give a loader that begins anew at its end."
    )


def ending(run: Run) -> Outcome:
    """How a run that has nothing left to do came to its end."""
    return "finished" if run.step >= run.plan.last_step else "stopped early"


def _clip(task: Task[BatchT], optimizer: Optimizer, norm: float, most: float) -> None:
    if not isinstance(optimizer, ScaledAdam):  # which clips by the median of its own norms
        clip(task.model, norm, most)


def _average(average: RunningAverage, task: Task[BatchT], run: Run, step: int) -> None:
    if run.plan.progress(step) >= 1.0 - run.config.average_share:
        average.update(task.model, step)


def _validate(task: Task[BatchT], dev: Validations[BatchT], run: Run) -> None:
    if run.processes.first:
        run.validate(task, dev)
    counters = run.counters
    counters.best, counters.without_gain = _pair(
        run.processes.same([counters.best, float(counters.without_gain)])
    )


def _pair(numbers: Sequence[float]) -> tuple[float, int]:
    return numbers[0], int(numbers[1])


def _groups(loader: Batches[BatchT], size: int, *, after: int) -> Iterator[list[BatchT]]:
    """The batches of one optimizer step after the other; a batch without readable utterances is left out."""
    group: list[BatchT] = []
    empty = 0
    for number, batch in loader.batches(after * size):
        if batch is None:
            empty += 1
            if empty >= EMPTY_BATCHES:
                reasons = list(loader.skipped.items())
                raise TrainingError(
                    f"None of the last {EMPTY_BATCHES} batches could be read. "
                    f"For example '{reasons[-1][0]}': {reasons[-1][1]}"
                    if reasons
                    else f"None of the last {EMPTY_BATCHES} batches could be read.",
                    mend="Run 'firstwords check' on the corpus.",
                )
        else:
            empty = 0
            group.append(batch)
        if (number + 1) % size == 0:
            yield group
            group = []


def _note_left_out(run: Run, sums: StepSums, loader: Batches[BatchT]) -> None:
    """Name every utterance that could not be used, once."""
    if sums.splits:
        run.tell(f"Memory ran out: the batch was halved {sums.splits} times and the step done again.")
    _tell_left_out(run, dict.fromkeys(sums.left_out, "does not fit into the memory") | loader.skipped)
    run.tell_repaired(loader.repaired)


def _tell_left_out(run: Run, news: Mapping[str, str]) -> None:
    for name, reason in news.items():
        if name not in run.skipped:
            run.skipped[name] = reason
            run.tell(f"'{name}' is left out: {reason}", kind="left_out", utterance=name)


class StopSignals:
    """SIGINT and SIGTERM ask for a save and an end; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, cast("signal.Handlers", handler))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def make_optimizer(model: torch.nn.Module, kind: str, *, rate: float, weight_decay: float) -> Optimizer:
    """The optimizer a recipe names, over all parameters (a frozen one is left alone while it is frozen)."""
    parameters = list(model.parameters())
    if kind == "scaled_adam":
        return ScaledAdam(parameters, lr=rate, clipping_scale=2.0)
    # In one kernel: on a CPU 13.5 -> 2.5 ms a step for 285 tensors of 2.4 M numbers (LOG.md, 2026-11-22).
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay, betas=(0.9, 0.98), fused=True)
