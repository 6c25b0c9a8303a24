"""Norms and scales with fixed numbers become a part of the matrix beside them.

    batch norm after a matrix     s (W x + b - mean) + beta  =  (s W) x + (s (b - mean) + beta)
                                  s = gamma / sqrt(variance + eps), the running statistics
    scale and shift before one    W (s x + t) + b            =  (W s) x + (W t + b)

Where the matrix is a product of two (low_rank.py), W = U D, rows are scaled in U and columns in D.

A module that holds such a pair says so (``Foldable``). A batch norm leaves behind what it does besides:
padding is zeroed (``Folded``). The input norms of some encoders stay: behind them frames are spliced or
convolved with the zeros beyond an utterance's ends, which are not zero before the norm.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from firstwords.nn.depthwise import DepthwiseConv
from firstwords.nn.low_rank import LowRankLinear
from firstwords.nn.norms import Folded, MaskedBatchNorm

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Single = nn.Linear | nn.Conv1d | nn.Conv2d | DepthwiseConv
Neighbour = Single | LowRankLinear


@runtime_checkable
class Foldable(Protocol):
    """A module with norms that can be folded."""

    def folds(self) -> Iterable[tuple[str, str]]:
        """Paths below this module: a norm, and the matrix that it becomes a part of.

        A norm called "" is the module itself: its scale and shift (``Scaling``).
        """
        ...


@runtime_checkable
class Scaling(Protocol):
    """A module that multiplies and shifts what it reads; both None once they are folded."""

    scale: nn.Parameter | None
    shift: nn.Parameter | None


def foldings(model: nn.Module) -> dict[str, str]:
    """Path of every norm or scale that can still be folded -> path of the matrix beside it."""
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        if not isinstance(module, Foldable):
            continue
        for norm, neighbour in module.folds():
            place = ".".join(part for part in (path, norm) if part)
            target = ".".join(part for part in (path, neighbour) if part)
            if isinstance(model.get_submodule(target), Neighbour) and _is_open(model.get_submodule(place)):
                found[place] = target
    return found


def folded_copy(model: ModuleT) -> tuple[ModuleT, list[str]]:
    """A copy in evaluation mode in which all that can be is folded, and the paths of what was."""
    new = copy.deepcopy(model).eval()
    paths = list(foldings(new))
    for path in paths:
        fold(new, path)
    return new, paths


def _is_open(module: nn.Module) -> bool:
    if isinstance(module, MaskedBatchNorm):
        return True
    return isinstance(module, Scaling) and module.scale is not None


@torch.no_grad()
def make_room(model: nn.Module, path: str) -> None:
    """Shape a model for weights in which the norm at ``path`` was folded; ValueError where none can be."""
    neighbour = foldings(model).get(path)
    if neighbour is None:
        raise ValueError(f"'{path}' is no norm that can be folded")
    _, writer = _ends(cast("Neighbour", model.get_submodule(neighbour)))
    if writer.bias is None:
        writer.bias = nn.Parameter(writer.weight.new_zeros(writer.weight.shape[0]))
    norm = model.get_submodule(path)
    if isinstance(norm, MaskedBatchNorm):
        place, _, name = path.rpartition(".")
        setattr(model.get_submodule(place), name, Folded())
    else:
        scaling = cast("Scaling", norm)
        scaling.scale = scaling.shift = None


@torch.no_grad()
def fold(model: nn.Module, path: str) -> None:
    """Fold the norm at ``path``: the outputs in evaluation mode stay what they were."""
    neighbour = foldings(model).get(path)
    if neighbour is None:
        raise ValueError(f"'{path}' is no norm that can be folded")
    matrix, norm = cast("Neighbour", model.get_submodule(neighbour)), model.get_submodule(path)
    reader, writer = _ends(matrix)
    bias = writer.weight.new_zeros(len(writer.weight)) if writer.bias is None else writer.bias
    bias = bias.double()
    if isinstance(norm, MaskedBatchNorm):
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        bias = scale * (bias - norm.running_mean.double()) + norm.bias.double()
        writer.weight.mul_(scale.view(-1, *(1,) * (writer.weight.dim() - 1)))
    else:
        scaling = cast("Scaling", norm)
        bias = bias + matrix.weight.double() @ cast("Tensor", scaling.shift).double()
        reader.weight.mul_(cast("Tensor", scaling.scale).double())
    make_room(model, path)
    cast("Tensor", writer.bias).copy_(bias)


def _ends(matrix: Neighbour) -> tuple[Single, Single]:
    """Whose columns read, and whose rows and bias write: the same one, or the outermost two of a product."""
    reader = writer = matrix
    while isinstance(reader, LowRankLinear):
        reader = reader.down
    while isinstance(writer, LowRankLinear):
        writer = writer.up
    return reader, writer
