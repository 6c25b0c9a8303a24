"""Mel-frequency cepstra, numerically Kaldi's (`compute-mfcc-feats` without energy), with optional slopes.

Reference: Kaldi feature-mfcc.cc; Davis and Mermelstein, 1980. The values are held to kaldi-native-fbank.
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from firstwords.config import Config
from firstwords.features.deltas import add_deltas
from firstwords.features.fbank import Fbank, FbankConfig, full_precision
from firstwords.features.frontend import Frontend
from firstwords.tensors import Padded, zero_padding


class MfccConfig(Config):
    """Settings of the cepstra; the defaults are Kaldi's, without energy and dither."""

    kind: Literal["mfcc"] = "mfcc"
    cepstra: int = Field(default=13, ge=1)
    lifter: float = Field(default=22.0, ge=0)  # weights 1 + lifter / 2 sin(pi i / lifter); 0 = none
    deltas: int = Field(default=0, ge=0, le=2)  # 1: with slopes, 2: and the slopes of the slopes
    sample_rate: int = Field(default=16000, ge=1000, le=192000)
    mels: int = Field(default=23, ge=3)
    window_ms: float = Field(default=25.0, gt=0, allow_inf_nan=False)
    shift_ms: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    low: float = Field(default=20.0, ge=0)  # Hz
    high: float = 0.0  # Hz; zero or negative counts down from Nyquist
    dither: float = Field(default=0.0, ge=0)
    snip_edges: bool = False
    preemphasis: float = Field(default=0.97, ge=0, le=1)
    window: Literal["povey", "hann"] = "povey"
    scale: float = Field(default=1.0, gt=0)  # 32768 for models trained on int16 values
    transform: Literal["fft", "matmul"] = "fft"

    @property
    def dim(self) -> int:
        """Values per frame."""
        return self.cepstra * (1 + self.deltas)

    @property
    def fbank(self) -> FbankConfig:
        """The filterbank underneath."""
        own = {"kind", "cepstra", "lifter", "deltas"}
        return FbankConfig.model_validate(self.model_dump(exclude=own))

    @model_validator(mode="after")
    def parts_fit(self) -> MfccConfig:
        if self.cepstra > self.mels:
            raise ValueError(f"cepstra = {self.cepstra} is more than mels = {self.mels}.")
        _ = self.fbank  # names what does not fit
        return self


@final
class Mfcc(Frontend):
    """Waveforms -> cepstra: a cosine transform of the log-mel frames, liftered, with slopes appended."""

    transform: Tensor

    def __init__(self, config: MfccConfig) -> None:
        super().__init__()
        self.config = config
        self.fbank = Fbank(config.fbank)
        self.dim = config.dim
        self.frame_shift = self.fbank.frame_shift
        transform = cosine_transform(config.mels, config.cepstra) * lifter(config.cepstra, config.lifter)
        self.register_buffer("transform", transform.float(), persistent=False)

    def num_frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Samples -> frames of each utterance."""
        return self.fbank.num_frames(lengths)

    def forward(self, audio: Padded) -> Padded:
        """(B, S) samples in [-1, 1) -> (B, T, dim) frames, zero beyond each length."""
        frames = self.fbank(audio)
        with full_precision(frames.values):
            cepstra = Padded(frames.values @ self.transform, frames.lengths)
            return add_deltas(cepstra, self.config.deltas) if self.config.deltas else zero_padding(cepstra)


def cosine_transform(mels: int, cepstra: int) -> Float[Tensor, "mels cepstra"]:
    """Orthonormal DCT-II: column i is cos(pi i (m + 1/2) / mels), scaled to length one."""
    places = torch.arange(mels, dtype=torch.float64) + 0.5
    order = torch.arange(cepstra, dtype=torch.float64)
    matrix = torch.cos(math.pi / mels * places[:, None] * order) * math.sqrt(2 / mels)
    matrix[:, 0] = math.sqrt(1 / mels)
    return matrix


def lifter(cepstra: int, length: float) -> Float[Tensor, " cepstra"]:
    """Weights that bring the higher cepstra to the size of the lower ones (HTK's formula)."""
    order = torch.arange(cepstra, dtype=torch.float64)
    if length == 0:
        return torch.ones_like(order)
    return 1 + 0.5 * length * torch.sin(math.pi * order / length)
