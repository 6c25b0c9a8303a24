"""Norms and scales with fixed numbers become a part of the matrix beside them.

    batch norm after a matrix     s (W x + b - mean) + beta  =  (s W) x + (s (b - mean) + beta)
                                  s = gamma / sqrt(variance + eps), the running statistics
    scale and shift before one    W (s x + t) + b            =  (W s) x + (W t + b)

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
from firstwords.nn.norms import Folded, MaskedBatchNorm

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Neighbour = nn.Linear | nn.Conv1d | nn.Conv2d | DepthwiseConv


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
    matrix = cast("Neighbour", model.get_submodule(neighbour))
    if matrix.bias is None:
        matrix.bias = nn.Parameter(matrix.weight.new_zeros(matrix.weight.shape[0]))
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
    weight = matrix.weight.double()
    bias = weight.new_zeros(len(weight)) if matrix.bias is None else matrix.bias.double()
    if isinstance(norm, MaskedBatchNorm):
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        bias = scale * (bias - norm.running_mean.double()) + norm.bias.double()
        weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    else:
        scaling = cast("Scaling", norm)
        bias = bias + weight @ cast("Tensor", scaling.shift).double()
        weight = weight * cast("Tensor", scaling.scale).double()
    make_room(model, path)
    matrix.weight.copy_(weight)
    cast("Tensor", matrix.bias).copy_(bias)
