"""The listener of LAS, a pyramid of bidirectional LSTMs: Chan et al., 2015, arXiv:1508.01211, section 3.1.

Each layer of the pyramid reads two neighbouring frames as one and so halves the rate:

    frames   x0 x1 | x2 x3 | x4 0      an odd end is filled up with a zero frame
    layer      h0      h1      h2

Notable features. The backward LSTM starts at each utterance's own last frame, as with packed sequences
(nn/recurrent.py). Features are normalized per utterance; LayerNorm and dropout follow each layer.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Int
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from firstwords.encoders.encoder import Encoder, EncoderConfig
from firstwords.features.normalize import NormalizeUtterance
from firstwords.nn.frames import enter, strided
from firstwords.nn.recurrent import BidirectionalLstm
from firstwords.tensors import Padded, is_captured, zero_padding


class ListenerConfig(EncoderConfig):
    """Settings of a listener; the defaults are a small one. The paper's: bottom 1, layers 3, width 256."""

    kind: Literal["listener"] = "listener"
    width: PositiveInt = 128  # of one direction; frames are twice as wide
    bottom: NonNegativeInt = 0  # layers at the full frame rate, below the pyramid
    layers: PositiveInt = 2  # of the pyramid; frames become 2 ** layers times fewer
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1  # after each layer


@final
class Listener(Encoder):
    """Feature frames -> 2 ** layers times fewer frames, each twice ``width`` wide."""

    def __init__(self, config: ListenerConfig, input_dim: int) -> None:
        super().__init__()
        self.dim = 2 * config.width
        self.subsampling = 2**config.layers
        self.normalize = NormalizeUtterance()
        self.bottom, self.pyramid = config.bottom, config.layers
        widths = [input_dim] + [self.dim] * (self.bottom + self.pyramid - 1)
        self.layers = nn.ModuleList(
            BidirectionalLstm(width if n < self.bottom else 2 * width, config.width)
            for n, width in enumerate(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(self.dim) for _ in self.layers)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, frames: Padded) -> Padded:
        """(B, T, features) -> (B, T rounded up / 2 ** layers, dim)."""
        x = enter(self.normalize(frames))
        for n, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = x if n < self.bottom else in_pairs(x)
            x = zero_padding(Padded(self.dropout(norm(layer(*x))), x.lengths))
        return x

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Halved as often as there are layers, rounded up each time."""
        for _ in range(self.pyramid):
            lengths = strided(lengths, 2)
        return lengths


def in_pairs(frames: Padded) -> Padded:
    """(B, T, D) with zeros beyond each length -> (B, half of T rounded up, 2 D)."""
    values = frames.values
    half = (values.shape[1] + 1) // 2
    if is_captured() or values.shape[1] % 2:
        values = torch.nn.functional.pad(values, (0, 0, 0, 2 * half - values.shape[1]))
    pairs = values.reshape(values.shape[0], half, 2 * int(values.shape[2]))
    return Padded(pairs, strided(frames.lengths, 2))
