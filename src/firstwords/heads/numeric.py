"""Number formats of losses."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision -> float32; float32 and float64 stay: a loss adds up thousands of log terms."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
