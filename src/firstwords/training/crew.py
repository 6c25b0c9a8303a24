"""Several processes of few threads instead of one process of many, on this machine's own cores.

A step of a small model is hundreds of small operations; two threads share them badly, two processes with half
a batch each share a step well (LOG.md, 2026-11-21). So where a recipe says ``processes = 2``, the process
that was called starts another one, as ``torchrun`` would, and both train as one (distributed.py).

    called process, rank 0:  validates, saves, talks   ── gradients, each step ──   crew, rank 1, 2, ...

The crew (crew_member.py) reads its orders from its standard input and ends when that closes, however the
first process ended.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from firstwords.errors import TrainingError
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.training.settings import TrainingConfig

CREW = "FIRSTWORDS_CREW"  # set in the environment of all but the first process
_MOST = 4  # processes; beyond that the sum of the gradients costs what is gained
_SMALL = 6_000_000  # parameters: larger models keep the threads of one process busy
_BYTES = 2 << 30  # free memory that each process should find
_SHORT_MINUTES, _SHORT_STEPS = 2.0, 1000  # shorter runs do not earn the start of a process


def crew_size(recipe: Recipe, *, device: str, threads: int, free_bytes: int | None) -> int:
    """The number of processes that suit a recipe on this machine, at least one."""
    config = recipe.training
    if device != "cpu" or threads < 2 or _is_short(config):
        return 1
    if SpeechModel(recipe, 300).num_parameters > _SMALL:
        return 1
    room = _MOST if free_bytes is None else free_bytes // _BYTES
    return max(1, min(threads, _MOST, room))


def _is_short(config: TrainingConfig) -> bool:
    return (config.minutes is not None and config.minutes < _SHORT_MINUTES) or (
        config.steps is not None and config.steps < _SHORT_STEPS
    )


@contextmanager
def crew(size: int, orders: Mapping[str, Any], *, threads: int) -> Generator[dict[str, str]]:
    """Start all processes but the first -> the environment with which the first one joins them.

    Args:
        size: processes in all; 1 starts none.
        orders: arguments of ``train_corpus`` for the others.
        threads: of each process.
    """
    if size == 1:
        yield {}
        return
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(size)}
    started: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
    try:
        for rank in range(1, size):
            environment = (
                os.environ | address | {"RANK": str(rank), CREW: "1", "OMP_NUM_THREADS": str(threads)}
            )
            said = tempfile.TemporaryFile()  # noqa: SIM115  closed below; read when the process fails
            process = subprocess.Popen(
                [sys.executable, "-m", "firstwords.training.crew_member"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
            started.append((process, said))
            assert process.stdin is not None
            process.stdin.write(json.dumps(orders).encode() + b"\n")
            process.stdin.flush()
        yield address | {"RANK": "0"}
    except (RuntimeError, OSError) as error:
        if reason := _why_one_ended(started):
            raise TrainingError(
                f"A process that trained along ended: {reason}.",
                mend="Run the same command again (it goes on where it was). If that happens often, the "
                "memory may be too small: start a new run with --set training.processes=1.",
            ) from error
        raise
    finally:
        for process, said in started:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            said.close()


def _why_one_ended(started: list[tuple[subprocess.Popen[bytes], IO[bytes]]]) -> str:
    """What the first process that failed said last; empty where all are well."""
    for process, said in started:
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
        if code:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else f"exit code {code}"
    return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
