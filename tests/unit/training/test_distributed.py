"""Two processes give the gradients of one with the joint batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")


def gradients(kind: str, folder: Path, processes: int) -> dict[str, torch.Tensor]:
    """Run the script under torchrun."""
    target = folder / f"{processes}.safetensors"
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(
        [*torchrun, str(SCRIPT), kind, str(target)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(target)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch is built without distributed")
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's rendezvous is not built for Windows")
@pytest.mark.parametrize("kind", ["toy", "idle", "recognition"])
def test_two_processes_give_the_gradients_of_one(kind: str, tmp_path: Path) -> None:
    two = gradients(kind, tmp_path, 2)
    if kind == "toy":  # what two processes saw: batch 1 whole, batch 2 only the rows of the first process
        from firstwords.training.distributed import Processes
        from firstwords.training.gradients import backward, join
        from toy_task import ToyLoader, ToyTask

        task = ToyTask(dropout=0)
        sums = join(
            task.model,
            backward(task, [ToyLoader().batch(1), ToyLoader(part=(0, 2)).batch(2)], seed=0),
            Processes(),
        )
        one = {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}
        one["joined.numbers"] = torch.tensor([sums.loss, sums.size])
    else:
        one = gradients(kind, tmp_path, 1)
    assert one.keys() == two.keys()
    scale = max(float(g.abs().max()) for n, g in one.items() if n != "joined.numbers")
    for name, gradient in one.items():
        limit = 1e-5 * max(1.0, float(gradient.abs().max()), scale)
        assert float((gradient - two[name]).abs().max()) <= limit, name
