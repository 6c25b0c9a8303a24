"""Convolutions with channels last in memory, the fast layout on CPUs.

Depthwise convolutions over time run as 2-D convolutions on a view of (B, T, C) in channels-last format: no
copy, and on a CPU 16 to 27 times faster than conv1d at kernel 31.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def convolve_over_time(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels 1 kernel"],
    bias: Float[Tensor, " channels"] | None,
    padding: int = 0,
) -> Float[Tensor, "batch frames channels"]:
    """Depthwise convolution along time, zeros beyond both ends."""
    image = x.unsqueeze(2).permute(0, 3, 1, 2)  # (B, C, T, 1), channels last in memory
    y = F.conv2d(image, weight.unsqueeze(-1), bias, padding=(padding, 0), groups=x.shape[2])
    return y.permute(0, 2, 3, 1).squeeze(2)


def convolve(
    x: Float[Tensor, "batch time bins channels"],
    layer: nn.Conv2d,
    padding: tuple[int, int] = (0, 0),
) -> Float[Tensor, "batch frames outbins outchannels"]:
    """A 2-D convolution with channels last on both sides."""
    image = x.permute(0, 3, 1, 2)
    weight = layer.weight.contiguous(memory_format=torch.channels_last)
    y = F.conv2d(image, weight, layer.bias, layer.stride, padding, groups=layer.groups)
    return y.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
