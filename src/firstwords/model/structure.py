"""What was cut from a model after it was born from its recipe: ``structure.json``.

    {"format": 1, "changes": [{"kind": "cut", ...}, {"kind": "drop", ...}]}

The recipe stays what it was. The changes are applied in their order to the model that the recipe gives, and
only then are weights loaded. They make room for weights and hold none: what stands in a changed module
before that is of no meaning.

A kind of change is a class with ``apply`` and its name in ``Change``. Paths are those of
``named_modules`` and ``named_parameters`` of the whole model ("encoder.layers.0.feed_in").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import torch
from pydantic import ConfigDict, Field, ValidationError
from torch import nn

from firstwords.config import Config
from firstwords.encoders.layers import Absent, present
from firstwords.errors import CheckpointError
from firstwords.files import write_atomically
from firstwords.nn.folding import make_room
from firstwords.nn.low_rank import LowRankLinear

FILE = "structure.json"
_MEND = "Was the file edited, or does it belong to another recipe? Copy the whole folder again."

# What counts units in our modules and torch's. Others ("shift", "fft_size") are settings, not sizes.
_OF_TORCH = ("in_channels", "out_channels", "in_features", "out_features", "hidden_size", "input_size")
COUNTS = frozenset((*_OF_TORCH, "channels", "groups", "heads", "hidden"))

ModelT = TypeVar("ModelT", bound=nn.Module)


class Step(Config):
    """A change: strict, as nobody writes it by hand."""

    model_config = ConfigDict(strict=True)


class Cut(Step):
    """A module with fewer units: other integer attributes, smaller tensors.

    Args:
        attributes: of the module itself; only those that it has, whole numbers from 1 to what it was.
        shapes: parameter or buffer below the module ("in_proj.weight") -> its sizes, none larger than before.
    """

    kind: Literal["cut"] = "cut"
    module: str
    attributes: dict[str, int] = Field(default_factory=dict[str, int])
    shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict[str, tuple[int, ...]])

    def apply(self, model: nn.Module) -> None:
        module = _module(model, self.module)
        for name, value in self.attributes.items():
            old = vars(module).get(name) if name in COUNTS else None
            if not isinstance(old, int) or isinstance(old, bool):
                raise ValueError(f"'{self.module}' has no number of units called '{name}'")
            if not 1 <= value <= old:
                raise ValueError(f"{name} = {value} of '{self.module}' is not between 1 and {old}")
            setattr(module, name, value)
        for name, sizes in self.shapes.items():
            _resize(module, name, sizes, f"{self.module}.{name}")
        if isinstance(module, nn.LayerNorm) and "weight" in self.shapes:
            module.normalized_shape = self.shapes["weight"]  # its sizes, which torch keeps beside the weight


class Drop(Step):
    """A layer left out of a list of layers.

    Its place stays (``Absent`` hands on what it gets), so that the other layers keep their numbers, in
    names of weights as in settings that count layers.
    """

    kind: Literal["drop"] = "drop"
    list: str
    index: int = Field(ge=0)

    def apply(self, model: nn.Module) -> None:
        layers = _module(model, self.list)
        if not isinstance(layers, nn.ModuleList):
            raise ValueError(f"'{self.list}' is no list of layers")
        if self.index >= len(layers):
            raise ValueError(f"'{self.list}' has {len(layers)} layers, so none has number {self.index}")
        if isinstance(layers[self.index], Absent):
            raise ValueError(f"layer {self.index} of '{self.list}' was left out before")
        if len(present(layers)) == 1:
            raise ValueError(f"layer {self.index} is the last one of '{self.list}'")
        layers[self.index] = Absent()


class LowRank(Step):
    """A linear layer made of two thin ones."""

    kind: Literal["low_rank"] = "low_rank"
    module: str
    rank: int = Field(ge=1)

    def apply(self, model: nn.Module) -> None:
        old = _module(model, self.module)
        if not isinstance(old, nn.Linear):
            raise ValueError(f"'{self.module}' is no linear layer")
        if self.rank > min(old.in_features, old.out_features):
            sizes = f"{old.out_features} x {old.in_features}"
            raise ValueError(f"rank {self.rank} is more than '{self.module}' has ({sizes})")
        new = LowRankLinear(
            old.in_features, old.out_features, self.rank, bias=bool(old._parameters.get("bias") is not None)
        )
        place, _, name = self.module.rpartition(".")
        setattr(_module(model, place), name, new.to(old.weight.device, old.weight.dtype))


class Fold(Step):
    """A batch norm, or a scale, that became part of the matrix beside it (nn/folding.py)."""

    kind: Literal["fold"] = "fold"
    module: str

    def apply(self, model: nn.Module) -> None:
        make_room(model, self.module)


Change = Annotated[Cut | Drop | LowRank | Fold, Field(discriminator="kind")]


class Structure(Step):
    """The changes of a model since its recipe, in order."""

    format: Literal[1] = 1
    changes: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes)

    def then(self, changes: Iterable[Change]) -> Self:
        """This and more changes after it."""
        return self.model_copy(update={"changes": (*self.changes, *changes)})

    @property
    def digest(self) -> str:
        """Fingerprint; "" where nothing was changed."""
        return hashlib.sha256(self.text().encode()).hexdigest() if self else ""

    def text(self) -> str:
        """The content of the file, a change on each line."""
        lines = ",\n  ".join(json.dumps(c.model_dump(mode="json"), sort_keys=True) for c in self.changes)
        return f'{{"format": {self.format}, "changes": [\n  {lines}\n]}}\n'


UNCHANGED = Structure()


def apply_structure(model: ModelT, structure: Structure, *, source: str = FILE) -> ModelT:
    """Change a model that is as its recipe says; CheckpointError names the entry that does not fit."""
    for number, change in enumerate(structure.changes, start=1):
        try:
            change.apply(model)
        except ValueError as error:
            raise CheckpointError(
                f"'{source}': change {number} ({change.kind}) does not fit the recipe: {error}.", mend=_MEND
            ) from None
    return model


def read_structure(folder: Path) -> Structure:
    """``structure.json`` of a model folder; UNCHANGED where there is none."""
    path = folder / FILE
    if not path.is_file():
        return UNCHANGED
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        number = content.get("format") if isinstance(content, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if isinstance(number, int) and number > 1:
            raise CheckpointError(
                f"'{path}' has format {number}; this version of firstwords reads format 1.",
                mend="Install a newer version: pip install --upgrade firstwords",
            )
        return Structure.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise CheckpointError(f"'{path}': {_explain(error)}.", mend=_MEND) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is no JSON: {error}.", mend=_MEND) from None


def write_structure(folder: Path, structure: Structure) -> None:
    """Write ``structure.json``; nothing where nothing was changed."""
    if structure:
        write_atomically(folder / FILE, structure.text())


def _explain(error: ValidationError) -> str:
    fault = error.errors()[0]
    place = list(fault["loc"])
    if place[:1] == ["changes"] and len(place) > 1 and isinstance(place[1], int):
        return f"change {place[1] + 1}: {'.'.join(map(str, place[2:]))}: {fault['msg']}"
    return f"{'.'.join(map(str, place)) or 'content'}: {fault['msg']}"


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ValueError(f"there is no module '{path}'") from None


def _resize(module: nn.Module, name: str, sizes: tuple[int, ...], shown: str) -> None:
    place, _, last = name.rpartition(".")
    owner = _module(module, place)
    old = owner._parameters.get(last)
    buffer = old is None
    old = owner._buffers.get(last) if old is None else old
    if old is None:
        raise ValueError(f"there is no tensor '{shown}'")
    if len(sizes) != old.dim() or any(not 0 <= n <= m for n, m in zip(sizes, old.shape, strict=True)):
        raise ValueError(f"'{shown}' cannot become {list(sizes)}: it is {list(old.shape)}")
    new = torch.zeros(sizes, dtype=old.dtype, device=old.device)
    if buffer:
        owner._buffers[last] = new
    else:  # by its name: an LSTM keeps a list of its weights beside them
        setattr(owner, last, nn.Parameter(new, requires_grad=old.requires_grad))
