"""What a front end promises: samples in, frames out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Int
from torch import Tensor, nn

from firstwords.tensors import Padded


class Frontend(nn.Module, ABC):
    """Waveforms in [-1, 1) -> feature frames; the same for CPU, GPU, streaming and export."""

    dim: int  # features per frame
    frame_shift: float  # seconds

    @abstractmethod
    def num_frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Samples -> frames of each utterance, without computing any."""

    @abstractmethod
    def forward(self, audio: Padded) -> Padded:
        """(B, S) samples -> (B, T, dim) frames, zero beyond each length."""
