"""Depthwise convolution over time, with stride and dilation, on (B, T, C).

It runs as a 2-D convolution on a view with channels last: no copy, and on a CPU far faster than conv1d.
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@final
class DepthwiseConv(nn.Module):
    """Output frame t reads a kernel around input frame t * stride, each channel for itself; no bias.

    Beyond both ends of the tensor there are zeros; padding inside it must be zeroed before.

    Args:
        kernel: taps; odd.
        dilation: frames from one tap to the next.
    """

    def __init__(self, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.stride, self.dilation, self.padding = stride, dilation, kernel // 2 * dilation
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch's Conv1d

    def forward(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch frames channels"]:
        y = F.conv2d(
            x.unsqueeze(2).permute(0, 3, 1, 2),  # (B, C, T, 1), channels last in memory
            self.weight.unsqueeze(-1),
            stride=(self.stride, 1),
            padding=(self.padding, 0),
            dilation=(self.dilation, 1),
            groups=x.shape[2],
        )
        return y.permute(0, 2, 3, 1).squeeze(2)
