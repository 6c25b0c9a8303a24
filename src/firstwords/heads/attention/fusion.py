"""A frozen language model inside a decoder: it reads what was written and has a say in what comes next.

With s the decoder's features of a token (state and context), l the scores and h the hidden values of the
language model after the same tokens, σ the logistic function:

    cold   t = W_t (l - max l) + b_t          Sriram et al., 2018, arXiv:1708.06426, equations 4a to 4e;
           g = σ(W_g [s; t] + b_g)            learned with the decoder from the first step
           logits = W relu(W_m [s; g * t] + b_m) + b
    deep   g = σ(v · h + c), one number       Gulcehre et al., 2015, arXiv:1503.03535, section 4.2;
           logits = W s + b + U (g * h)       learned on a decoder that is trained

Scores of a language model are only known up to a constant: hence less their maximum. Cold fusion never sees
hidden values, so its language model can be replaced by another one over the same pieces. The papers leave the
number of layers open; ours has one wherever they say DNN. In deep fusion c begins at -1 as in the paper and U
small, so that at first hardly anything but the trained decoder is heard.

The language model is part of the module and of the saved model. It gets no gradient and no dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.errors import ConfigError
from firstwords.heads.numeric import at_least_float32
from firstwords.lm.neural.config import NetworkConfig
from firstwords.lm.neural.folder import build_network
from firstwords.lm.neural.model import NeuralLm
from firstwords.nn.linear import Linear

_SMALL = 0.05  # not zero: the steps of ScaledAdam are in proportion to a tensor's size
_GATE = -1.0  # bias of deep fusion's gate at the start


class FusionConfig(Config):
    """Which language model, and how it is heard. ``network`` and ``units`` are read from its folder."""

    kind: Literal["cold", "deep"] = "cold"
    folder: str = ""  # of the language model, when training begins; later the model has its weights
    width: PositiveInt = 256  # cold: of what is made of its scores, and of the layer before the output
    network: NetworkConfig | None = None
    units: PositiveInt | None = None  # of the network, start and end counted once


class Said(NamedTuple):
    """What the language model makes of the tokens before: hidden values, and scores by token id."""

    hidden: Float[Tensor, "*rows lm_dim"]
    scores: Float[Tensor, "*rows vocabulary"]


@final
class FrozenLanguageModel(nn.Module):
    """A language model that reads a decoder's units (objective.py).

    ``columns`` are the network's ids of the tokens: their own, unless it is a model of letters.
    """

    columns: Tensor
    network: NeuralLm[Any]

    def __init__(self, config: FusionConfig, vocabulary: int) -> None:
        super().__init__()
        if config.network is None or config.units is None:
            raise ConfigError(
                "recipe.heads.attention.fusion: the sizes of the language model are not known.",
                mend="Name its folder (fusion.folder): they are read from it when a training begins.",
            )
        self.vocabulary = vocabulary
        self.network = build_network(config.network, config.units)
        self.register_buffer("columns", torch.arange(vocabulary) % config.units)
        self.network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenLanguageModel:
        """Stays as it is in use: dropout of a model that learns nothing would only be noise."""
        return super().train(False)

    @property
    def dim(self) -> int:
        return self.network.dim

    @torch.no_grad()
    def read(self, units: Int[Tensor, "batch tokens"]) -> Said:
        """Whole sentences, the start first."""
        hidden = self.network(self._ids(units))
        return Said(hidden, self.network.logits(hidden)[..., self.columns])

    def start(self, rows: int) -> Any:
        """The state before the start."""
        return self.network.start(rows)

    @torch.no_grad()
    def step(self, units: Int[Tensor, " rows"], state: Any) -> tuple[Said, Any]:
        """One unit of each row."""
        hidden, logits, after = self.network.hidden(self._ids(units), state)
        return Said(hidden, logits[..., self.columns]), after

    def reorder(self, state: Any, kept: Int[Tensor, " kept"]) -> Any:
        """The state of the rows ``kept``."""
        return self.network.reorder(state, kept)

    def join(self, states: Sequence[Any]) -> Any:
        """The rows of all these states."""
        return self.network.join(states)

    def _ids(self, units: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
        return self.columns[(units + 1) % self.vocabulary]  # the last unit is the end, and the start


@final
class ColdFusion(nn.Module):
    """A gate for every feature of the language model, given what the decoder knows.

    ``features``: columns that the decoder's output layer reads.
    """

    def __init__(self, config: FusionConfig, features: int, vocabulary: int) -> None:
        super().__init__()
        self.features = config.width
        self.language_model = FrozenLanguageModel(config, vocabulary)
        self.text = Linear(vocabulary, config.width)
        self.gate = Linear(features + config.width, config.width)
        self.mix = Linear(features + config.width, config.width)

    def forward(
        self, features: Float[Tensor, "*rows features"], said: Said, output: nn.Linear
    ) -> Float[Tensor, "*rows units"]:
        """The decoder's features, what the language model says, the output layer -> logits."""
        scores = at_least_float32(said.scores)
        text = self.text(scores - scores.amax(dim=-1, keepdim=True))
        gate = self.gate(torch.cat([features, text.to(features.dtype)], dim=-1)).sigmoid()
        return output(self.mix(torch.cat([features, gate * text], dim=-1)).relu())


@final
class DeepFusion(nn.Module):
    """One gate for the language model as a whole, beside the output layer of a trained decoder."""

    def __init__(self, config: FusionConfig, features: int, vocabulary: int) -> None:
        super().__init__()
        self.features = features
        self.language_model = FrozenLanguageModel(config, vocabulary)
        self.gate = Linear(self.language_model.dim, 1)
        self.beside = Linear(self.language_model.dim, vocabulary, bias=False)
        with torch.no_grad():
            self.gate.bias.fill_(_GATE)
            self.beside.weight.mul_(_SMALL)

    def forward(
        self, features: Float[Tensor, "*rows features"], said: Said, output: nn.Linear
    ) -> Float[Tensor, "*rows units"]:
        """The decoder's features, what the language model says, the output layer -> logits."""
        gate = self.gate(said.hidden).sigmoid()
        return output(features) + self.beside(gate * said.hidden)


Fusion = ColdFusion | DeepFusion


def build_fusion(config: FusionConfig | None, features: int, vocabulary: int) -> Fusion | None:
    """Settings, columns of a decoder's features, pieces (blank included) -> what fuses; None without."""
    if config is None:
        return None
    return (ColdFusion if config.kind == "cold" else DeepFusion)(config, features, vocabulary)
