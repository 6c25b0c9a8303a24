"""Writers of a training: checkpoints, identity, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from firstwords.training.log import MetricsLog, read_log
from firstwords.training.resume import Checkpoints, check_identity, read_checkpoint
from robustness.writer import Writer, nothing


def some_state(step: int) -> dict[str, Any]:
    return {"model": {"weight": torch.full((40, 30), float(step))}, "counters": {"step": step}}


def checkpoints_before(home: Path, _: None) -> None:
    for step in (1, 2, 3):
        Checkpoints(home).save(step, some_state(step))
    Checkpoints(home).save_best(2, some_state(2))


def is_checkpoint(home: Path, _: None) -> None:
    checkpoints = Checkpoints(home)
    newest = checkpoints.newest()
    assert newest is not None
    assert not checkpoints.spoiled
    assert torch.equal(newest.state["model"]["weight"], some_state(newest.step)["model"]["weight"])
    for path in [*home.glob("step-*"), *home.glob("best-*")]:
        read_checkpoint(path)


def logs(home: Path, _: None) -> None:
    log = MetricsLog(home / "log.jsonl", after=1)
    try:
        for step in (2, 3):
            log.write("train", step, {"loss": 1.5 / step, "text": "ẹ̀"})
    finally:
        log.close()


def logged_before(home: Path, _: None) -> None:
    text = '{"kind": "train", "step": 1, "loss": 3.0}\n{"kind": "train", "step": 2, "loss": 2.0}\n{"kind": "t'
    (home / "log.jsonl").write_text(text, encoding="utf-8")


def is_logged(home: Path, _: None) -> None:
    steps = [line["step"] for line in read_log(home / "log.jsonl")]
    assert steps[-2:] == [2, 3]
    assert (home / "log.jsonl").read_bytes().endswith(b"\n")


TRAINING = [
    Writer(
        "first checkpoint", nothing, lambda home, _: Checkpoints(home).save(4, some_state(4)), is_checkpoint
    ),
    Writer(
        "fourth checkpoint",
        nothing,
        lambda home, _: Checkpoints(home).save(4, some_state(4)),
        is_checkpoint,
        checkpoints_before,
    ),
    Writer(
        "a checkpoint again",
        nothing,
        lambda home, _: Checkpoints(home).save(3, some_state(3)),
        is_checkpoint,
        checkpoints_before,
    ),
    Writer(
        "best checkpoint",
        nothing,
        lambda home, _: Checkpoints(home).save_best(4, some_state(4)),
        is_checkpoint,
        checkpoints_before,
    ),
    Writer(
        "identity of a run",
        nothing,
        lambda home, _: check_identity(home, {"recipe": "a"}),
        lambda home, _: check_identity(home, {"recipe": "a"}),
    ),
]
LOG = Writer("metrics log", nothing, logs, is_logged, logged_before)
