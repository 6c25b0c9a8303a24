"""Trainings that are killed: a process that forks lives, each of which runs one and the same command.

A fork has everything imported, so a life costs a fraction of a second instead of several; it is a process of
its own and dies by SIGKILL like any other. Run as a script, which reads what to do as JSON and prints JSON:

    {"command": [...], "run": FOLDER, "chain": {"seed": 1, "kills": 10}}   killed at random moments, again
                                                                           and again, then left to end
    {"command": [...], "run": FOLDER, "point": 7}                          kills itself at the seventh change
                                                                           of the disk below FOLDER; 0: never
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from failing_disk import FailingDisk

EARLY = 0.15  # share of the lives that die before their first step
STARTING = 0.2  # seconds within which they do
TRAINING = 0.5  # seconds after the first step within which all others do


def die(*unused: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL returned")


class DeadlyDisk(FailingDisk):
    """Kills the process at operation number ``fails_at``; removing counts, too."""

    def __init__(self, root: Path, fails_at: int) -> None:
        patch = pytest.MonkeyPatch()
        super().__init__(patch, root, fails_at=fails_at, errno=5)
        patch.setattr(os, "unlink", self._one("unlink", os.unlink))
        patch.setattr(shutil, "rmtree", self._rmtree(shutil.rmtree))

    error = die

    def _tensors(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def save(tensors: Any, path: Path, *more: Any, **named: Any) -> None:
            real(tensors, path, *more, **named)
            if self.here(path) and self.due("save_file", path):
                os.truncate(path, path.stat().st_size // 2)
                die()

        return save

    def _rmtree(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def rmtree(path: Any, *more: Any, **named: Any) -> None:
            if self.here(path) and Path(path).is_dir():
                self.step("rmtree", path)
                if self.due("rmtree half", path):
                    for file in [p for p in sorted(Path(path).rglob("*")) if p.is_file()][:1]:
                        file.unlink()
                    die()
            real(path, *more, **named)

        return rmtree


def start(command: list[str], run: Path, point: int | None = None) -> int:
    """Fork a life -> its process id. What it says goes to a file beside ``run``."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        with run.with_name(run.name + ".said").open("a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        disk = DeadlyDisk(run, point) if point is not None else None
        from firstwords.cli.main import app

        code = app(command, standalone_mode=False) or 0
        if disk is not None:
            run.with_name(run.name + ".points").write_text("\n".join(disk.operations))
    except BaseException:  # noqa: BLE001 - a forked life must never go on as if it were its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def outcome(pid: int) -> int:
    """Wait for a life -> its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def chain(command: list[str], run: Path, *, seed: int, kills: int) -> dict[str, Any]:
    """Kill ``kills`` lives that train, and some that only start; then let one come to its end."""
    draw = random.Random(seed)
    steps: list[int] = []  # lines of the log when a life was killed
    early = 0
    while len(steps) < kills:
        before = _log_opened(run)
        pid = start(command, run)
        if draw.random() < EARLY:
            time.sleep(draw.uniform(0, STARTING))
        else:
            while _log_opened(run) == before and not _ended(pid):
                time.sleep(0.001)
            time.sleep(draw.uniform(0, TRAINING))
        if _ended(pid):
            return {"code": outcome(pid), "steps": steps, "early": early}
        os.kill(pid, signal.SIGKILL)
        if (code := outcome(pid)) != -signal.SIGKILL:
            return {"code": code, "steps": steps, "early": early}
        if _log_opened(run) == before:
            early += 1
        else:
            steps.append((run / "resume" / "log.jsonl").read_bytes().count(b"\n"))
    return {"code": outcome(start(command, run)), "steps": steps, "early": early}


def _log_opened(run: Path) -> int:
    """Another number as soon as a life has opened its log: from then on it trains."""
    try:
        return (run / "resume" / "log.jsonl").stat().st_ino
    except FileNotFoundError:
        return 0


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def always_better() -> None:
    """Every validation beats the one before, so that models replace each other in a run of a few steps."""
    from firstwords.training.tasks.recognition import RecognitionTask

    set_step, validate = RecognitionTask.set_step, RecognitionTask.validate
    steps = [0]

    def counted(self: Any, step: int, count: float) -> None:
        steps[0] = step
        set_step(self, step, count)

    def better(self: Any, batches: Any) -> Any:
        return validate(self, batches)._replace(objective=1 / (1 + steps[0]))

    RecognitionTask.set_step, RecognitionTask.validate = counted, better  # type: ignore[method-assign]


def main() -> None:
    """One JSON object a line in, one a line out."""
    import torch

    import firstwords.training.lm.run
    import firstwords.training.run  # noqa: F401 - imported once, for all lives

    torch.set_num_threads(1)
    always_better()
    for line in sys.stdin:
        asked = json.loads(line)
        command, run = asked["command"], Path(asked["run"])
        if "chain" in asked:
            found = chain(command, run, **asked["chain"])
        else:
            found = {"code": outcome(start(command, run, asked["point"]))}
            if found["code"] == -signal.SIGKILL:
                found["again"] = outcome(start(command, run))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
