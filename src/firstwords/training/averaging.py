"""Model averaging: the running mean of the weights, which costs one extra copy.

It is begun where the stretch to average over begins, so no list of old checkpoints is needed. Means are
float64: thousands of small changes are added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from firstwords.errors import TrainingError


@dataclass(frozen=True)
class Average:
    """A mean over ``count`` models: float64 for weights and buffers, the newest value for integers."""

    count: int
    values: dict[str, Tensor]


class RunningAverage:
    """The mean of a model's weights and buffers since the start, one sample every ``period`` steps.

    The model as it was before training has weight zero. Floating-point buffers are averaged like weights;
    others (counters) are copied.
    """

    def __init__(self, period: int = 100) -> None:
        if period < 1:
            raise TrainingError(
                f"The averaging period is {period}, at least 1 is expected.", mend="Set it to 100."
            )
        self.period = period
        self._count = 0
        self._values: dict[str, Tensor] = {}

    @property
    def count(self) -> int:
        """Number of models in the mean."""
        return self._count

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> bool:
        """Take the model in if ``step`` is a multiple of the period; True if it was."""
        if step < 1 or step % self.period:
            return False
        self._count += 1
        for name, value in model.state_dict().items():
            self._take(name, cast("Tensor", value).detach())
        return True

    def _take(self, name: str, value: Tensor) -> None:
        if not value.is_floating_point():
            self._values[name] = value.clone()
            return
        mean = self._values.get(name)
        if mean is None or self._count == 1:
            self._values[name] = value.to(torch.float64, copy=True)
        else:
            mean.add_((value.to(torch.float64) - mean) / self._count)

    def snapshot(self) -> Average:
        """A copy of the mean as it is now."""
        return Average(self._count, {name: value.clone() for name, value in self._values.items()})

    def state_dict(self) -> dict[str, Any]:
        """Everything ``load_state_dict`` needs to go on exactly (references, as in torch: save at once)."""
        return {"period": self.period, "count": self._count, "values": dict(self._values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        values = cast("Mapping[str, Tensor]", state["values"])
        self.period = int(state["period"])
        self._count = int(state["count"])
        self._values = {name: value.clone() for name, value in values.items()}


@torch.no_grad()
def set_weights(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put averaged values into a model, each in the model's own number format and on its device."""
    own = model.state_dict()
    missing = sorted(set(own) ^ set(values))
    if missing:
        raise TrainingError(
            f"The average does not belong to this model: '{missing[0]}' is in only one of them.",
            mend="Average checkpoints of one run only.",
        )
    for name, value in own.items():
        cast("Tensor", value).copy_(values[name])
