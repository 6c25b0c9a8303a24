"""Depthwise convolution over time as a layer, with stride and dilation, on (B, T, C)."""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.nn.convolution import convolve_over_time


@final
class DepthwiseConv(nn.Module):
    """Output frame t reads a kernel around input frame t * stride, each channel for itself; no bias
    unless a norm was folded into it (folding.py).

    Beyond both ends of the tensor there are zeros; padding inside it must be zeroed before.

    Args:
        kernel: taps; odd.
        dilation: frames from one tap to the next.
    """

    bias: nn.Parameter | None

    def __init__(self, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.stride, self.dilation, self.padding = stride, dilation, kernel // 2 * dilation
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel))
        self.register_parameter("bias", None)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as torch's Conv1d

    def forward(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch frames channels"]:
        return convolve_over_time(x, self.weight, self.bias, self.padding, self.stride, self.dilation)
