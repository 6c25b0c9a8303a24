"""One or several processes that train together (``torchrun``): sums over all of them.

Gradients are added up after the backward pass, as sums, together with the sizes they are divided by. So the
result is the gradient of one process with the joint batch, also when batches differ in size, one of them is
empty or a step is skipped; a wrapper that averages over processes (DDP) gives that only for equal batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

_TIMEOUT = timedelta(hours=2)  # the others wait while the first process validates


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    share_batch: bool = False  # each process takes its part of a batch (crew.py), not one of its own

    @property
    def batch_share(self) -> float:
        """Which part of ``batch_seconds`` this process takes."""
        return 1 / self.size if self.share_batch else 1.0

    @property
    def first(self) -> bool:
        """True for the process that writes files and talks."""
        return self.rank == 0

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.detach().reshape(-1).to(torch.float32) for t in tensors])
        torch.distributed.all_reduce(flat)
        place = 0
        for tensor in tensors:
            tensor.copy_(flat[place : place + tensor.numel()].reshape(tensor.shape))
            place += tensor.numel()

    def agree(self, value: bool) -> bool:
        """True everywhere where it is true in any process."""
        if self.size == 1:
            return value
        flag = torch.tensor([float(value)])
        if torch.distributed.get_backend() == "nccl":
            flag = flag.cuda()
        torch.distributed.all_reduce(flag)
        return bool(flag.item() > 0)

    def same(self, numbers: list[float]) -> list[float]:
        """The numbers of the first process, in every process."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, dtype=torch.float64)
        if torch.distributed.get_backend() == "nccl":
            values = values.cuda()
        torch.distributed.broadcast(values, 0)
        return values.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in their order, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def same_weights(self, model: nn.Module) -> None:
        """Give every process the weights and buffers of the first."""
        if self.size > 1:
            for value in model.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()


def join_processes(
    device: torch.device, place: Mapping[str, str] = os.environ, *, share_batch: bool = False
) -> Processes:
    """Join the processes that ``torchrun`` (or crew.py) started; alone where none was.

    Args:
        place: where they meet, and which of them this is: WORLD_SIZE, RANK, MASTER_ADDR, MASTER_PORT.
    """
    size = int(place.get("WORLD_SIZE", "1"))
    if size == 1:
        return Processes()
    if not torch.distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        if share_batch:
            address = f"tcp://{place['MASTER_ADDR']}:{place['MASTER_PORT']}"
            torch.distributed.init_process_group(
                backend, init_method=address, rank=int(place["RANK"]), world_size=size, timeout=_TIMEOUT
            )
        else:  # torchrun keeps a meeting place of its own
            torch.distributed.init_process_group(backend, timeout=_TIMEOUT)
    return Processes(torch.distributed.get_rank(), size, share_batch)


def leave_processes(processes: Processes) -> None:
    """Take leave of the others."""
    if processes.size > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def fill_missing_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Gradients of all trained parameters; zeros where there is none, so that all processes send the same."""
    gradients: list[Tensor] = []
    for parameter in parameters:
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    return gradients
