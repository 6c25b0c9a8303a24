"""Convolutions over raw samples in place of a spectrum: frames that are learned with the rest of the model.

    samples   | k1 / s1 | norm, GELU | k2 / s2 | norm, GELU | ...  -> a frame for every s1 s2 ... samples

The encoder network of wav2vec (Schneider et al., 2019, arXiv:1904.05862, section 2.1: kernels 10, 8, 4, 4, 4,
strides 5, 4, 2, 2, 2, so that a frame hears 30 ms and comes every 10 ms), with the GELU of wav2vec 2.0
(arXiv:2006.11477). Channels are few here; published ones have 512 and much more speech to learn them from.
``norm = "layer"`` is wav2vec 2.0's, over the channels of each frame; "batch" has the statistics of the
training, which leaves an encoder to see what tells frames apart (LOG.md, 2026-11-21 and 2026-11-23).
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.features.fbank import full_precision
from firstwords.features.frontend import Frontend
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.tensors import Padded, real_frames, zero_padding


class WaveformConfig(Config):
    """Settings of the layers, one entry each; the last number of channels is that of a frame's values."""

    kind: Literal["waveform"] = "waveform"
    sample_rate: int = Field(default=16000, ge=1000, le=192000)
    channels: tuple[PositiveInt, ...] = (48, 64, 80, 80, 80)
    kernels: tuple[PositiveInt, ...] = (10, 8, 4, 4, 4)
    strides: tuple[PositiveInt, ...] = (5, 4, 2, 2, 2)
    norm: Literal["batch", "layer"] = "batch"

    @property
    def dim(self) -> int:
        """Values per frame."""
        return self.channels[-1]

    @property
    def shift_samples(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(self.strides)

    @property
    def window_samples(self) -> int:
        """Samples that a frame hears."""
        width, shift = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            width, shift = width + (kernel - 1) * shift, shift * stride
        return width

    @model_validator(mode="after")
    def layers_fit(self) -> WaveformConfig:
        counts = {name: len(getattr(self, name)) for name in ("channels", "kernels", "strides")}
        if len(set(counts.values())) > 1 or not self.channels:
            shown = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"{shown}: each layer needs one of each.")
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            if stride > kernel:
                raise ValueError(f"a stride of {stride} passes over samples with a kernel of {kernel}.")
        return self


@final
class Waveform(Frontend):
    """Waveforms -> learned frames. The ends of a recording are continued by zeros, for a frame per shift."""

    def __init__(self, config: WaveformConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim
        self.shift, self.width = config.shift_samples, config.window_samples
        self.frame_shift = self.shift / config.sample_rate
        self.before = (self.width - self.shift) // 2
        self.after = self.width - self.shift - self.before
        widths = (1, *config.channels)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(given, made, kernel, stride)
            for given, made, kernel, stride in zip(
                widths, config.channels, config.kernels, config.strides, strict=False
            )
        )
        norm = MaskedBatchNorm if config.norm == "batch" else nn.LayerNorm
        self.norms = nn.ModuleList(norm(made) for made in config.channels)

    def num_frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Samples -> frames of each utterance."""
        return lengths.div(self.shift, rounding_mode="floor")

    def forward(self, audio: Padded) -> Padded:
        """(B, S) samples in [-1, 1) -> (B, T, dim) frames in float32, zero beyond each length."""
        counts = self.num_frames(audio.lengths)
        rows, samples = audio.values.shape
        if samples < self.shift:  # not one frame
            return Padded(audio.values.new_zeros(rows, 0, self.dim, dtype=torch.float32), counts)
        heard = F.pad(zero_padding(audio).values, (self.before, self.after))
        places = Padded(heard.float()[:, :, None], audio.lengths + self.before + self.after)
        with full_precision(heard):  # samples rounded to bfloat16 would be heard as noise at -54 dB
            places = self._layer(0, places)
        for layer in range(1, len(self.convolutions)):
            places = self._layer(layer, places)
        return zero_padding(Padded(places.values.float(), counts))

    def _layer(self, layer: int, x: Padded) -> Padded:
        """(B, places, given) -> (B, fewer, made)."""
        values = self.convolutions[layer](x.values.transpose(1, 2)).transpose(1, 2)
        kernel, stride = self.config.kernels[layer], self.config.strides[layer]
        counts = (x.lengths - kernel).div(stride, rounding_mode="floor") + 1
        if self.config.norm == "batch":
            values = self.norms[layer](values, real_frames(counts, values.shape[1]))
        else:
            values = self.norms[layer](values)
        return Padded(F.gelu(values), counts)
