"""Before the first step: how fast and how large are batches on this machine.

A few real batches go through real steps, then weights and buffers are put back, so that measuring leaves no
trace in what is trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.optim.optimizer import Optimizer

from firstwords.training.gradients import backward, is_out_of_memory
from firstwords.training.memory import free_bytes, peak_bytes, start_measuring
from firstwords.training.tasks.task import BatchT, Task

# Reference batches after which nothing changes any more: steps are costliest then, since no layer is skipped
# and CR-CTC sees both views.
SCHEDULES_END = 1e9


@dataclass(frozen=True)
class Measured:
    """What a few batches told.

    Args:
        seconds_per_cost: wall clock of one batch per cost-second (padding counted).
        bytes_per_cost: memory of one batch per cost-second; None where it cannot be measured.
        free: bytes that may be used.
    """

    seconds_per_cost: float
    bytes_per_cost: float | None
    free: int | None

    def largest_cost(self, share: float) -> float:
        """Cost-seconds that fit into ``share`` of the free memory."""
        if self.bytes_per_cost is None or self.free is None or self.bytes_per_cost <= 0:
            return float("inf")
        return share * self.free / self.bytes_per_cost


def measure(
    task: Task[BatchT],
    batches: Sequence[BatchT],
    make_optimizer: Callable[[], Optimizer],
    device: torch.device,
) -> Measured:
    """Batches -> speed and memory; the model is left as it was.

    Each batch runs twice and the second time counts: the first may make code for its shape (data/shapes.py).
    """
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    state = task.state()
    optimizer = make_optimizer()
    task.model.train()
    task.set_step(1, SCHEDULES_END)
    free, used = free_bytes(device), start_measuring(device)
    times: list[float] = []
    costs: list[float] = []
    for number, batch in enumerate(again for one in batches for again in (one, one)):
        started = time.perf_counter()
        try:
            backward(task, [batch], seed=number)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            continue
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number % 2:
            times.append(time.perf_counter() - started)
            costs.append(task.cost(batch))
    peak = peak_bytes(device)
    task.model.load_state_dict(before)
    task.load_state(state)
    largest = max(costs, default=0.0)
    grown = None if peak is None or used is None or not largest else max(0, peak - used)
    return Measured(
        seconds_per_cost=sum(times) / max(sum(costs), 1e-9) if costs else 0.05,
        bytes_per_cost=None if grown is None else grown / largest,
        free=free,
    )
