"""What can be cut from a network: groups of equal units, and where each unit's numbers lie.

A unit is what can go alone without changing what the others compute: an attention head, a feed-forward unit,
a channel of a convolution, a hidden unit of an LSTM, a whole layer. It owns

    rows of what makes it           in_proj.weight[u, :], in_proj.bias[u]
    what belongs to it in between   a depthwise kernel, its entry in a norm
    columns of what reads it        out_proj.weight[:, u]

and has a gate g = 1 on those columns: with g = 0 the network computes what it computes without the unit. A
layer norm in between reckons its mean and variance over the units that are there, so its sums are gated too.

``cut`` takes units of any groups out of a model and says what it did as changes of its structure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from firstwords.encoders.layers import present
from firstwords.model.speech_model import SpeechModel
from firstwords.model.structure import Change, Cut, Drop, Structure, apply_structure

Kind = Literal["heads", "feedforward", "convolution", "hidden", "layers"]
KINDS: tuple[Kind, ...] = ("heads", "feedforward", "convolution", "hidden", "layers")

Index = Int[Tensor, "units entries"]


def span(units: int, *, each: int = 1, offsets: Iterable[int] = (0,)) -> Index:
    """Unit u owns ``each`` entries from offset + u * each on, for every offset.

    >>> span(2, each=2, offsets=(0, 4)).tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7]]
    """
    own = torch.arange(units)[:, None] * each + torch.arange(each)
    return torch.cat([own + offset for offset in offsets], dim=1)


def weight_of(root: nn.Module, path: str) -> Tensor:
    """The weight of a layer, (outputs, inputs, ...); of one of low rank the product of its matrices."""
    weight = root.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    return weight


@dataclass(frozen=True)
class Places:
    """Entries along an axis of a parameter or buffer, by unit."""

    tensor: str
    axis: int
    index: Index


@dataclass(frozen=True)
class Sums:
    """Entries of a layer norm whose mean and variance count the units."""

    module: str
    index: Index


@dataclass(frozen=True)
class Group:
    """Units that are alike.

    Args:
        name: path of the part in the model, and what the units are.
        tensors: everything that a unit owns.
        gates: columns of what reads the units, a part of ``tensors``.
        sums: layer norms that count them.
        attributes: (module, name) of the whole numbers that fall by so many with each unit.
        always: units that must stay.
        seen_by: module whose input (..., entries) holds the units, and their entries in it.
        layer: of kind "layers": the list and number of the layer that is the one unit.
    """

    name: str
    kind: Kind
    units: int
    tensors: tuple[Places, ...] = ()
    gates: tuple[Places, ...] = ()
    sums: tuple[Sums, ...] = ()
    attributes: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    always: frozenset[int] = frozenset()
    seen_by: tuple[str, Index] | None = None
    layer: tuple[str, int] | None = None

    def cut(self, model: SpeechModel, keep: Iterable[int]) -> tuple[Change, ...]:
        """Take all other units out of the model -> what was changed."""
        kept = set(keep)
        return cut(model, {self: [u for u in range(self.units) if u not in kept]})

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self.name == other.name


class Draft:
    """A group while its parts are named, one call for each module it goes through."""

    def __init__(self, root: nn.Module, prefix: str, name: str, kind: Kind, units: int) -> None:
        self.root, self.prefix, self.name, self.units = root, prefix, name, units
        self.kind: Kind = kind
        self._tensors: list[Places] = []
        self._gates: list[Places] = []
        self._sums: list[Sums] = []
        self._attributes: dict[tuple[str, str], int] = {}
        self._seen: tuple[str, Index] | None = None
        self._always: frozenset[int] = frozenset()

    def made_by(self, path: str, index: Index | None = None) -> Draft:
        """Rows of a Linear or a convolution: weight, bias, number of outputs."""
        index = self._index(index)
        self.own(f"{path}.weight", index).own(f"{path}.bias", index)
        return self.counted(path, ("out_features", "out_channels"), index.shape[1])

    def read_by(self, path: str, index: Index | None = None, *, seen: bool = True) -> Draft:
        """Columns of a Linear or a convolution: here is the gate.

        Args:
            seen: the module itself is called with the units along the last axis of its input.
        """
        index = self._index(index)
        self._gated(f"{path}.weight", 1, index)
        if seen:
            self._seen = self.prefix + path, index
        return self.counted(path, ("in_features", "in_channels"), index.shape[1])

    def through(self, path: str, index: Index | None = None) -> Draft:
        """A depthwise convolution, each channel for itself."""
        index = self._index(index)
        self.own(f"{path}.weight", index).own(f"{path}.bias", index)
        return self.counted(path, ("groups", "in_channels", "out_channels"), index.shape[1])

    def normalized_by(self, path: str, index: Index | None = None) -> Draft:
        """An entry in each tensor of a norm; a layer norm counts the units in its sums."""
        index, norm = self._index(index), self.root.get_submodule(path)
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.own(f"{path}.{name}", index)
        if isinstance(norm, nn.LayerNorm):
            self._sums.append(Sums(self.prefix + path, index))
        return self

    def own(self, name: str, index: Index | None = None, axis: int = 0) -> Draft:
        """Entries of a tensor, if it is there (a bias may not be)."""
        place, _, last = name.rpartition(".")
        if getattr(self.root.get_submodule(place), last, None) is not None:
            self._tensors.append(Places(self.prefix + name, axis, self._index(index)))
        return self

    def fed_back_by(self, name: str) -> Draft:
        """Columns of a recurrent weight: a gate, too."""
        self._gated(name, 1, self._index(None))
        return self

    def columns_of(self, name: str, index: Index) -> Draft:
        """Columns of a weight that is a parameter of its own (an LSTM's): a gate."""
        self._gated(name, 1, index)
        return self

    def counted(self, path: str, names: Sequence[str], each: int) -> Draft:
        """Attributes of a module that fall by ``each`` with every unit; those that it has."""
        known = vars(self.root.get_submodule(path))
        for name in names:
            if name in known:
                key = self.prefix + path, name
                self._attributes[key] = self._attributes.get(key, 0) + each
        return self

    def keeping(self, *units: int) -> Draft:
        """Units that must stay."""
        self._always = frozenset(units)
        return self

    def done(self) -> Group:
        return Group(
            f"{self.prefix}{self.name}",
            self.kind,
            self.units,
            tuple(self._tensors),
            tuple(self._gates),
            tuple(self._sums),
            self._attributes,
            self._always,
            self._seen,
        )

    def _gated(self, name: str, axis: int, index: Index) -> None:
        self._tensors.append(Places(self.prefix + name, axis, index))
        self._gates.append(self._tensors[-1])

    def _index(self, index: Index | None) -> Index:
        return span(self.units) if index is None else index


def layer_groups(
    root: nn.Module, prefix: str, path: str, numbers: Iterable[int] | None = None
) -> Iterator[Group]:
    """Each layer of a list as a group of one unit; the last one that is there stays."""
    layers = root.get_submodule(path)
    assert isinstance(layers, nn.ModuleList)
    there = {id(layer) for layer in present(layers)}
    if len(there) < 2:
        return
    for number in range(len(layers)) if numbers is None else numbers:
        if id(layers[number]) in there:
            name = f"{prefix}{path}.{number}"
            yield Group(f"{name}: layer", "layers", 1, layer=(f"{prefix}{path}", number))


def cut(model: SpeechModel, removed: Mapping[Group, Iterable[int]]) -> tuple[Change, ...]:
    """Take units out of a model, in place -> what was changed; ``model.structure`` tells it, too.

    Groups must be those of the model as it is; at least one unit of each stays, a layer's apart.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    gone: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    attributes: dict[str, dict[str, int]] = defaultdict(dict)
    drops: list[tuple[str, int]] = []
    for group, chosen in removed.items():
        units = sorted(set(chosen))
        if not units:
            continue
        if group.layer is not None:
            drops.append(group.layer)
            continue
        for places in group.tensors:
            gone[places.tensor][places.axis].update(places.index[units].flatten().tolist())
        for (module, name), each in group.attributes.items():
            now = attributes[module].get(name)
            now = int(vars(model.get_submodule(module))[name]) if now is None else now
            attributes[module][name] = now - each * len(units)
    within = tuple(f"{path}.{number}." for path, number in drops)
    shapes: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    kept: dict[str, Tensor] = {}
    for name, axes in gone.items():
        if name.startswith(within):
            continue
        new = tensors[name].detach()
        for axis, entries in axes.items():
            left = [i for i in range(new.shape[axis]) if i not in entries]
            new = new.index_select(axis, torch.tensor(left, device=new.device))
        kept[name] = new
        owner, _, last = name.rpartition(".")
        shapes[owner][last] = tuple(new.shape)
    modules = [m for m in dict.fromkeys([*attributes, *shapes]) if not f"{m}.".startswith(within)]
    changes: list[Change] = [
        Cut(module=module, attributes=attributes.get(module, {}), shapes=shapes.get(module, {}))
        for module in sorted(modules)
    ]
    changes += [Drop(list=path, index=number) for path, number in drops]
    apply_structure(model, Structure(changes=tuple(changes)))
    with torch.no_grad():
        now = dict(model.named_parameters()) | dict(model.named_buffers())
        for name, new in kept.items():
            now[name].copy_(new)
    model.structure = model.structure.then(changes)
    return tuple(changes)
