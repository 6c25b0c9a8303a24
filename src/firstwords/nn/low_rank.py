"""A linear layer of low rank: two thin matrices in place of one."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from firstwords.nn.linear import Linear


def worth(inputs: int, outputs: int) -> int:
    """The largest rank whose two matrices have fewer numbers than one: r < m * n / (m + n); 0 for none."""
    return (inputs * outputs - 1) // (inputs + outputs)


@final
class LowRankLinear(nn.Module):
    """(..., in) -> (..., out) by way of ``rank`` numbers; stands where an ``nn.Linear`` stood.

    ``weight`` is the product of both matrices, for the few who multiply by it themselves; nothing is saved
    there.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.down = Linear(in_features, rank, bias=False)
        self.up = Linear(rank, out_features, bias=bias)

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        return self.up.weight @ self.down.weight

    @property
    def bias(self) -> Float[Tensor, " out"] | None:
        return self.up.bias

    def forward(self, x: Float[Tensor, "*shape in"]) -> Float[Tensor, "*shape out"]:
        return self.up(self.down(x))
