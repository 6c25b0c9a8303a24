"""Several models of one architecture -> the weights of one.

Every merge is one sum over models, with shares that add up to one:

    average            w_1 ... w_n, each from 0 up   Wortsman et al., 2022, arXiv:2203.05482, section 2
    task arithmetic    base 1 - Σ s, each task s     Ilharco et al., 2023, arXiv:2212.04089, section 2:
                                                     base + Σ s (task - base), s < 0 to forget a task

so that share 1 gives a model back bit for bit, and so does the average of a model with itself. Sums are
float64. Tensors are read from the files one by one: the parents are never in memory as a whole.

What is no weight is merged for what it is. Variances of normalization layers are those of the mixture of
the parents' activations, E[x²] - E[x]², not the mean of variances, which is too small where means differ;
subtraction could make them negative, so none gets below the least of its parents. Counters are the largest
of their parents. All this is but a guess at the activations of the merged weights: training/soup.py measures
the statistics of batch normalization anew where there is a corpus.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from firstwords.errors import CheckpointError, ConfigError, UsageError
from firstwords.model.checkpoint import (
    RECIPE,
    TOKENIZER,
    WEIGHTS,
    closed_words,
    load_weights,
    require_files,
    stranger,
    weights_digest,
)
from firstwords.model.recipe import Recipe, read_recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import KEY
from firstwords.model.structure import UNCHANGED, Structure, read_structure
from firstwords.text.load import load_tokenizer
from firstwords.text.tokenizer import Tokenizer

ARCHITECTURE = ("features", "encoder", "heads")  # parts of a recipe that say what the weights mean
# Settings of encoders and heads that act in training alone (a test holds the list): models that differ in
# nothing else compute alike.
TRAINING_ONLY: Mapping[str, frozenset[str]] = {
    "features": frozenset(),
    "encoder": frozenset({"dropout", "layer_drop"}),
    "heads": frozenset(
        {
            *("weight", "dropout", "label_smoothing", "blank_bias", "consistency", "intermediate_weight"),
            *("simple_weight", "lm_scale", "am_scale", "warmup", "sampling", "guided"),
            "folder",  # where a fused language model was; what it says is compared itself
        }
    ),
}
_FUSED = ".fusion.language_model."  # in names of tensors: heads/attention/fusion.py
_MEAN_OF = {"running_var": "running_mean", "variance": "mean"}
_COUNTERS = ("num_batches_tracked", "count")
_SHOWN = 5  # differences named in an error
STRANGERS = 0.5  # cosine of two models' weights below which they hardly come from one start


class Shape(NamedTuple):
    """Sizes and number format of a tensor in a file."""

    sizes: tuple[int, ...]
    format: str


@dataclass(frozen=True)
class Parent:
    """A model folder, weights not read."""

    folder: Path
    recipe: Recipe
    tokenizer: Tokenizer
    shapes: Mapping[str, Shape]
    fingerprint: str  # SHA-256 of model.safetensors
    words: frozenset[str] = frozenset()  # of a closed vocabulary
    structure: Structure = UNCHANGED
    fused: str = ""  # SHA-256 of the weights of a language model inside the decoder

    @property
    def name(self) -> str:
        return self.folder.resolve().name


class Ingredient(NamedTuple):
    """A model and its share in the sum; shares add up to one and may be negative."""

    parent: Parent
    share: float


def read_parent(folder: Path) -> Parent:
    """Model folder -> Parent; CheckpointError where it is none."""
    require_files(folder)
    path = folder / WEIGHTS
    try:
        recipe = read_recipe(folder / RECIPE)
    except ConfigError as error:
        raise CheckpointError(error.what, mend=error.mend) from None
    tokenizer = load_tokenizer(folder / TOKENIZER)
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = dict(file.metadata() or {})
            slices = {str(name): file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: Shape(tuple(s.get_shape()), str(s.get_dtype())) for name, s in slices.items()}
            inside = {name: file.get_tensor(name) for name in shapes if _FUSED in name}
        with path.open("rb") as raw:
            fingerprint = hashlib.file_digest(raw, "sha256").hexdigest()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read as safetensors: {error}.",
            mend="Was the copy interrupted? Copy it again.",
        ) from None
    if KEY in header:
        raise CheckpointError(
            f"'{folder}' keeps its weights in fewer bits, and sums of such weights cannot be kept so.",
            mend="Merge the models they were made of, then quantize the result.",
        )
    if found := stranger(folder, recipe, tokenizer, header):
        raise CheckpointError(
            f"'{folder}': {WEIGHTS} was not saved with this {found} (the stored fingerprint differs).",
            mend="Was the file edited, or the copy interrupted? Copy the whole folder again.",
        )
    words = closed_words(header, folder)
    fused = weights_digest(inside) if inside else ""
    return Parent(folder, recipe, tokenizer, shapes, fingerprint, words, read_structure(folder), fused)


def average(parents: Sequence[Parent], weights: Sequence[float] | None = None) -> list[Ingredient]:
    """Parents and their weights, uniform by default -> shares; weights are divided by their sum."""
    given = [1.0] * len(parents) if weights is None else list(weights)
    if len(given) != len(parents):
        raise UsageError(
            f"{len(given)} weights for {len(parents)} models.",
            mend="Give one for each model, in their order.",
        )
    total = sum(given)
    if not all(math.isfinite(w) and w >= 0 for w in given) or not math.isfinite(total) or total <= 0:
        raise UsageError(
            f"Weights {', '.join(f'{w:g}' for w in given)}: expected numbers from 0 up, not all 0.",
            mend="To subtract a model, use task arithmetic: --base, --task and --subtract.",
        )
    return [Ingredient(parent, w / total) for parent, w in zip(parents, given, strict=True)]


def task_arithmetic(
    base: Parent, tasks: Iterable[Parent], subtracted: Iterable[Parent], scale: float
) -> list[Ingredient]:
    """base + scale (Σ (task - base) - Σ (subtracted - base)) as shares, the base first."""
    added = [Ingredient(parent, scale) for parent in tasks]
    added += [Ingredient(parent, -scale) for parent in subtracted]
    return [Ingredient(base, 1.0 - math.fsum(share for _, share in added)), *added]


def check_alike(parents: Sequence[Parent]) -> list[str]:
    """CheckpointError where weights cannot be added; else what differs beside them, in words.

    All are compared with the first, whose recipe the merged model gets.
    """
    first = parents[0]
    notes: dict[str, list[str]] = {}
    own = _flat(first.recipe)
    for other in parents[1:]:
        faults = [*_other_architecture(own, _flat(other.recipe)), *_other_tensors(first.shapes, other.shapes)]
        if type(other.tokenizer) is not type(first.tokenizer) or (
            other.tokenizer.piece_hash != first.tokenizer.piece_hash
        ):
            faults.insert(0, _other_pieces(first.tokenizer, other.tokenizer))
        if other.structure != first.structure:
            faults.insert(0, "other parts were cut from it (structure.json)")
        if other.fused != first.fused:
            faults.insert(0, "the language model inside its decoder is another one")
        if faults:
            more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            raise CheckpointError(
                f"'{other.folder}' cannot be merged with '{first.folder}': "
                f"{'; '.join(faults[:_SHOWN])}{more}.",
                mend="Merge models of one recipe and one tokenizer, best those fine-tuned from one model "
                "('firstwords train --from').",
            )
        for name, (here, there) in _differences(own, _flat(other.recipe)).items():
            notes.setdefault(name, [f"{here}"]).append(f"{there} in '{other.name}'")
    return [f"{name}: {', '.join(values)}" for name, values in notes.items() if name != "name"]


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Every setting under its dotted name; lists are values."""
    found: dict[str, Any] = {}

    def visit(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in cast("dict[str, Any]", value).items():
                visit(inner, f"{name}.{key}" if name else key)
        else:
            found[name] = value

    visit(recipe.model_dump(mode="json"), "")
    return found


def _differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys((*one, *two))
    return {n: (one.get(n), two.get(n)) for n in names if one.get(n) != two.get(n)}


def _other_architecture(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """Settings that give equal weights another meaning."""
    return [
        f"{name} = {here}, there {there}"
        for name, (here, there) in _differences(one, two).items()
        if (part := name.partition(".")[0]) in ARCHITECTURE
        and not TRAINING_ONLY[part].intersection(name.split(".")[1:])
    ]


def _other_tensors(one: Mapping[str, Shape], two: Mapping[str, Shape]) -> list[str]:
    faults = [f"{name} is missing there" for name in one if name not in two]
    faults += [f"{name} is only there" for name in two if name not in one]
    return faults + [
        f"{name} is {list(one[name].sizes)} {one[name].format}, there {list(two[name].sizes)} "
        f"{two[name].format}"
        for name in one
        if name in two and one[name] != two[name]
    ]


def _other_pieces(one: Tokenizer, two: Tokenizer) -> str:
    for number, (here, there) in enumerate(zip(one.pieces, two.pieces, strict=False)):
        if here != there:
            return f"piece {number} is '{here}', there '{there}'"
    if len(one.pieces) != len(two.pieces):
        return f"{len(one.pieces)} pieces, there {len(two.pieces)}"
    return f"tokenizer of kind {type(one).__name__}, there {type(two).__name__}"


@dataclass(frozen=True)
class Merged:
    """Merged weights, and how alike each parent's matrices are to the first one's.

    ``likeness`` is the cosine over all tensors with two axes or more: near 1 for models fine-tuned from one
    start, near 0 for models trained from different random weights, whose average is mostly noise.
    """

    weights: dict[str, Tensor]
    likeness: tuple[float, ...]


def merge_weights(ingredients: Sequence[Ingredient]) -> Merged:
    """Models that ``check_alike`` has passed and their shares -> the weighted sum of their tensors."""
    with ExitStack() as stack:
        files = [
            stack.enter_context(safe_open(parent.folder / WEIGHTS, framework="pt"))
            for parent, _ in ingredients
        ]
        shares = [share for _, share in ingredients]
        names = ingredients[0].parent.shapes
        products = torch.zeros(2, len(files), dtype=torch.float64)  # with the first, with itself
        weights: dict[str, Tensor] = {}
        for name in names:
            one = _Tensors(name, files)
            place, _, last = name.rpartition(".")
            mean = f"{place}.{_MEAN_OF[last]}" if last in _MEAN_OF else ""
            if last in _COUNTERS or not one.get(0).is_floating_point():
                merged = _largest(one, shares)
            elif mean in names:
                merged = _mixed_variance(one, _Tensors(mean, files), shares)
            else:
                merged = _sum(one, shares)
            weights[name] = merged.to(one.get(0).dtype)
            if merged.is_floating_point() and not weights[name].isfinite().all():
                raise _not_finite(one, ingredients)
            if len(names[name].sizes) > 1:
                products += one.products()
    norms = products[1].sqrt()
    likeness = products[0] / (norms * norms[0]).clamp(min=torch.finfo(torch.float64).tiny)
    return Merged(weights, tuple(likeness.tolist()))


class _Tensors:
    """One tensor of every file, read when asked for."""

    def __init__(self, name: str, files: Sequence[Any]) -> None:
        self.name, self.files = name, files

    def get(self, place: int) -> Tensor:
        return cast("Tensor", self.files[place].get_tensor(self.name))

    def products(self) -> Tensor:
        """(2, files): inner products with the first one and with itself."""
        first = self.get(0).double().flatten()
        columns: list[Tensor] = []
        for place in range(len(self.files)):
            own = self.get(place).double().flatten()
            columns.append(torch.stack([own @ first, own @ own]))
        return torch.stack(columns, dim=1)


def _sum(tensors: _Tensors, shares: Sequence[float]) -> Tensor:
    """Σ share · tensor in float64; a share of 0 counts for nothing, whatever the tensor holds."""
    total = torch.zeros_like(tensors.get(0), dtype=torch.float64)
    for place, share in enumerate(shares):
        if share:
            total.add_(tensors.get(place).double(), alpha=share)
    return total


def _mixed_variance(variances: _Tensors, means: _Tensors, shares: Sequence[float]) -> Tensor:
    """Σ share · (variance + (mean - mixed mean)²), at least the least of the parents' variances."""
    used = [place for place, share in enumerate(shares) if share]
    mean = _sum(means, shares)
    total = torch.zeros_like(mean)
    for place in used:
        inside = variances.get(place).double()
        total.add_(inside + (means.get(place).double() - mean).square(), alpha=shares[place])
    least = torch.stack([variances.get(place).double() for place in used]).amin(dim=0)
    return torch.maximum(total, least)


def _largest(tensors: _Tensors, shares: Sequence[float]) -> Tensor:
    used = [tensors.get(place) for place, share in enumerate(shares) if share]
    return torch.stack(used).amax(dim=0)


def _not_finite(tensors: _Tensors, ingredients: Sequence[Ingredient]) -> CheckpointError:
    for place, (parent, share) in enumerate(ingredients):
        if share and not tensors.get(place).isfinite().all():
            return CheckpointError(
                f"'{parent.folder}': {tensors.name} holds values that are no numbers.",
                mend="Leave this model out: its training has failed.",
            )
    return CheckpointError(f"The sum of {tensors.name} is no number.", mend="Use a smaller --scale.")


def build_merged(
    recipe: Recipe, tokenizer: Tokenizer, weights: Mapping[str, Tensor], structure: Structure = UNCHANGED
) -> SpeechModel:
    """Merged weights -> a model in evaluation mode, on the CPU."""
    model = SpeechModel(recipe, len(tokenizer.pieces), structure)
    load_weights(model, weights, source="the merged weights")
    return model.eval()
