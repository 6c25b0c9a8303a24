"""How much a unit matters: what the loss would lose with it, or a cheaper guess.

taylor      mean over batches of |dL/dg| at g = 1: first order of what closing the gate g does to the loss
            (Molchanov et al., 2019, arXiv:1906.10771; for heads Michel et al., 2019, arXiv:1905.10650).
            |.| of each batch, since over all of them together the slope of a trained model is near zero.
magnitude   Σ w² over the unit's weights: for its number of parameters, the mean square
movement    Σ -w dL/dw over its weights and all batches: do they move away from zero (Sanh et al., 2020,
            arXiv:2005.07683, eq. 4)? There along a fine-tuning, here where the model stands.
activation  share of frames in which |a| of the unit is above a tenth of the root mean square of its
            group. Layers, and units that no module is called with, cannot be told and count as needed.
random      the control: every parameter has the same chance
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.compression.gates import column_gradient, gated
from firstwords.compression.groups import Group
from firstwords.model.speech_model import SpeechModel

By = Literal["taylor", "magnitude", "movement", "activation", "random"]
CRITERIA: tuple[By, ...] = ("taylor", "magnitude", "movement", "activation", "random")
NEEDS_SPEECH: frozenset[By] = frozenset({"taylor", "movement", "activation"})
ACTIVE = 0.1  # of the root mean square of a group

Scores = dict[Group, Float[Tensor, " units"]]
LossOf = Callable[[], Tensor]  # forward pass of one batch -> its loss, with its graph


def judged(groups: Sequence[Group], by: By) -> list[Group]:
    """Those that a criterion tells anything about."""
    return [group for group in groups if by != "activation" or group.seen_by is not None]


def importance(
    model: SpeechModel, groups: Sequence[Group], by: By, losses: Iterable[LossOf] = (), *, seed: int = 0
) -> Scores:
    """Score of every unit, the larger the more it matters. The model is in evaluation mode afterwards."""
    model.eval()
    match by:
        case "taylor":
            return taylor(model, groups, losses)
        case "magnitude":
            return {group: _sums(model, group, lambda w: w.square()) for group in groups}
        case "movement":
            return movement(model, groups, losses)
        case "activation":
            return activation(model, groups, losses)
        case "random":
            return {group: _drawn(model, group, seed) for group in groups}


def taylor(model: SpeechModel, groups: Sequence[Group], losses: Iterable[LossOf]) -> Scores:
    """Mean over batches of |dL/dg| for the gate g of every unit, at g = 1."""
    place = next(model.parameters()).device
    scores: Scores = {group: torch.zeros(group.units) for group in groups}
    count = 0
    for loss_of in losses:
        gates = {group: torch.ones(group.units, device=place, requires_grad=True) for group in groups}
        model.zero_grad(set_to_none=True)
        with gated(model, gates):
            _backward(loss_of)
        for group, gate in gates.items():
            slope = column_gradient(model, group)
            if gate.grad is not None:
                slope = slope + gate.grad.cpu()
            scores[group] += slope.abs()
        count += 1
    model.zero_grad(set_to_none=True)
    return {group: score / max(count, 1) for group, score in scores.items()}


def movement(model: SpeechModel, groups: Sequence[Group], losses: Iterable[LossOf]) -> Scores:
    """Σ -w dL/dw over each unit's weights and all batches."""
    model.zero_grad(set_to_none=True)
    for loss_of in losses:
        _backward(loss_of)
    scores = {
        group: _sums(model, group, lambda w: torch.zeros_like(w) if w.grad is None else -w * w.grad)
        for group in groups
    }
    model.zero_grad(set_to_none=True)
    return scores


def activation(model: SpeechModel, groups: Sequence[Group], losses: Iterable[LossOf]) -> Scores:
    """Share of frames in which each unit is active."""
    active = {group: torch.zeros(group.units) for group in groups}
    frames = dict.fromkeys(groups, 0)

    def watch(group: Group, index: Tensor) -> Callable[..., None]:
        def hook(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
            del module
            units = given[0].detach().flatten(0, -2).cpu()[:, index].float()  # (frames, units, entries)
            size = units.square().mean(dim=2).sqrt()
            active[group] += (size > ACTIVE * size.square().mean().sqrt()).sum(dim=0)
            frames[group] += len(size)

        return hook

    hooks = [
        model.get_submodule(group.seen_by[0]).register_forward_pre_hook(watch(group, group.seen_by[1]))
        for group in groups
        if group.seen_by is not None
    ]
    try:
        with torch.no_grad():
            for loss_of in losses:
                loss_of()
    finally:
        for hook in hooks:
            hook.remove()
    unknown = torch.tensor(math.inf)
    return {g: active[g] / frames[g] if frames[g] else unknown.expand(g.units).clone() for g in groups}


def parameters_of(model: SpeechModel, group: Group) -> Float[Tensor, " units"]:
    """How many parameters go with each unit, as the model is."""
    return _sums(model, group, torch.ones_like)


def weight_scores(model: SpeechModel, by: By, losses: Iterable[LossOf], *, seed: int) -> Mapping[str, Tensor]:
    """The same for single weights of the encoder's matrices: |w dL/dw|, |w|, -w dL/dw, or a draw."""
    model.eval()
    model.zero_grad(set_to_none=True)
    if by in NEEDS_SPEECH:
        for loss_of in losses:
            _backward(loss_of)
    generator = torch.Generator().manual_seed(seed)
    scores: dict[str, Tensor] = {}
    for name, weight in model.encoder.named_parameters(prefix="encoder"):
        if weight.dim() < 2:
            continue
        w = weight.detach().cpu()
        moved = torch.zeros_like(w) if weight.grad is None else w * weight.grad.cpu()
        match by:
            case "taylor":
                scores[name] = moved.abs()
            case "movement":
                scores[name] = -moved
            case "random":
                scores[name] = torch.rand(w.shape, generator=generator)
            case _:
                scores[name] = w.abs()
    model.zero_grad(set_to_none=True)
    return scores


def _backward(loss_of: LossOf) -> None:
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # an LSTM in evaluation mode
        loss_of().backward()


def _sums(model: SpeechModel, group: Group, of: Callable[[Tensor], Tensor]) -> Float[Tensor, " units"]:
    """Σ of a function of the weights over all parameters that each unit owns."""
    weights = dict(model.named_parameters())
    if group.layer is not None:
        path, number = group.layer
        inside = f"{path}.{number}."
        parts = [of(w).detach().float().sum().cpu() for n, w in weights.items() if n.startswith(inside)]
        return torch.stack(parts).sum()[None] if parts else torch.zeros(1)
    total = torch.zeros(group.units)
    for places in group.tensors:
        if (weight := weights.get(places.tensor)) is None:  # a buffer
            continue
        values = of(weight).detach().float()
        others = [axis for axis in range(values.dim()) if axis != places.axis]
        sums = values.sum(dim=others) if others else values
        total += sums.cpu()[places.index].sum(dim=1)
    return total


def _drawn(model: SpeechModel, group: Group, seed: int) -> Float[Tensor, " units"]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(group.name.encode()))
    return torch.rand(group.units, generator=generator) * parameters_of(model, group)
