"""Which units go: those that matter least for what they cost, over all groups, until the target is reached.

One list of all units by importance per parameter (or per multiply-accumulate); from its end units go until no
more than ``target`` parameters are left. No group falls below its floor. A layer goes only where it does not
lead past the target, so that what is left lies within one unit of it.

In several rounds the share that is gone grows as a cubic (Zhu and Gupta, 2017, arXiv:1710.01878, eq. 1):

    share after round r of R = share (1 - (1 - r / R)³)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from firstwords.compression.groups import Group, Kind, cut
from firstwords.compression.importance import Scores, parameters_of
from firstwords.model.cost import model_cost
from firstwords.model.speech_model import SpeechModel

FLOOR = 0.1  # of a group's units that stay; at least one
_SECONDS = 2.0  # of audio that multiply-accumulates are counted with


@dataclass(frozen=True)
class Selection:
    """Units to take out of each group, and what is left then."""

    removed: Mapping[Group, tuple[int, ...]]
    parameters: int


def shares(share: float, rounds: int) -> list[float]:
    """Share of the parameters that is gone after each round.

    >>> [round(s, 4) for s in shares(0.5, 2)]
    [0.4375, 0.5]
    """
    return [share * (1 - (1 - r / rounds) ** 3) for r in range(1, rounds + 1)]


def floors(groups: Sequence[Group], share: float = FLOOR) -> dict[str, int]:
    """Units of each group, and layers of each list, that stay."""
    least = {g.name: max(1, math.ceil(share * g.units)) for g in groups if g.layer is None}
    lists = [g.layer[0] for g in groups if g.layer is not None]
    return least | {path: max(1, math.ceil(share * lists.count(path))) for path in set(lists)}


def select(
    model: SpeechModel,
    groups: Sequence[Group],
    scores: Scores,
    *,
    target: int,
    least: Mapping[str, int],
    costs: Mapping[Group, Tensor] | None = None,
) -> Selection:
    """Units to go until at most ``target`` parameters are left, or nothing more can go.

    Args:
        least: of ``floors``, of the model before its first round.
        costs: of each unit, in anything; None: parameters.
    """
    if costs is None:
        costs = {group: parameters_of(model, group) for group in groups}
    order = sorted(
        (float(score / max(float(cost), 1e-12)), number, unit)
        for number, group in enumerate(groups)
        for unit, (score, cost) in enumerate(zip(scores[group].tolist(), costs[group].tolist(), strict=True))
        if unit not in group.always and not math.isinf(score)
    )
    count = _Count(model)
    left = {group: group.units for group in groups}
    layers = {path: sum(g.layer is not None and g.layer[0] == path for g in groups) for path in least}
    gone: list[str] = []
    removed: dict[Group, list[int]] = {}
    for _, number, unit in order:
        if count.total <= target:
            break
        group = groups[number]
        if group.layer is not None:
            path, place = group.layer
            inside = f"{path}.{place}."
            if layers[path] <= least[path] or count.total - count.below(inside) < target:
                continue
            layers[path] -= 1
            gone.append(inside)
            count.drop(inside)
        else:
            if left[group] <= least[group.name] or group.name.startswith(tuple(gone)):
                continue
            left[group] -= 1
            count.cut(group)
        removed.setdefault(group, []).append(unit)
    kept = {g: tuple(sorted(u)) for g, u in removed.items() if not _inside(g, gone)}
    return Selection(kept, count.total)


def smallest(model: SpeechModel, groups: Sequence[Group], least: Mapping[str, int]) -> int:
    """Parameters that are left when everything goes that may."""
    even = {group: torch.zeros(group.units) for group in groups}
    units = [group for group in groups if group.layer is None]
    reached = [select(model, units, even, target=0, least=least).parameters]
    if len(units) < len(groups):  # layers first, largest savings of all
        order = {g: even[g] - (1.0 if g.layer is not None else 0.0) for g in groups}
        reached.append(select(model, groups, order, target=0, least=least).parameters)
    return min(reached)


def macs_of(model: SpeechModel, groups: Sequence[Group]) -> dict[Group, Tensor]:
    """Multiply-accumulates a second of audio that go with one unit of each group, by cutting one."""
    whole = model_cost(model, seconds=_SECONDS).macs_per_second
    found: dict[Group, Tensor] = {}
    for group in groups:
        trial = copy.deepcopy(model)
        unit = next((u for u in range(group.units) if u not in group.always), None)
        if unit is not None and (group.units > 1 or group.layer is not None):
            cut(trial, {group: [unit]})
        saved = whole - model_cost(trial, seconds=_SECONDS).macs_per_second
        found[group] = torch.full((group.units,), max(saved, 1.0))
    return found


def units_by_kind(groups: Sequence[Group]) -> dict[Kind, int]:
    """How many units there are of each kind."""
    counts: dict[Kind, int] = {}
    for group in groups:
        counts[group.kind] = counts.get(group.kind, 0) + group.units
    return counts


def _inside(group: Group, gone: Sequence[str]) -> bool:
    return group.layer is None and group.name.startswith(tuple(gone))


class _Count:
    """Parameters of a model while units go: two cuts of one matrix count its corner once."""

    def __init__(self, model: SpeechModel) -> None:
        self._sizes = {name: list(p.shape) for name, p in model.named_parameters()}
        self.total = sum(prod(sizes) for sizes in self._sizes.values())

    def cut(self, group: Group) -> None:
        for places in group.tensors:
            sizes = self._sizes.get(places.tensor)
            if sizes is None:  # a buffer
                continue
            before = prod(sizes)
            sizes[places.axis] -= places.index.shape[1]
            self.total += prod(sizes) - before

    def below(self, inside: str) -> int:
        return sum(prod(sizes) for name, sizes in self._sizes.items() if name.startswith(inside))

    def drop(self, inside: str) -> None:
        self.total -= self.below(inside)
        self._sizes = {n: s for n, s in self._sizes.items() if not n.startswith(inside)}
