"""A linear layer that multiplies in 8-bit integers, on the processor.

    weights      q = round(w / s), s = max|w| / 127 of each output channel (symmetric, G.3 of the design)
    activations  dynamic: the same of each row, so that a frame's result depends on no other frame
                 static: one scale for the layer, measured before; what lies beyond it is clipped
    y            (q_x · q_w) s_x s_w + bias, the product exact in 32-bit integers

The product is ``torch._int_mm``, which oneDNN computes with the instructions of the processor (VNNI where
there is one). Before the first layer is made, one product of the largest numbers is compared with the right
one: processors without such instructions can saturate in silence, and are refused.

Differs from ``torch.ao.quantization.quantize_dynamic``: rows have scales of their own (theirs: one for the
whole batch, and 7 bits where the processor might saturate), and padding or neighbours change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast, final

import torch
from jaxtyping import Float, Float32, Int8
from torch import Tensor, nn

LARGEST = 127  # of a symmetric 8-bit number: -127 ... 127
_multiply = cast("Callable[[Tensor, Tensor], Tensor]", torch._int_mm)  # pyright: ignore[reportPrivateImportUsage]
_TINY = torch.finfo(torch.float32).tiny


def channel_scales(weight: Float[Tensor, "out ..."]) -> Float32[Tensor, " out"]:
    """The largest absolute weight of each output channel over 127; 1 where all weights are 0."""
    peak = weight.detach().float().flatten(1).abs().amax(dim=1)
    # what divides by a number below the smallest normal one may be infinite
    scale = torch.where(peak > 0, peak / LARGEST, torch.ones_like(peak))
    return scale.clamp(min=_TINY)


def to_int8(
    values: Float[Tensor, "rows columns"], scales: Float[Tensor, "*one"]
) -> Int8[Tensor, "rows columns"]:
    """round(values / scales), clipped to -127 ... 127."""
    return (values / scales).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)


@cache
def multiplies_exactly() -> bool:
    """True where the processor's product of 8-bit numbers is right even for the largest of them."""
    depth = 512
    left = torch.full((3, depth), LARGEST, dtype=torch.int8)
    left[1] = -LARGEST
    left[2, ::2] = -LARGEST
    right = torch.full((32, depth), LARGEST, dtype=torch.int8)
    right[1::2] = -LARGEST
    found = _multiply(left, right.t())
    return bool((found == (left.int() @ right.int().t())).all())


@final
class Int8Linear(nn.Module):
    """``nn.Linear`` with 8-bit weights and activations; inference alone.

    Args:
        linear: the layer whose place it takes.
        input_scale: static: the largest expected absolute input over 127; None: dynamic.
    """

    def __init__(self, linear: nn.Linear, input_scale: float | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scales = channel_scales(weight)
        self.input_scale = input_scale
        # among the buffers too, so that a fingerprint of the model knows how it computes
        self.register_buffer("clip", torch.tensor(LARGEST * input_scale if input_scale else float("inf")))
        self.register_buffer("weights", to_int8(weight, scales.unsqueeze(1)))
        self.register_buffer("scales", scales)
        bias = cast("Tensor | None", linear.bias)
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    @property
    def weight(self) -> Float32[Tensor, "out in"]:
        """The weights it multiplies with, as ordinary numbers."""
        return cast("Tensor", self.weights).float() * cast("Tensor", self.scales).unsqueeze(1)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        shape = (*x.shape[:-1], self.out_features)
        if not x.numel():
            return x.new_zeros(shape)
        rows = x.reshape(-1, self.in_features).float()
        scales = cast("Tensor", self.scales)
        if self.input_scale is not None:
            quantized = to_int8(rows, rows.new_tensor(self.input_scale))
            scales = scales * self.input_scale
            factor = scales
        else:
            # the infinity norm and aminmax over rows take twenty times as long (torch 2.13)
            own = rows.abs().amax(dim=1, keepdim=True).div_(LARGEST).clamp_(min=_TINY)
            quantized = (rows / own).round_().to(torch.int8)  # 127 at most: no need to clip
            factor = own * scales
        product = _multiply(quantized, cast("Tensor", self.weights).t())
        y = product.to(torch.float32).mul_(factor)
        if (bias := cast("Tensor | None", self.bias)) is not None:
            y.add_(bias)
        return y.to(x.dtype).view(shape)

    def extra_repr(self) -> str:
        how = "dynamic" if self.input_scale is None else f"input_scale={self.input_scale:.4g}"
        return f"{self.in_features}, {self.out_features}, {how}"
