"""Settings of the networks; sizes by name.

Parameters without the embedding, which has one row per unit: tiny 0.4 M (LSTM) and 0.8 M (Transformer), small
2.4 M and 4.7 M.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, PositiveInt, model_validator

from firstwords.config import Config
from firstwords.errors import ConfigError

Share: TypeAlias = Annotated[float, Field(ge=0.0, lt=1.0)]
Width: TypeAlias = Annotated[int, Field(ge=1, le=16384)]
Layers: TypeAlias = Annotated[int, Field(ge=1, le=128)]

_LSTM: dict[str, dict[str, Any]] = {"tiny": {}, "small": {"dim": 384, "dropout": 0.3}}
_TRANSFORMER: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"dim": 256, "layers": 6, "feedforward": 1024, "dropout": 0.2},
}


class LstmLmConfig(Config):
    """Settings of an LSTM; the defaults are the size tiny."""

    kind: Literal["lstm"] = "lstm"
    dim: Width = 160  # of embeddings, which are the output layer too, and of every layer
    layers: Layers = 2
    dropout: Share = 0.2  # on embeddings, between layers and on what is returned; one mask a sentence

    @classmethod
    def preset(cls, name: str) -> LstmLmConfig:
        """The settings called tiny or small."""
        return cls.model_validate(_preset(name, _LSTM))


class TransformerLmConfig(Config):
    """Settings of a decoder-only Transformer; the defaults are the size tiny."""

    kind: Literal["transformer"] = "transformer"
    dim: Width = 128
    layers: Layers = 4
    heads: PositiveInt = 4
    feedforward: Width = 512
    activation: Literal["relu", "swish"] = "relu"
    dropout: Share = 0.1

    @classmethod
    def preset(cls, name: str) -> TransformerLmConfig:
        """The settings called tiny or small."""
        return cls.model_validate(_preset(name, _TRANSFORMER))

    @model_validator(mode="after")
    def dim_splits(self) -> TransformerLmConfig:
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim = {self.dim} must be even and a multiple of heads = {self.heads}")
        return self


NetworkConfig: TypeAlias = Annotated[LstmLmConfig | TransformerLmConfig, Field(discriminator="kind")]
KINDS: dict[str, type[LstmLmConfig | TransformerLmConfig]] = {
    "lstm": LstmLmConfig,
    "transformer": TransformerLmConfig,
}


def _preset(name: str, presets: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if name not in presets:
        raise ConfigError(f"No language model size is called '{name}'.", mend=f"Sizes: {', '.join(presets)}.")
    return presets[name]
