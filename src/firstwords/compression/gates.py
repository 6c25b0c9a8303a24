"""Gates on the units of a network: 1 leaves a unit as it is, 0 is the network without it.

A gate on a column of weights multiplies the column. One on an entry of a layer norm takes part in its sums:

    mean = Σ g x / Σ g,   variance = Σ g (x - mean)² / Σ g

A gate on a layer mixes: x + g (layer(x) - x).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.compression.groups import Group
from firstwords.model.speech_model import SpeechModel

Gates = Mapping[Group, Float[Tensor, " units"]]


@contextlib.contextmanager
def gated(model: SpeechModel, gates: Gates) -> Generator[None]:
    """Inside the block the model computes with these gates; afterwards it is what it was.

    Gradients reach the gates of layer norms and layers; what columns add to them is ``column_gradient``.
    """
    weights = dict(model.named_parameters())
    before: dict[str, Tensor] = {}
    norms: dict[str, list[tuple[Tensor, Tensor]]] = {}
    changed: list[nn.Module] = []
    try:
        with torch.no_grad():
            for group, gate in gates.items():
                for places in group.gates:
                    if bool((gate == 1).all()):
                        continue
                    weight = weights[places.tensor]
                    before.setdefault(places.tensor, weight.detach().clone())
                    factor = torch.ones(weight.shape[places.axis], device=weight.device, dtype=weight.dtype)
                    factor[places.index.flatten()] = (
                        gate.detach()[:, None].expand(places.index.shape).flatten()
                    )
                    shape = [-1 if axis == places.axis else 1 for axis in range(weight.dim())]
                    weight.mul_(factor.view(shape))
        for group, gate in gates.items():
            for sums in group.sums:
                norms.setdefault(sums.module, []).append((sums.index, gate))
            if group.layer is not None:
                path, number = group.layer
                layer = cast("nn.ModuleList", model.get_submodule(path))[number]
                _replace_forward(layer, gate)
                changed.append(layer)
        for path, parts in norms.items():
            norm = cast("nn.LayerNorm", model.get_submodule(path))
            _gate_sums(norm, parts)
            changed.append(norm)
        yield
    finally:
        for module in changed:
            vars(module).pop("forward", None)
        with torch.no_grad():
            for name, old in before.items():
                weights[name].copy_(old)


def _replace_forward(layer: nn.Module, gate: Tensor) -> None:
    whole = layer.forward

    def forward(x: Tensor, *rest: Any, **named: Any) -> Tensor:
        return x + gate[0].to(x.dtype) * (whole(x, *rest, **named) - x)

    vars(layer)["forward"] = forward


def _gate_sums(norm: nn.LayerNorm, parts: list[tuple[Tensor, Tensor]]) -> None:
    gate = torch.ones_like(norm.weight)
    for index, own in parts:
        entries = index.flatten().to(gate.device)
        values = own.to(gate.dtype)[:, None].expand(index.shape).reshape(-1)
        gate = gate.index_copy(0, entries, values)

    def forward(x: Tensor) -> Tensor:
        count = gate.sum()
        mean = (x * gate).sum(dim=-1, keepdim=True) / count
        variance = (gate * (x - mean).square()).sum(dim=-1, keepdim=True) / count
        return (x - mean) * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias

    vars(norm)["forward"] = forward


def column_gradient(model: SpeechModel, group: Group) -> Float[Tensor, " units"]:
    """What the gated columns add to dL/dg at g = 1: Σ w dL/dw over each unit's columns.

    The gradients must be in the weights; those that have none (layers that did not run) add nothing.
    """
    weights = dict(model.named_parameters())
    total = torch.zeros(group.units)
    for places in group.gates:
        weight = weights[places.tensor]
        if weight.grad is None:
            continue
        product = (weight.detach() * weight.grad).float()
        others = [axis for axis in range(product.dim()) if axis != places.axis]
        total += product.sum(dim=others).cpu()[places.index].sum(dim=1)
    return total
