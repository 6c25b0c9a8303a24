"""A feed-forward network on spliced frames, the acoustic model of Hinton et al., 2012 (IEEE Signal Processing
Magazine 29(6)), here under a CTC loss.

Each output frame reads ``context`` feature frames to either side and nothing else.

Differs from the paper: no pre-training; batch normalization, whose statistics leave padding out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, final

from jaxtyping import Int
from pydantic import Field
from torch import Tensor, nn

from firstwords.encoders.encoder import Encoder, EncoderConfig
from firstwords.encoders.presets import preset_of
from firstwords.nn.frames import enter, mask_of, splice, strided
from firstwords.nn.linear import Linear
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.tensors import Padded

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "nano": {"context": 12, "hidden": 176, "layers": 5},
}


class DnnConfig(EncoderConfig):
    """The defaults have about 2 M parameters at 80 mels."""

    kind: Literal["dnn"] = "dnn"
    context: int = Field(default=16, ge=0)  # feature frames to either side
    subsampling: int = Field(default=4, ge=1)  # feature frames per output frame
    hidden: int = Field(default=448, ge=1)  # width of every layer
    layers: int = Field(default=5, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @classmethod
    def preset(cls, name: str) -> DnnConfig:
        """The settings called tiny (2 M parameters) or nano (0.5 M)."""
        return cls.model_validate(preset_of(name, _PRESETS, "DNN"))


@final
class Dnn(Encoder):
    """(B, T, input_dim) -> (B, ceil(T / subsampling), hidden)."""

    def __init__(self, config: DnnConfig, input_dim: int = 80) -> None:
        super().__init__()
        self.config = config
        self.dim, self.subsampling = config.hidden, config.subsampling
        self.input_norm = MaskedBatchNorm(input_dim)
        widths = [(2 * config.context + 1) * input_dim] + [config.hidden] * config.layers
        self.layers = nn.ModuleList(
            Linear(widths[i], widths[i + 1], bias=False) for i in range(config.layers)
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(config.hidden) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return strided(lengths, self.subsampling)

    def folds(self) -> Iterable[tuple[str, str]]:
        """See nn/folding.py."""
        return [(f"norms.{n}", f"layers.{n}") for n in range(len(self.layers))]

    def forward(self, frames: Padded) -> Padded:
        values, lengths = enter(frames)
        values = self.input_norm(values, mask_of(lengths, values.shape[1]))
        x = splice(values, self.config.context, self.config.context, self.subsampling)
        lengths = strided(lengths, self.subsampling)
        real = mask_of(lengths, x.shape[1])
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.dropout(norm(layer(x), real).relu())
        return Padded(x, lengths)
