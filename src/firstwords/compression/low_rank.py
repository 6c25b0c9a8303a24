"""Linear layers as products of two thin matrices, chosen by the data that they read.

    y = W x + b  ->  U (D x) + b'        W (m, n),  D (r, n),  U (m, r),  r < m n / (m + n)

The mean squared error of the outputs is least where D keeps the r directions in which the outputs vary most:
with C the covariance of the inputs and E the r leading eigenvectors of W C W^T,

    U = E,  D = E^T W,  b' = b + (1 - E E^T) W mean        error = the sum of the other eigenvalues

the same optimum as a truncated singular value decomposition of W C^(1/2) (Chen et al., 2021, "DRONE",
NeurIPS, section 3), found without an inverse. A layer without bias cannot make up for the mean, so there the
second moment stands for the covariance. "plain" is the singular value decomposition of W itself, as a
control.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.data.batch import Batch
from firstwords.errors import UsageError
from firstwords.model.checkpoint import load_weights
from firstwords.model.speech_model import SpeechModel
from firstwords.model.structure import LowRank
from firstwords.nn.linear import Linear
from firstwords.nn.low_rank import worth

Method = Literal["data", "plain"]
_BISECTIONS = 40
_DAMPING = 1e-9  # of the mean variance, added to each: directions that were never seen


class Moments:
    """Mean and second moments of the vectors that a layer reads, in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total: Tensor = torch.zeros(width, dtype=torch.float64)
        self.outer: Tensor = torch.zeros(width, width, dtype=torch.float64)

    def add(self, x: Float[Tensor, "*places inputs"]) -> None:
        """More vectors."""
        rows = x.detach().reshape(-1, x.shape[-1]).double().cpu()
        self.count += len(rows)
        self.total += rows.sum(dim=0)
        self.outer += rows.T @ rows

    @property
    def mean(self) -> Float[Tensor, " inputs"]:
        return self.total / max(self.count, 1)

    def covariance(self, *, centered: bool) -> Float[Tensor, "inputs inputs"]:
        """Around the mean, or around zero."""
        found = self.outer / max(self.count, 1)
        if centered:
            found = found - torch.outer(self.mean, self.mean)
        damping = _DAMPING * float(found.diagonal().mean().clamp_min(0.0))
        return found + damping * torch.eye(len(found), dtype=found.dtype)


class Factors(NamedTuple):
    """Two matrices and a bias in place of a layer; ``energy``: of all directions, falling."""

    down: Float[Tensor, "rank inputs"]
    up: Float[Tensor, "outputs rank"]
    bias: Float[Tensor, " outputs"] | None
    energy: Float[Tensor, " directions"]


def factors(
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None,
    moments: Moments | None,
    rank: int,
) -> Factors:
    """A layer -> its best factors of a rank, in float64; without ``moments`` by the weights alone."""
    w = weight.detach().double().cpu()
    b = None if bias is None else bias.detach().double().cpu()
    if moments is None:
        left, sizes, right = torch.linalg.svd(w, full_matrices=False)
        root = sizes[:rank].sqrt()
        return Factors(root[:, None] * right[:rank], left[:, :rank] * root, b, sizes**2)
    seen = w @ moments.covariance(centered=b is not None) @ w.T
    values, vectors = torch.linalg.eigh(seen)
    kept = vectors.flip(1)[:, :rank]
    down = kept.T @ w
    if b is not None:
        lost = w @ moments.mean
        b = b + lost - kept @ (kept.T @ lost)
    return Factors(down, kept, b, values.flip(0).clamp_min(0.0))


@torch.no_grad()
def collect(model: SpeechModel, batches: Iterable[Batch]) -> dict[str, Moments]:
    """Utterances one by one -> what every linear layer reads that is called at all."""
    found: dict[str, Moments] = {}
    model.eval()
    with _watched(model, found):
        for batch in batches:
            _encode_and_write(model, batch)
    return found


@contextmanager
def _watched(model: SpeechModel, found: dict[str, Moments]) -> Generator[None]:
    def hook(path: str) -> object:
        def see(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            del module
            found.setdefault(path, Moments(given[0].shape[-1])).add(given[0])

        return see

    handles = [
        module.register_forward_pre_hook(hook(path))  # pyright: ignore[reportArgumentType]
        for path, module in model.named_modules()
        if type(module) in (nn.Linear, Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Layer:
    """A layer that could be factored, and the energy of its directions, falling."""

    path: str
    inputs: int
    outputs: int
    energy: Float[Tensor, " directions"]

    def rank(self, energy: float) -> int | None:
        """The least rank that keeps this share of the energy; None where that would not be smaller."""
        total = self.energy.sum()
        if float(total) <= 0.0:
            return None
        kept = (self.energy.cumsum(0) / total < energy).sum()
        rank = int(kept) + 1
        return rank if rank <= worth(self.inputs, self.outputs) else None

    def saved(self, rank: int | None) -> int:
        """Numbers fewer than before."""
        if rank is None:
            return 0
        return self.inputs * self.outputs - rank * (self.inputs + self.outputs)


def candidates(
    model: SpeechModel, moments: Mapping[str, Moments], *, method: Method, only: Sequence[str] = ()
) -> list[Layer]:
    """Layers whose input is known, and whose path matches one of ``only`` ("encoder.*feed*"; none: all)."""
    found: list[Layer] = []
    for path, known in moments.items():
        if only and not any(fnmatchcase(path, pattern) for pattern in only):
            continue
        module = model.get_submodule(path)
        assert isinstance(module, nn.Linear)
        if worth(module.in_features, module.out_features) < 1:
            continue
        used = known if method == "data" else None
        energy = factors(module.weight, module.bias, used, 1).energy
        found.append(Layer(path, module.in_features, module.out_features, energy))
    if not found:
        names = ", ".join(list(moments)[:3])
        raise UsageError(
            f"No linear layer is called like {list(only)}." if only else "The model has no linear layer.",
            mend=f"Paths look like {names}; * stands for anything.",
        )
    return found


def ranks_by_energy(layers: Sequence[Layer], energy: float) -> dict[str, int]:
    """Every layer keeps this share of its energy; those that would not become smaller are left out."""
    chosen = {layer.path: layer.rank(energy) for layer in layers}
    return {path: rank for path, rank in chosen.items() if rank is not None}


def ranks_by_cut(layers: Sequence[Layer], parameters: int, cut: float) -> dict[str, int]:
    """Equal energy kept in all layers, as much as lets at least ``cut`` of the model's parameters go.

    UsageError where ranks of one would not be enough.
    """
    wanted = parameters * cut

    def saved(energy: float) -> int:
        return sum(layer.saved(layer.rank(energy)) for layer in layers)

    if saved(0.0) < wanted:
        most = saved(0.0) / parameters
        raise UsageError(
            f"--cut {cut:g}: with ranks of 1 no more than {most:.0%} of the parameters would go.",
            mend="Cut less, factor more layers (--only), or prune first.",
        )
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if saved(middle) >= wanted else (low, middle)
    return ranks_by_energy(layers, low)


def factored(
    model: SpeechModel, moments: Mapping[str, Moments], ranks: Mapping[str, int], *, method: Method
) -> SpeechModel:
    """The model with these layers as products; the one given stays as it is."""
    changes = [LowRank(module=path, rank=rank) for path, rank in ranks.items()]
    weights = dict(model.state_dict())
    for path, rank in ranks.items():
        module = model.get_submodule(path)
        assert isinstance(module, nn.Linear)
        like = module.weight
        made = factors(like, module.bias, moments[path] if method == "data" else None, rank)
        del weights[f"{path}.weight"]
        weights[f"{path}.down.weight"] = made.down.to(like)
        weights[f"{path}.up.weight"] = made.up.to(like)
        if made.bias is not None:
            del weights[f"{path}.bias"]
            weights[f"{path}.up.bias"] = made.bias.to(like)
    place = next(model.parameters()).device
    new = SpeechModel(model.recipe, model.vocabulary, model.structure.then(changes))
    load_weights(new, {name: copy.deepcopy(value) for name, value in weights.items()}, source="factors")
    return new.to(place).eval()


def _encode_and_write(model: SpeechModel, batch: Batch) -> None:
    """Run every part of a model that recognition runs: encoder, and heads on the transcript."""
    encoded = model.encode(batch.audio)
    for _, head in model.named_heads():
        head.loss(encoded, batch.targets)
