"""Torn checkpoints and steps that are not finite: said, counted, survived."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from firstwords.errors import CheckpointError
from firstwords.model.checkpoint import weights_digest
from firstwords.training import resume
from firstwords.training.log import MetricsLog, read_log
from firstwords.training.resume import Checkpoints, read_checkpoint
from firstwords.training.session import BAD_STEPS, Run
from firstwords.training.trainer import train
from toy_task import ToyBatch, ToyDev, ToyLoader, ToyTask, toy_optimizer, toy_run


def go(folder: Path, task: ToyTask, loader: ToyLoader, **settings: Any) -> tuple[str, Run]:
    """Train, or go on training, in ``folder``."""
    path = folder / "log.jsonl"
    written = path.read_bytes() if path.is_file() else b""
    run = toy_run(folder, task, **settings)  # with an empty log
    optimizer = toy_optimizer(task)
    newest = run.checkpoints.newest()
    if newest is not None:
        run.log.close()
        path.write_bytes(written)
        run.log = MetricsLog(path, after=newest.step)
        run.restore(newest, task, optimizer)
    with closing(run.log):
        return train(task, loader, ToyDev(), optimizer, run), run


def torn(content: bytes, draw: random.Random, trial: int) -> bytes:
    """Cut at a random place, or one bit of one byte turned."""
    place = draw.randrange(len(content))
    if trial % 2:
        return content[:place]
    changed = bytearray(content)
    changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("name", [resume.TENSORS, resume.STATE])
def test_the_newest_checkpoint_torn_at_100_places(tmp_path: Path, name: str) -> None:
    """The one before is taken, bit for bit as it was written, and what is said names file and reason."""
    go(tmp_path, ToyTask(), ToyLoader(), steps=6, save_every_seconds=1e-6)
    paths = sorted(tmp_path.glob("step-*"))
    before = read_checkpoint(paths[-2])
    weights, optimizer = weights_digest(before.state["model"]), before.state["optimizer"]["param_groups"]
    content = (paths[-1] / name).read_bytes()
    draw = random.Random(name)
    for trial in range(100):
        (paths[-1] / name).write_bytes(torn(content, draw, trial))
        checkpoints = Checkpoints(tmp_path)
        found = checkpoints.newest()
        assert found is not None
        task = ToyTask()
        run = toy_run(tmp_path / "again", task)
        run.log.close()
        run.restore(found, task, made := toy_optimizer(task))
        assert (run.step, weights_digest(task.model.state_dict())) == (5, weights)
        assert [{k: v for k, v in g.items() if k != "params"} for g in made.state_dict()["param_groups"]] == [
            {k: v for k, v in g.items() if k != "params"} for g in optimizer
        ]
        (words,) = checkpoints.spoiled
        assert words == f"'{paths[-1] / name}' was changed or is torn."
    (paths[-1] / name).write_bytes(content)
    assert (whole := Checkpoints(tmp_path).newest()) is not None
    assert whole.step == 6
    (paths[-1] / name).unlink()
    with pytest.raises(CheckpointError, match=r"No such file|cannot find") as refused:
        read_checkpoint(paths[-1])
    assert "it goes on from the newest checkpoint that is whole" in refused.value.mend


class Poisoned(ToyTask):
    """A task whose loss, or whose gradient alone, is not finite at some steps."""

    def __init__(self, *, loss: Iterable[int] = (), gradient: Iterable[int] = ()) -> None:
        super().__init__(dropout=0)
        self.bad_loss, self.bad_gradient, self.step = set(loss), set(gradient), 0

    def set_step(self, step: int, count: float) -> None:
        self.step = step

    def loss(self, batch: ToyBatch) -> Any:
        made = super().loss(batch)
        if self.step in self.bad_loss:
            each = made.each.clone()
            each[3] = float("nan")
            return made._replace(total=made.total * float("nan"), each=each)
        if self.step in self.bad_gradient:  # the root of nothing is nothing, and its slope endless
            nothing = next(self.model.parameters()).square().sum() * 0
            return made._replace(total=made.total + nothing.sqrt())
        return made


SPREAD_LOSS, SPREAD_GRADIENT = (7, 19, 33), (12, 26, 40)
FOUR, FIVE_LOSSES, FIVE_GRADIENTS = range(50, 54), range(60, 65), range(80, 85)
LOSSES = {*SPREAD_LOSS, *FOUR[::2], *FIVE_LOSSES}
GRADIENTS = {*SPREAD_GRADIENT, *FOUR[1::2], *FIVE_GRADIENTS}
BAD = sorted(LOSSES | GRADIENTS)


def poisoned() -> Poisoned:
    return Poisoned(loss=LOSSES, gradient=GRADIENTS)


def test_twenty_steps_that_are_not_finite(tmp_path: Path) -> None:
    """Alone, four in a row, and twice five in a row: exactly these are skipped, and training goes on."""
    assert len(BAD) == 20
    digests: dict[int, str] = {}
    task = poisoned()

    class Watching(ToyLoader):
        def batch(self, number: int) -> ToyBatch:
            digests[number] = weights_digest(task.model.state_dict())  # after step ``number``
            return super().batch(number)

    outcome, run = go(tmp_path, task, Watching(), steps=160, every=40, save_every_seconds=1e-6)
    assert (outcome, run.step) == ("finished", 160)
    log = read_log(tmp_path / "log.jsonl")
    skipped = {r["step"] + 1: r for r in log if r["kind"] == "skipped"}
    assert sum(r["kind"] == "skipped" for r in log) == 20
    assert sorted(skipped) == BAD
    for step, record in skipped.items():
        names = [f"utterance-{step - 1}-{row}" for row in range(8)]
        what = "loss" if step in LOSSES else "gradient"
        assert record["utterances"] == (names[3:4] if step in LOSSES else names)
        assert (
            f"Step {step} is skipped, its {what} is not finite. Utterances: 'utterance-" in record["message"]
        )
    rollbacks = [r for r in log if r["kind"] == "rollback"]
    # The newest checkpoint, and at the second time the one before it: the newest may be what is bad.
    assert [(r["step"], r["to"]) for r in rollbacks] == [(63, 59), (83, 78)]
    assert digests[64] == digests[59] == digests[60]
    assert digests[84] == digests[78] != digests[79]
    for step in range(1, 160):
        moved = digests[step] != digests[step - 1]
        assert moved == (step not in skipped) or step == 84, step
    rates = {r["step"]: r["rate"] for r in log if r["kind"] == "train"}
    assert rates[66] / rates[59] == pytest.approx(0.5, abs=0.05)
    assert run.counters.rate_factor == 0.25
    assert all(torch.isfinite(p).all() for p in task.model.parameters())
    losses = {r["step"]: r["loss"] for r in log if r["kind"] == "train"}
    assert sorted(losses) == list(range(1, 161))
    assert {step for step, loss in losses.items() if loss == "nan"} == LOSSES
    assert losses[160] < 0.5 * losses[1]


def test_a_stop_between_them_changes_nothing(tmp_path: Path) -> None:
    """Stopped after the third of five in a row: the count goes on, and every line stands in the log once."""
    whole = poisoned()
    go(tmp_path / "whole", whole, ToyLoader(), steps=70, every=40)

    class Stopping(ToyLoader):
        def batch(self, number: int) -> ToyBatch:
            if number == 61:
                signal.raise_signal(signal.SIGTERM)
            return super().batch(number)

    outcome, _ = go(tmp_path / "cut", poisoned(), Stopping(), steps=70, every=40)
    assert outcome == "interrupted"
    task = poisoned()
    outcome, run = go(tmp_path / "cut", task, ToyLoader(), steps=70, every=40)
    assert outcome == "finished"
    kinds = [[r["kind"] for r in read_log(tmp_path / name / "log.jsonl")] for name in ("whole", "cut")]
    assert kinds[0] == kinds[1]
    assert kinds[1].count("skipped") == 15
    assert run.counters.rollbacks == 1


def test_a_torn_checkpoint_gives_way_in_a_roll_back_and_is_named(tmp_path: Path) -> None:
    task = Poisoned(loss=range(20, 20 + BAD_STEPS))

    class Tearing(ToyLoader):
        def batch(self, number: int) -> ToyBatch:
            if number == 22:
                (tmp_path / "step-00000019" / resume.STATE).write_text("{")
            return super().batch(number)

    _, run = go(tmp_path, task, Tearing(), steps=40, save_every_seconds=1e-6)
    log = read_log(tmp_path / "log.jsonl")
    (rollback,) = [r for r in log if r["kind"] == "rollback"]
    assert rollback["to"] == 18
    (note,) = [r for r in log if r["kind"] == "note"]
    assert "step-00000019" in note["message"]
    assert "was changed or is torn. The checkpoint before it is used." in note["message"]
    assert run.step == 40


def test_the_log_is_on_the_disk_before_a_checkpoint_that_counts_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut keeps what was flushed: a log behind its checkpoint could never be made whole again."""
    order: list[str] = []
    sync, save = MetricsLog.sync, Checkpoints.save

    def synced(log: MetricsLog) -> None:
        sync(log)
        order.append(f"log {log.path.read_text().count('train')}")

    def saved(checkpoints: Checkpoints, step: int, state: Any) -> Path:
        order.append(f"checkpoint {step}")
        return save(checkpoints, step, state)

    monkeypatch.setattr(MetricsLog, "sync", synced)
    monkeypatch.setattr(Checkpoints, "save", saved)
    task = ToyTask()
    run = toy_run(tmp_path, task, steps=6, every=3, save_every_seconds=1e-9)
    with closing(run.log):
        train(task, ToyLoader(), ToyDev(), toy_optimizer(task), run)
    assert len(order) >= 6
    for synced_at, saved_at in zip(order[::2], order[1::2], strict=True):
        assert synced_at.split() == ["log", saved_at.split()[1]]
