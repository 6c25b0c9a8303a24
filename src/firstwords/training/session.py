"""One run on disk: what the loop needs besides the task, and everything that survives a kill.

    run.begin / end        number the steps, log and show them
    run.save / restore     checkpoints, whole or not at all
    run.validate           dev error rates, best weights, the model folder RUN/
    run.skip               what happens to a step that is not finite

Bit for bit: whatever decides a later step (weights, optimizer, average, plan, counters, factors on the rate)
is in the checkpoint; random numbers of a step are seeded by (seed, step). So a run that was killed and one
that was not end with the same weights. (Not so after a roll-back, whose target depends on when the clock
last asked for a checkpoint.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from torch import Tensor
from torch.optim.optimizer import Optimizer

from firstwords.errors import TrainingError
from firstwords.training.averaging import RunningAverage, set_weights
from firstwords.training.distributed import Processes
from firstwords.training.gradients import StepSums
from firstwords.training.log import MetricsLog
from firstwords.training.plan import REPLAN_AT, Plan
from firstwords.training.progress import Progress
from firstwords.training.resume import Checkpoint, Checkpoints
from firstwords.training.schedule import ScheduleConfig, learning_rate
from firstwords.training.tasks.task import BatchT, Task, Validation

BAD_STEPS = 5  # in a row, then roll back
MAX_ROLLBACKS = 6
REPAIRS_SHOWN = 5
_WORTH_SAYING = 0.15  # relative change of the planned steps
AVERAGED_MODELS = 200  # about so many enter the average: more cost time, fewer lose its benefit


class LoopSettings(Protocol):
    """What the loop asks of the settings of a run, whatever it trains (those of a recipe: settings.py)."""

    @property
    def accumulate(self) -> int: ...
    @property
    def schedule(self) -> ScheduleConfig: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def average_share(self) -> float: ...
    @property
    def save_every_seconds(self) -> float: ...
    @property
    def early_stop(self) -> int | None: ...


@dataclass
class Counters:
    """Plain values that change from step to step."""

    step: int = 0  # finished optimizer steps
    elapsed: float = 0.0  # seconds of all sessions
    bad_in_row: int = 0
    rollbacks: int = 0
    rate_factor: float = 1.0
    best: float = float("inf")
    best_step: int = 0
    without_gain: int = 0  # validations since the best
    validated: int = -1  # step of the last validation
    validation_seconds: float = 0.0  # wall clock of one validation, publishing included


@dataclass
class Run:
    """The state of one run, and its folder."""

    folder: Path
    config: LoopSettings
    seed: int
    plan: Plan
    log: MetricsLog
    progress: Progress
    processes: Processes
    steps_in_epoch: float
    publish: Callable[[Validation, int], None]  # write the model folder from the weights as they are
    checkpoints: Checkpoints = field(init=False)
    counters: Counters = field(default_factory=Counters)
    average: RunningAverage = field(init=False)
    skipped: dict[str, str] = field(default_factory=dict[str, str])  # utterances left out: id -> reason
    repaired: dict[str, str] = field(default_factory=dict[str, str])  # utterances mended: id -> how
    _step_started: float = 0.0
    _saved_at: float = 0.0
    _pace: list[float] = field(default_factory=list[float])  # seconds of the steps since the last replanning

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.folder)
        self.average = RunningAverage(self._average_period())
        self._saved_at = self._step_started = time.monotonic()

    def _average_period(self) -> int:
        return max(1, round(self.config.average_share * self.plan.steps / AVERAGED_MODELS))

    @property
    def step(self) -> int:
        """Finished optimizer steps."""
        return self.counters.step

    @property
    def averaging(self) -> bool:
        """True in the part of the run whose weights are averaged."""
        return self.plan.progress(self.step) >= 1.0 - self.config.average_share

    @property
    def finished(self) -> bool:
        """True after the last step, or when the dev error has stopped falling."""
        patience = self.config.early_stop
        return self.step >= self.plan.last_step or (
            patience is not None and self.counters.without_gain >= patience
        )

    def step_seed(self, step: int) -> int:
        """Seed of all random numbers of a step in this process."""
        words = np.random.SeedSequence([self.seed, 5, step, self.processes.rank]).generate_state(2)
        return int(words[0]) << 31 ^ int(words[1])

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        planned = self.plan.planned_step(step)
        epoch = (step - 1) / self.steps_in_epoch
        scale = self.plan.schedule_scale
        rate = learning_rate(
            self.config.schedule, step=planned, epoch=epoch, total_steps=self.plan.steps, scale=scale
        )
        return rate * self.counters.rate_factor

    def begin(self, task: Task[BatchT], optimizer: Optimizer) -> int:
        """Number the step that comes now; set schedules and learning rate."""
        step = self.step + 1
        task.set_step(step, self.plan.count(step))
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)
        return step

    def end(self, task: Task[BatchT], sums: StepSums, norm: float, *, waited: float) -> None:
        """Count the step, log it, show it, and let the task look at how it goes."""
        counters = self.counters
        counters.step += 1
        now = time.monotonic()
        seconds, self._step_started = now - self._step_started, now
        counters.elapsed += seconds
        self._pace.append(seconds)
        means = sums.means
        loss = sums.loss / sums.size if sums.size else float("nan")
        record: dict[str, Any] = {"loss": loss} | means | {"grad_norm": norm, "rate": self.rate(self.step)}
        record |= {"epoch": round(self.step / self.steps_in_epoch, 4), "seconds": round(seconds, 4)}
        record |= {task.size: round(sums.size, 3), "waited": round(waited, 4)}
        if self.processes.first:
            self.log.write("train", self.step, record)
        self.progress.step(
            self.step, self.plan.last_step, loss=loss, seconds=seconds, audio=sums.size, waited=waited
        )
        if counters.bad_in_row == 0 and sums.size:
            advice = task.watch(self.step, self.plan.progress(self.step), loss, means)
            if advice is not None:
                counters.rate_factor *= advice.rate_factor
                self.tell(advice.message, kind="monitor", rate_factor=counters.rate_factor)

    def tell(self, message: str, *, kind: str = "note", **values: Any) -> None:
        """Say something to the user (the first process) and write it down (each in a log of its own)."""
        self.progress.say(message)
        self.log.write(kind, self.step, {"message": message} | values)

    def tell_repaired(self, repaired: Mapping[str, str]) -> None:
        """Write down every utterance whose recording was mended while reading; show the first few."""
        for name in [name for name in repaired if name not in self.repaired]:
            self.repaired[name] = repaired[name]
            self.log.write("repaired", self.step, {"utterance": name, "message": repaired[name]})
            if (shown := len(self.repaired)) <= REPAIRS_SHOWN:
                more = ". All others stand in resume/log.jsonl" if shown == REPAIRS_SHOWN else ""
                self.progress.say(f"'{name}' was repaired while reading: {repaired[name]}{more}")

    def replan(self, validation_seconds: float) -> None:
        """With a time budget: fit the steps left to the time left, at fixed points of the run."""
        # Before the first validation (and its publishing) there is an estimate; a resumed run has none, but
        # what it cost before is in the checkpoint.
        counters = self.counters
        if validation_seconds and counters.validated < 0:
            counters.validation_seconds = validation_seconds
        validation_seconds = counters.validation_seconds
        if self.plan.minutes is None or not self.plan.crosses(self.step, REPLAN_AT) or not self._pace:
            return
        pace = sum(self._pace) / len(self._pace)
        self._pace.clear()
        left = self.plan.minutes * 60 - self.counters.elapsed - self.plan.reserve_seconds
        pace += validation_seconds / self.plan.validate_every
        steps, _ = self.processes.same([max(1.0, left / pace), 0.0])
        changed = self.plan.replanned(self.step, int(steps))
        if changed is not self.plan:
            message = (
                f"Steps take {pace:.2f} s: {changed.last_step} steps fit the time "
                f"(planned: {self.plan.last_step})."
            )
            if self.processes.first:
                self.log.write("plan", self.step, {"message": message, "steps": changed.last_step})
            if abs(changed.last_step - self.plan.last_step) > _WORTH_SAYING * self.plan.last_step:
                self.progress.say(message)
            self.plan = changed

    @property
    def overdue(self) -> bool:
        """True where the time budget is clearly over, whatever the plan says."""
        minutes = self.plan.minutes
        return minutes is not None and self.counters.elapsed > 66 * minutes

    def skip(self, sums: StepSums, norm: float, task: Task[BatchT], optimizer: Optimizer) -> None:
        """A step whose loss or gradient is not finite: name its utterances; the fifth in a row rolls back."""
        counters = self.counters
        counters.bad_in_row += 1
        suspects = self._of_all(sums.suspects)
        names = suspects or self._of_all(sums.names)
        what = "loss" if suspects else "gradient"
        self.tell(
            f"Step {self.step + 1} is skipped, its {what} is not finite. "
            f"{task.item.capitalize()}s: {_listed(names)}.",
            kind="skipped",
            utterances=names,
            grad_norm=norm,
        )
        if counters.bad_in_row < BAD_STEPS:
            return
        counters.rollbacks += 1
        if counters.rollbacks > MAX_ROLLBACKS:
            rate = f": --set training.schedule.lr={self.config.schedule.lr / 5:.2g}"
            raise TrainingError(
                f"Training fails: loss or gradient were not finite {BAD_STEPS} times in a row, again after "
                f"{MAX_ROLLBACKS} roll-backs. Last {task.item}s: {_listed(names)}.",
                mend=task.remedy + (rate if task.has_settings else "."),
            )
        self.checkpoints.spoiled.clear()
        checkpoint = self.checkpoints.newest(skip=counters.rollbacks - 1)
        for problem in self.checkpoints.spoiled:
            self.tell(f"{problem} The checkpoint before it is used.")
        if checkpoint is None:
            raise TrainingError(
                "There is no checkpoint to roll back to.", mend="Start afresh in another --to folder."
            )
        self._restore_weights(checkpoint.state, task, optimizer)
        counters.bad_in_row = 0
        counters.rate_factor /= 2
        self.tell(
            f"{BAD_STEPS} steps in a row were not finite: back to the weights of step {checkpoint.step}, "
            f"with half the learning rate. The data go on from here.",
            kind="rollback",
            to=checkpoint.step,
        )

    def _of_all(self, names: list[str]) -> list[str]:
        """Names from every process: the utterance at fault may be another's."""
        return [name for theirs in self.processes.gather(names) for name in theirs]

    def state(self, task: Task[BatchT], optimizer: Optimizer) -> dict[str, Any]:
        """Everything that decides what comes later."""
        return {
            "model": task.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": self.average.state_dict(),
            "counters": vars(self.counters),
            "tasks": self.processes.gather(task.state()),
            "plan": self.plan.to_record(),
            "skipped": self.skipped,
            "repaired": self.repaired,
        }

    def save(self, task: Task[BatchT], optimizer: Optimizer) -> None:
        """Write a checkpoint of this step (the first process alone)."""
        self._saved_at = time.monotonic()
        self.log.sync()
        state = self.state(task, optimizer)
        if self.processes.first:
            self.checkpoints.save(self.step, state)

    @property
    def save_due(self) -> bool:
        """True when the last checkpoint is long enough ago, and the weights are not in doubt."""
        late = time.monotonic() - self._saved_at >= self.config.save_every_seconds
        return late and self.counters.bad_in_row == 0

    def restore(self, checkpoint: Checkpoint, task: Task[BatchT], optimizer: Optimizer) -> None:
        """Go on exactly where ``checkpoint`` was written."""
        state = checkpoint.state
        self._restore_weights(state, task, optimizer)
        self.counters = Counters(**cast("dict[str, Any]", state["counters"]))
        tasks = cast("list[dict[str, Any]]", state["tasks"])
        task.load_state(tasks[self.processes.rank % len(tasks)])  # there may be more processes than before
        self.plan = Plan.from_record(state["plan"])
        self.skipped = dict(state["skipped"])
        self.repaired = dict(state.get("repaired", {}))  # absent before this was kept

    def _restore_weights(self, state: Mapping[str, Any], task: Task[BatchT], optimizer: Optimizer) -> None:
        task.model.load_state_dict(state["model"])
        optimizer.load_state_dict(cast("dict[str, Any]", state["optimizer"]))
        self.average.load_state_dict(state["average"])

    @property
    def validation_due(self) -> bool:
        """True at every n-th step and after the last."""
        return self.step % self.plan.validate_every == 0 or self.step >= self.plan.last_step

    def validate(self, task: Task[BatchT], batches: Iterable[BatchT]) -> None:
        """Dev error of the weights; in the averaged part of the run of the average, at the end of both."""
        began = time.monotonic()
        average = self.average.snapshot().values if self.average.count > 1 else None
        self.counters.validated = self.step
        gained = False
        if average is None or self.finished or not self.averaging:
            gained |= self._judge(task, task.validate(batches), "last")
        if average is not None:
            own = {name: value.clone() for name, value in task.model.state_dict().items()}
            set_weights(task.model, average)
            gained |= self._judge(task, task.validate(batches), "averaged")
            set_weights(task.model, own)
        self.counters.without_gain = 0 if gained else self.counters.without_gain + 1
        self.counters.validation_seconds = time.monotonic() - began
        self._step_started = self._account(self._step_started)

    def _account(self, since: float) -> float:
        now = time.monotonic()
        self.counters.elapsed += now - since
        return now

    def _judge(self, task: Task[BatchT], validation: Validation, which: str) -> bool:
        """Log a result; keep the weights if none so far were better -> whether all so far were worse.

        Among equals the later have learned more: on a dev set of a few minutes two results are often equal.
        """
        if validation.numbers.get("utterances") == 0:
            raise TrainingError(
                "None of the dev utterances can be read, so no weights can be told to be better than others.",
                mend="Run 'firstwords check' on the corpus: it names each recording and its fault.",
            )
        gained = validation.objective < self.counters.best
        best = validation.objective <= self.counters.best
        samples = [sample._asdict() for sample in validation.samples]
        record = dict(validation.numbers) | {"weights": which, "best": best, "samples": samples}
        self.log.write("dev", self.step, record)
        self.progress.validated(self.step, validation, which, best)
        if best:
            self.counters.best, self.counters.best_step = validation.objective, self.step
            weights: dict[str, Tensor] = task.model.state_dict()
            self.checkpoints.save_best(self.step, {"model": weights, "numbers": dict(validation.numbers)})
            self.publish(validation, self.step)
        return gained


def _listed(names: list[str], most: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
