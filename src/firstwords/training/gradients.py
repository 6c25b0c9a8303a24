"""One step's gradients: sums over batches and processes, divided once; memory that runs out is survived.

    gradient = sum over processes and batches of d(total) / sum of their sizes

The size is seconds of audio: known before the model runs, above zero for non-speech too, and the same
whatever the tokenizer. (Only AdamW and clipping feel the scale at all; ScaledAdam divides it out.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from firstwords.training.distributed import Processes, fill_missing_gradients
from firstwords.training.tasks.task import BatchT, Task


@dataclass
class StepSums:
    """What one step added up to, over all its batches (and, once joined, all processes)."""

    loss: float = 0.0
    size: float = 0.0
    parts: dict[str, float] = field(default_factory=dict[str, float])
    suspects: list[str] = field(default_factory=list[str])  # utterances whose loss is not finite
    names: list[str] = field(default_factory=list[str])
    left_out: list[str] = field(default_factory=list[str])  # too large for the memory even alone
    splits: int = 0  # how often a batch was halved for lack of memory

    @property
    def means(self) -> dict[str, float]:
        """Loss and its parts per second of audio."""
        return {name: value / self.size for name, value in self.parts.items()} if self.size else {}


def backward(task: Task[BatchT], batches: Sequence[BatchT], *, seed: int) -> StepSums:
    """Batches of one step -> gradients (sums, in ``parameter.grad``) and what they add up to.

    Without memory for a batch, everything so far is dropped, the largest batch is halved, and the step
    begins anew: the sums are the same. A single utterance that does not fit is left out and named.
    """
    pieces, left_out, splits = list(batches), list[str](), 0
    while True:
        torch.manual_seed(seed)
        sums = StepSums(left_out=left_out, splits=splits)
        try:
            for piece in pieces:
                _add(task, piece, sums)
            return sums
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block: the traceback holds the tensors that must go first.
        task.model.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        largest = max(range(len(pieces)), key=lambda n: task.cost(pieces[n]))
        halves = task.halves(pieces[largest])
        left_out += [] if halves else task.names(pieces[largest])
        pieces[largest : largest + 1] = halves or ()
        splits += 1


def _add(task: Task[BatchT], batch: BatchT, sums: StepSums) -> None:
    loss = task.loss(batch)
    if loss.total.requires_grad:
        loss.total.backward()
    names = task.names(batch)
    sums.loss += float(loss.total.detach())
    sums.size += loss.size
    sums.names += names
    for name, value in loss.parts.items():
        sums.parts[name] = sums.parts.get(name, 0.0) + float(value)
    finite = torch.isfinite(loss.each).tolist()
    sums.suspects += [name for name, good in zip(names, finite, strict=True) if not good]


def is_out_of_memory(error: BaseException) -> bool:
    """True for every way in which torch says that there is no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    # Linux and macOS, Windows, CUDA, cuBLAS and cuDNN
    signs = ("allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def join(model: nn.Module, sums: StepSums, processes: Processes) -> StepSums:
    """Add up gradients and sums over all processes, then divide the gradients by the common size."""
    gradients = fill_missing_gradients(model.parameters())
    if processes.size > 1:
        names = sorted(sums.parts)
        if processes.agree(not names):  # a process without a readable utterance has seen no loss
            names = sorted({name for theirs in processes.gather(names) for name in theirs})
        numbers = torch.tensor(
            [sums.loss, sums.size, *(sums.parts.get(n, 0.0) for n in names)], device=gradients[0].device
        )
        processes.add_up([*gradients, numbers])
        loss, size, *parts = numbers.tolist()
        sums = replace(sums, loss=loss, size=size, parts=dict(zip(names, parts, strict=True)))
    if sums.size > 0:
        torch._foreach_mul_(gradients, 1.0 / sums.size)  # pyright: ignore[reportPrivateImportUsage]
    return sums


def gradient_norm(model: nn.Module) -> float:
    """Norm over all gradients together; not finite if any of them is not."""
    gradients: list[Tensor] = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else math.nan


def clip(model: nn.Module, norm: float, most: float) -> None:
    """Scale all gradients so that their common norm is at most ``most``."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if norm > most:
        torch._foreach_mul_(gradients, most / (norm + 1e-6))  # pyright: ignore[reportPrivateImportUsage]
