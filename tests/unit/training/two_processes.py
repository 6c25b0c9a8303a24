"""Run by torchrun in test_distributed.py: gradients of two processes, written by the first."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]


def toy(rank: int, size: int) -> tuple[torch.nn.Module, object]:
    """The toy task with every size-th row of two batches; the second is empty for the last process."""
    from firstwords.training.gradients import backward
    from toy_task import ToyLoader, ToyTask

    task = ToyTask(dropout=0)
    loader = ToyLoader(part=(rank, size))
    batches = [loader.batch(1), loader.batch(2)] if rank < size - 1 or size == 1 else [loader.batch(1)]
    return task.model, backward(task, batches, seed=rank)


def idle(rank: int, size: int) -> tuple[torch.nn.Module, object]:
    """One batch for the first process; none of the other's utterances could be read."""
    from firstwords.training.gradients import backward
    from toy_task import ToyLoader, ToyTask

    del size
    task = ToyTask(dropout=0)
    return task.model, backward(task, [ToyLoader().batch(1)] if rank == 0 else [], seed=rank)


def recognition(rank: int, size: int) -> tuple[torch.nn.Module, object]:
    """A small Zipformer with CTC, regularisers off; utterances of unequal length are dealt out."""
    from test_recognition import batch_of, recognition_task

    from firstwords.training.gradients import backward

    task = recognition_task()
    task.model.eval()
    lengths = [(1.4, 5), (0.9, 3), (2.0, 8), (0.6, 1), (1.1, 0)]
    mine = [n for n in range(5) if n % size == rank]
    return task.model, backward(task, [batch_of([lengths[n] for n in mine], keys=mine)], seed=0)


def main(kind: str, target: str) -> None:
    from firstwords.training.distributed import join_processes, leave_processes
    from firstwords.training.gradients import StepSums, join

    torch.set_num_threads(1)
    processes = join_processes(torch.device("cpu"))
    kinds = {"toy": toy, "idle": idle, "recognition": recognition}
    model, sums = kinds[kind](processes.rank, processes.size)
    assert isinstance(sums, StepSums)
    joined = join(model, sums, processes)
    assert joined.parts
    assert processes.agree(processes.rank == 1) == (processes.size > 1)
    assert processes.same([float(processes.rank)]) == [0.0]
    if processes.first:
        gradients = {n: p.grad.contiguous() for n, p in model.named_parameters() if p.grad is not None}
        gradients["joined.numbers"] = torch.tensor([joined.loss, joined.size])
        save_file(gradients, target)
    processes.wait()
    leave_processes(processes)


if __name__ == "__main__":
    main(*sys.argv[1:])
