"""A task whose surroundings are told how far training is, before each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

from firstwords.data.batch import Batch
from firstwords.training.session import Run
from firstwords.training.tasks.task import Advice, Loss, Task, Validation


@final
class PacedTask(Task[Batch]):
    """All that ``task`` does; before each step ``tell`` gets the share of the run that is done."""

    def __init__(self, task: Task[Batch], tell: Callable[[float], None], run: Run) -> None:
        self.model, self.task, self.tell, self.run = task.model, task, tell, run

    def set_step(self, step: int, count: float) -> None:
        """Say how far training is, then let the task know."""
        self.tell(self.run.plan.progress(step - 1))
        self.task.set_step(step, count)

    def loss(self, batch: Batch) -> Loss:
        """That of the task."""
        return self.task.loss(batch)

    def validate(self, batches: Iterable[Batch]) -> Validation:
        """That of the task."""
        return self.task.validate(batches)

    def watch(self, step: int, progress: float, loss: float, means: Mapping[str, float]) -> Advice | None:
        """What the task notices."""
        return self.task.watch(step, progress, loss, means)

    def state(self) -> dict[str, Any]:
        """That of the task."""
        return self.task.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """That of the task."""
        self.task.load_state(state)

    def names(self, batch: Batch) -> tuple[str, ...]:
        """Utterance ids."""
        return self.task.names(batch)

    def halves(self, batch: Batch) -> tuple[Batch, Batch] | None:
        """Two smaller batches."""
        return self.task.halves(batch)

    def cost(self, batch: Batch) -> float:
        """Cost-seconds."""
        return self.task.cost(batch)
