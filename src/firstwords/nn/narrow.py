"""A linear layer that keeps its weights as autocast would multiply them, in the order that oneDNN wants."""

from __future__ import annotations

from functools import cache
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from firstwords.nn.linear import onednn_linear


@final
class NarrowLinear(nn.Module):
    """What ``nn.Linear`` gives under autocast; inference alone.

    Autocast rounds the weights anew in every batch, and on a processor oneDNN lays them out anew for every
    product. Here both are done once: 390 -> 435 GFLOP/s for products of Zipformer S (LOG.md, 2026-11-23).
    Packed weights may be summed in another order, in float32: some results round to the next number.

    Args:
        linear: the layer whose place it takes.
        dtype: bfloat16 or float16.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias = cast("Tensor | None", linear.bias)
        self.register_buffer("narrow", linear.weight.detach().to(dtype))
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype))
        self._packed: Tensor | None = None  # the same in oneDNN's order; made when first needed

    @property
    def weight(self) -> Float32[Tensor, "out in"]:
        """The weights it multiplies with, as ordinary numbers."""
        return cast("Tensor", self.narrow).float()

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        narrow, bias = cast("Tensor", self.narrow), cast("Tensor | None", self.bias)
        x = x.to(narrow.dtype)
        if x.device.type != "cpu" or narrow.dtype is not torch.bfloat16 or not _can_pack():
            return F.linear(x, narrow, bias)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(narrow)
        return cast("Tensor", onednn_linear()(x, self._packed, bias, "none", [], ""))

    def __getstate__(self) -> dict[str, Any]:  # what is packed cannot be copied
        return self.__dict__ | {"_packed": None}

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {cast('Tensor', self.narrow).dtype}"


@cache
def _can_pack() -> bool:
    """True where torch, as built here, multiplies packed bfloat16 matrices, and as it does plain ones."""
    try:
        x, weight = torch.ones(8, 32).bfloat16(), torch.ones(16, 32).bfloat16()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        return torch.equal(onednn_linear()(x, packed, None, "none", [], ""), F.linear(x, weight))
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
