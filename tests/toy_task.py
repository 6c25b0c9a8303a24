"""A task of a few numbers for tests of the training loop: no audio, milliseconds a step.

The model has dropout, so that a wrong random state shows; utterances can be made poisonous or too large.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from firstwords.training.distributed import Processes
from firstwords.training.log import MetricsLog
from firstwords.training.plan import Plan, Segment
from firstwords.training.progress import Progress
from firstwords.training.schedule import EdenConfig
from firstwords.training.session import Run
from firstwords.training.settings import TrainingConfig
from firstwords.training.tasks.task import Advice, Loss, Task, Validation
from firstwords.training.trainer import make_optimizer


class ToyBatch(NamedTuple):
    ids: tuple[str, ...]
    inputs: Tensor
    outputs: Tensor


class ToyTask(Task[ToyBatch]):
    """Learn a linear map."""

    def __init__(self, *, dropout: float = 0.1, too_large: int = 1000) -> None:
        torch.manual_seed(3)
        self.model: nn.Module = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.Linear(8, 2)
        )
        if not dropout:
            self.model[1] = nn.Identity()
        self.too_large = too_large  # rows that do not fit into this toy's memory
        self.calls = 0

    def set_step(self, step: int, count: float) -> None:
        pass

    def loss(self, batch: ToyBatch) -> Loss:
        self.calls += 1
        if len(batch.ids) > self.too_large:
            raise torch.OutOfMemoryError("CUDA out of memory (a test says so)")
        # A single row has no batch statistics: such batches only occur in tests of splitting.
        error = (self.model(batch.inputs) - batch.outputs).square().sum(dim=1)
        blank = torch.tensor(0.5 * len(batch.ids))
        return Loss(
            error.sum(), {"square": error.detach().sum(), "blank": blank}, len(batch.ids), error.detach()
        )

    def validate(self, batches: Iterable[ToyBatch]) -> Validation:
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            errors = [(self.model(b.inputs) - b.outputs).square().mean() for b in batches]
        self.model.train(training)
        value = float(sum(errors)) / len(errors)
        return Validation(value, {"cer": value, "wer": value}, ())

    def watch(self, step: int, progress: float, loss: float, means: Mapping[str, float]) -> Advice | None:
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        assert state == {}

    def names(self, batch: ToyBatch) -> tuple[str, ...]:
        return batch.ids

    def halves(self, batch: ToyBatch) -> tuple[ToyBatch, ToyBatch] | None:
        middle = len(batch.ids) // 2
        if not middle:
            return None
        return ToyBatch(*(part[:middle] for part in batch)), ToyBatch(*(part[middle:] for part in batch))

    def cost(self, batch: ToyBatch) -> float:
        return float(len(batch.ids))


class ToyLoader:
    """Batch n is a function of n. ``poison``: numbers whose second utterance is NaN; ``empty``: no batch."""

    def __init__(
        self,
        *,
        poison: Iterable[int] = (),
        empty: Iterable[int] = (),
        size: int = 8,
        pause: float = 0.0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.poison, self.empty = set(poison), set(empty)
        self.size, self.pause, self.part = size, pause, part
        self.waited = 0.0
        self.skipped: dict[str, str] = {}
        self.repaired: dict[str, str] = {}

    def batch(self, number: int) -> ToyBatch:
        generator = torch.Generator().manual_seed(number)
        inputs = torch.randn(self.size, 4, generator=generator)
        outputs = inputs[:, :2] * 2 - inputs[:, 2:]
        ids = tuple(f"utterance-{number}-{row}" for row in range(self.size))
        if number in self.poison:
            inputs[1] = float("nan")
        rank, world = self.part
        return ToyBatch(ids[rank::world], inputs[rank::world], outputs[rank::world])

    def batches(self, after: int = 0) -> Iterator[tuple[int, ToyBatch | None]]:
        number = after
        while True:
            time.sleep(self.pause)
            if number in self.empty:
                self.skipped[f"utterance-{number}-0"] = "cannot be read"
            yield number, None if number in self.empty else self.batch(number)
            number += 1


class ToyDev:
    seconds = 0.0

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}

    def __iter__(self) -> Iterator[ToyBatch]:
        yield ToyLoader().batch(10**6)


def toy_run(folder: Path, task: ToyTask, *, steps: int = 40, every: int = 10, **settings: Any) -> Run:
    """A run of ``steps`` steps in ``folder``; goes on from its newest checkpoint where there is one."""
    given = {"schedule": EdenConfig(lr=0.02, cooldown=0.3), "save_every_seconds": 1e9} | settings
    run = Run(
        folder=folder,
        config=TrainingConfig(**given),
        seed=1,
        plan=Plan(steps, (Segment(0, 0.0, steps),), 60.0, every, 20000 / steps),
        log=MetricsLog(folder / "log.jsonl", after=0),
        progress=Progress(quiet=True),
        processes=Processes(),
        steps_in_epoch=10,
        publish=lambda validation, step: None,
    )
    return run


def toy_optimizer(task: ToyTask, kind: str = "scaled_adam") -> torch.optim.Optimizer:
    return make_optimizer(task.model, kind, rate=0.02, weight_decay=0.01)
