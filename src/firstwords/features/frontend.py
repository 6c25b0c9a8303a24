"""What a front end promises: samples in, frames out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from firstwords.tensors import Padded


class Frontend(nn.Module, ABC):
    """Waveforms in [-1, 1) -> feature frames; the same for CPU, GPU, streaming and export."""

    dim: int  # features per frame
    frame_shift: float  # seconds

    @abstractmethod
    def forward(self, audio: Padded) -> Padded:
        """(B, S) samples -> (B, T, dim) frames, zero beyond each length."""
