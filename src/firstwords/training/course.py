"""The course of a run, whatever it trains: found as it was left, gone on with to its end, told.

    found = find(RUN/resume, processes)    the newest checkpoint that is whole; no plan: the run begins
    run = Run(..., log=found.open_log())
    outcome = conduct(run, found, task, loader, dev, optimizer, ...)
    numbers = numbers_of(run, outcome, ...)

What a run trains on, how long, and how its model is written, say run.py, lm/run.py and punctuation.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn
from torch.optim.optimizer import Optimizer

from firstwords.training.distributed import Processes
from firstwords.training.log import MetricsLog
from firstwords.training.plan import Plan
from firstwords.training.republish import republish
from firstwords.training.resume import Checkpoint, Checkpoints
from firstwords.training.schedule import ScheduleConfig
from firstwords.training.session import Run
from firstwords.training.tasks.task import BatchT, Task
from firstwords.training.trainer import Batches, Outcome, Validations, ending, make_optimizer, train


class OptimizerSettings(Protocol):
    """What the settings of a run say of its optimizer."""

    @property
    def optimizer(self) -> str: ...
    @property
    def schedule(self) -> ScheduleConfig: ...
    @property
    def weight_decay(self) -> float: ...


@dataclass(frozen=True)
class Found:
    """What a folder RUN/resume holds of a run.

    Args:
        checkpoint: the newest that is whole; None: there is none, the run begins.
        spoiled: newer ones that are not, in words.
    """

    folder: Path
    processes: Processes
    checkpoint: Checkpoint | None
    spoiled: tuple[str, ...]

    @property
    def plan(self) -> Plan | None:
        """How long the run was planned to be; None where it begins."""
        return Plan.from_record(self.checkpoint.state["plan"]) if self.checkpoint is not None else None

    def open_log(self) -> MetricsLog:
        """The log of the run in this process, cut behind the checkpoint."""
        first, rank = self.processes.first, self.processes.rank
        return MetricsLog(
            self.folder / ("log.jsonl" if first else f"log-{rank}.jsonl"),
            after=self.checkpoint.step if self.checkpoint else 0,
            curves=self.folder / "curves" if first else None,
        )


def find(folder: Path, processes: Processes) -> Found:
    """RUN/resume -> what is there to go on from; what an interrupted write left behind is removed.

    Raises:
        TrainingError: there are checkpoints, and none can be read.
    """
    checkpoints = Checkpoints(folder)
    if processes.first:
        checkpoints.clear()
    return Found(folder, processes, checkpoints.newest(), tuple(checkpoints.spoiled))


def optimizer_of(model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """The optimizer that the settings of a run name, at their peak rate."""
    return make_optimizer(
        model, settings.optimizer, rate=settings.schedule.lr, weight_decay=settings.weight_decay
    )


def conduct(
    run: Run,
    found: Found,
    task: Task[BatchT],
    loader: Batches[BatchT],
    dev: Validations[BatchT],
    optimizer: Optimizer,
    *,
    model: Sequence[Path],
    began: float,
) -> Outcome:
    """Train to the end of the plan, from what was found or from the start; closes the log of the run.

    Args:
        model: files without which the model folder is none; of a run that had them they are written again.
        began: ``time.monotonic()`` when the command began: a budget in minutes includes what came before.
    """
    progress = run.progress
    try:
        for problem in found.spoiled:
            progress.say(f"{problem} The checkpoint before it is used.")
        if found.checkpoint is not None:
            run.restore(found.checkpoint, task, optimizer)
            progress.say(f"Going on from step {run.step} of {run.plan.last_step}.")
            republish(model, task, dev, run)
        else:
            run.counters.elapsed = time.monotonic() - began
            epochs = run.plan.steps / run.steps_in_epoch
            progress.say(
                f"{run.plan.steps} steps are planned ({epochs:.1f} times through the data), "
                f"a validation every {run.plan.validate_every}."
            )
        # a run that was never validated has no model yet: it takes one step more, late as it is
        if math.isfinite(run.counters.best) and run.processes.agree(run.overdue):
            return "time over"
        if run.finished:
            return ending(run)
        run.processes.same_weights(task.model)
        progress.start()
        return train(task, loader, dev, optimizer, run)
    finally:
        progress.stop()
        run.log.close()


def numbers_of(
    run: Run, outcome: Outcome, in_words: Callable[[Mapping[str, float]], str]
) -> dict[str, float]:
    """What the best weights of a run reached on dev, said too; empty before the first validation.

    Args:
        in_words: the numbers that are worth a line.
    """
    run.checkpoints.spoiled.clear()
    best = run.checkpoints.best()
    for problem in run.checkpoints.spoiled:
        run.progress.say(f"{problem} What its weights reached on dev is not known any longer.")
    numbers = {str(k): float(v) for k, v in best.state["numbers"].items()} if best else {}
    if numbers and math.isfinite(run.counters.best):
        run.progress.say(
            f"Training {outcome} after {run.step} steps and {run.counters.elapsed / 60:.1f} min. "
            f"Best on dev (step {run.counters.best_step}): {in_words(numbers)}."
        )
    return numbers
