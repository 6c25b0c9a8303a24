"""LSTM layers on stacked frames, in both directions or only forward (Graves et al., 2013, arXiv:1303.5778).

Frames are stacked and the rate lowered before the first layer (Sak et al., 2015, arXiv:1507.06947, section
2.3). The forward network streams: its state is all that it remembers, so that every chunk size gives the same
output.

Differs from the papers: features are normalized by statistics of the training, layer normalization and
dropout follow every layer, no peepholes.

    stack 6, subsampling 4     0 1 2 3 4 5
                                       4 5 6 7 8 9
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from firstwords.encoders.encoder import EncoderConfig, StreamingEncoder
from firstwords.encoders.presets import preset_of
from firstwords.errors import ConfigError
from firstwords.nn.frames import enter, mask_of, splice, strided
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.nn.recurrent import BidirectionalLstm
from firstwords.tensors import Padded, zero_padding

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "nano": {"hidden": 80, "layers": 2},
}


class LstmConfig(EncoderConfig):
    """The defaults have about 2 M parameters at 80 mels."""

    kind: Literal["lstm"] = "lstm"
    bidirectional: bool = True  # false: can stream
    hidden: int = Field(default=168, ge=1)  # per direction
    layers: int = Field(default=3, ge=1)
    stack: int = Field(default=6, ge=1)  # feature frames side by side; beyond subsampling: look-ahead
    subsampling: int = Field(default=4, ge=1)  # feature frames per output frame
    dropout: float = Field(default=0.1, ge=0, lt=1)  # after every layer

    @classmethod
    def preset(cls, name: str) -> LstmConfig:
        """The settings called tiny (2 M parameters) or nano (0.5 M)."""
        return cls.model_validate(preset_of(name, _PRESETS, "LSTM"))

    @model_validator(mode="after")
    def no_frame_is_skipped(self) -> LstmConfig:
        if self.stack < self.subsampling:
            raise ValueError(f"stack = {self.stack} is below subsampling = {self.subsampling}.")
        return self


class LstmState(NamedTuple):
    """What each layer remembers, as wide as the widest layer."""

    hidden: Float[Tensor, "layers batch hidden"]
    cell: Float[Tensor, "layers batch hidden"]


@final
class Lstm(StreamingEncoder[LstmState]):
    """(B, T, input_dim) -> (B, ceil(T / subsampling), hidden per direction)."""

    def __init__(self, config: LstmConfig, input_dim: int = 80) -> None:
        super().__init__()
        self.config = config
        self.dim = config.hidden * (2 if config.bidirectional else 1)
        self.subsampling = config.subsampling
        self.input_norm = MaskedBatchNorm(input_dim)
        widths = [config.stack * input_dim] + [self.dim] * (config.layers - 1)
        self.layers = nn.ModuleList(
            BidirectionalLstm(width, config.hidden)
            if config.bidirectional
            else nn.LSTM(width, config.hidden, batch_first=True)
            for width in widths
        )
        self.norms = nn.ModuleList(nn.LayerNorm(self.dim) for _ in widths)
        self.dropout = nn.Dropout(config.dropout)

    @property
    def causal(self) -> bool:
        return not self.config.bidirectional

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return strided(lengths, self.subsampling)

    def forward(self, frames: Padded, *, chunk: int | None = None, left: int | None = None) -> Padded:
        """``chunk`` and ``left`` change nothing: all is remembered, only stacking looks ahead."""
        if not self.causal and (chunk not in (None, -1) or left not in (None, -1)):
            raise ConfigError(
                "A bidirectional LSTM has no chunks.", mend="Train with encoder.bidirectional = false."
            )
        values, lengths = enter(frames)
        values = self.input_norm(values, mask_of(lengths, values.shape[1]))
        x = splice(values, 0, self.config.stack - 1, self.subsampling)
        lengths = strided(lengths, self.subsampling)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            y = layer(x, lengths) if isinstance(layer, BidirectionalLstm) else layer(x)[0]
            x = self.dropout(norm(y))
        return zero_padding(Padded(x, lengths))

    @property
    def _widths(self) -> list[int]:
        """Hidden units of each layer of a network that streams."""
        return [cast("nn.LSTM", layer).hidden_size for layer in self.layers]

    def hop(self, chunk: int) -> int:
        """Feature frames from one window to the next."""
        return chunk * self.subsampling

    def window(self, chunk: int) -> int:
        """Feature frames that a step reads: the last ones are look-ahead."""
        return (chunk - 1) * self.subsampling + self.config.stack

    def nearest_context(self, chunk: int, left: int | None) -> tuple[int, int]:
        """Any chunk serves, and the left context is always all of it."""
        return max(1, chunk), max(0, left or 0)

    def start(self, rows: int, *, chunk: int, left: int) -> LstmState:
        """The state before the first frame; ``chunk`` is in output frames, ``left`` has no meaning here."""
        if not self.causal:
            raise ConfigError(
                "A bidirectional LSTM cannot stream.", mend="Train with encoder.bidirectional = false."
            )
        if chunk < 1:
            raise ConfigError(f"chunk = {chunk} must be at least 1.", mend="Every chunk from 1 on serves.")
        like = cast("Tensor", cast("nn.LSTM", self.layers[0]).weight_hh_l0)
        zeros = like.new_zeros(self.config.layers, rows, max(self._widths))
        return LstmState(zeros, zeros.clone())

    def step(self, frames: Padded, state: LstmState) -> tuple[Padded, LstmState]:
        """A window of feature frames and the state -> its chunk of output frames and the next state.

        The next window starts chunk * subsampling frames later. Smaller ``lengths`` end the stream.
        """
        values, lengths = frames
        values = self.input_norm(values, mask_of(lengths, values.shape[1]))  # zeroes what follows the end
        chunk = (values.shape[1] - self.config.stack) // self.subsampling + 1
        x = splice(values, 0, self.config.stack - 1, self.subsampling)[:, :chunk]
        lengths = strided(lengths, self.subsampling).clamp(max=chunk)
        hidden: list[Tensor] = []
        cell: list[Tensor] = []
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            width, most = self._widths[number], state.hidden.shape[2]
            before = (
                state.hidden[number : number + 1, :, :width],
                state.cell[number : number + 1, :, :width],
            )
            if width < most:  # a layer of fewer units than another one
                before = (before[0].contiguous(), before[1].contiguous())
            x, after = layer(x, before)
            x = norm(x)
            hidden.append(F.pad(after[0], (0, most - width)))
            cell.append(F.pad(after[1], (0, most - width)))
        return zero_padding(Padded(x, lengths)), LstmState(torch.cat(hidden), torch.cat(cell))
