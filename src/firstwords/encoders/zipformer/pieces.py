"""Work done in pieces that a processor's caches hold: several passes over a piece, one over memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.tensors import is_captured

PIECE = 1 << 18  # numbers


def of_elements(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same places of several tensors of one shape; elsewhere than on a CPU, or out of order, all."""
    first = tensors[0]
    if first.device.type != "cpu" or first.numel() <= PIECE or not all(t.is_contiguous() for t in tensors):
        yield tensors
        return
    yield from zip(*(t.view(-1).split(PIECE) for t in tensors), strict=True)


def of_rows(*tensors: Float[Tensor, "*groups rows channels"]) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of several tensors of one shape; elsewhere than on a CPU all."""
    first = tensors[0]
    rows = first.shape[-2]
    step = max(1, PIECE * rows // max(first.numel(), 1)) if first.device.type == "cpu" else max(rows, 1)
    yield from zip(*(t.split(step, dim=-2) for t in tensors), strict=True)


def by_rows(
    work: Callable[[Tensor], Tensor], x: Float[Tensor, "*rest channels"], hidden: int
) -> Float[Tensor, "*rest out"]:
    """``work(x)``, which treats every row by itself and is ``hidden`` wide inside.

    Without gradients, on a CPU, a few rows at a time, so that what is inside never leaves the caches; the
    front end of S would write 116 MB for 80 s of speech and read it again.
    """
    step = max(1, torch.get_num_threads() * PIECE // hidden)
    rows = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled() or x.device.type != "cpu" or is_captured() or len(rows) <= step:
        return work(x)
    first = work(rows[:step])
    out = first.new_empty(len(rows), first.shape[1])
    out[:step] = first
    for start in range(step, len(rows), step):
        out[start : start + step] = work(rows[start : start + step])
    return out.view(*x.shape[:-1], out.shape[1])
