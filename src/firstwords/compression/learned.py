"""What a model learns with while it is quantized: shared weights, weights and inputs that are rounded.

    SharedWeights   w = codebook[index]; the gradient of a centroid is the sum over its weights
                    (Han et al., 2016, arXiv:1510.00149, section 3.3)
    RoundedWeights  w -> q s, s = max|w| / 127 of each output channel; the gradient passes as if nothing were
                    rounded (straight through: Bengio et al., 2013, arXiv:1308.3432)
    RoundedInput    the same of a layer's input, with one scale that follows the percentile of the batches as
                    a moving average, until it is frozen (Jacob et al., 2018, arXiv:1712.05877, section 3.1)

The first two are parametrizations of torch: a module's ``weight`` becomes what they compute, wherever it is
used, and what learns is the codebook, or the weight before rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn
from torch.nn.utils import parametrize

from firstwords.compression.calibration import PERCENTILE
from firstwords.model.codebook import fit_codebook, nearest
from firstwords.model.storage import Storage
from firstwords.nn.int8 import LARGEST, channel_scales

MOMENTUM = 0.01  # of the moving average, for each batch
_LOOKED_AT = 65536  # numbers of an input, evenly spaced, from which the percentile is taken


@final
class SharedWeights(nn.Module):
    """Codebooks (G, K) -> a weight of any shape, by indices that stay as they are.

    Args:
        weight: what it begins with, fitted as storage would fit it.
    """

    def __init__(self, weight: Tensor, storage: Storage) -> None:
        super().__init__()
        self.shape = weight.shape
        books: list[Tensor] = []
        indices: list[Tensor] = []
        for number, group in enumerate(weight.detach().float().cpu().flatten(1).split(storage.rows)):
            values = group.flatten().numpy()
            book = fit_codebook(values, storage.bits)
            books.append(torch.from_numpy(book.astype(np.float32)))
            indices.append(torch.from_numpy(nearest(values, book)).long() + number * 2**storage.bits)
        self.register_buffer("indices", torch.cat(indices).int().to(weight.device))
        self.start = torch.stack(books).to(weight.device)

    def forward(self, codebooks: Float[Tensor, "groups centroids"]) -> Float[Tensor, "*any"]:
        indices: Int[Tensor, " numbers"] = cast("Tensor", self.indices)
        return codebooks.flatten().index_select(0, indices).view(self.shape)

    def right_inverse(self, weight: Tensor) -> Float[Tensor, "groups centroids"]:
        """The codebooks that the weight was fitted with."""
        del weight
        return self.start.clone()


@final
class RoundedWeights(nn.Module):
    """What an ``Int8Linear`` made of this weight would multiply with."""

    def forward(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        scales = channel_scales(weight).unsqueeze(1)
        return _straight_through(weight, scales, clip=False)


@final
class RoundedInput(nn.Module):
    """What a static ``Int8Linear`` makes of its input; ``scale`` is learned by watching."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.frozen = False
        self.register_buffer("scale", torch.tensor(scale))

    @property
    def value(self) -> float:
        """The scale as it is now."""
        return float(cast("Tensor", self.scale))

    def forward(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        scale = cast("Tensor", self.scale)
        if self.training and not self.frozen:
            scale += MOMENTUM * (_percentile(x) / LARGEST - scale)
        return _straight_through(x, scale, clip=True)


def share_weights(model: nn.Module, choices: Mapping[str, Storage]) -> list[str]:
    """Make the codebooks of these tensors what learns -> the names of those that can.

    Those of recurrent layers cannot: torch hands their weights to its kernels by another way. They stay as
    they are, since other values would be given other codebooks.
    """
    done: list[str] = []
    for name, storage in choices.items():
        place, _, last = name.rpartition(".")
        module = model.get_submodule(place)
        if storage.kind != "kmeans":
            continue
        weight = cast("Tensor", getattr(module, last))
        if isinstance(module, nn.RNNBase):
            weight.requires_grad_(False)
            continue
        parametrize.register_parametrization(module, last, SharedWeights(weight, storage), unsafe=True)
        done.append(name)
    return done


def round_layers(model: nn.Module, scales: Mapping[str, float]) -> list[RoundedInput]:
    """Let linear layers compute as in 8 bits, from these scales of their inputs on -> their inputs."""
    inputs: list[RoundedInput] = []
    for name, scale in scales.items():
        linear = model.get_submodule(name)
        parametrize.register_parametrization(linear, "weight", RoundedWeights(), unsafe=True)
        linear.add_module("rounded_input", rounded := RoundedInput(scale))

        def hook(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (cast("nn.Module", module.rounded_input)(given[0]), *given[1:])

        linear.register_forward_pre_hook(hook)
        inputs.append(rounded)
    return inputs


def learned_state(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The state of a model under the ``names`` it had before, with weights as they are used."""
    own = model.state_dict()
    found: dict[str, Tensor] = {}
    for name in names:
        place, _, last = name.rpartition(".")
        value = own[name] if name in own else cast("Tensor", getattr(model.get_submodule(place), last))
        found[name] = value.detach().clone()
    return found


def _percentile(x: Float[Tensor, "*any"]) -> Float32[Tensor, ""]:
    flat = x.detach().float().flatten()
    flat = flat[:: -(-flat.numel() // _LOOKED_AT)].abs()
    beyond = int(flat.numel() * (1 - PERCENTILE / 100))
    return flat.topk(beyond + 1).values[-1]


def _straight_through(x: Tensor, scale: Tensor, *, clip: bool) -> Tensor:
    """Rounded to multiples of ``scale``; what is clipped has no gradient."""
    kept = torch.clamp(x, -LARGEST * scale, LARGEST * scale) if clip else x
    rounded = (kept.detach() / scale).round().clamp(-LARGEST, LARGEST) * scale
    return kept + (rounded - kept).detach()
