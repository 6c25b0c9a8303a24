"""The way through a stack of layers: looked at on the way, fed with predictions, some layers left out.

What a tap is for: heads/intermediate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn

from firstwords.errors import ConfigError
from firstwords.nn.dropout import skip_for_some
from firstwords.tensors import Padded


@final
class Stop:
    """A condition's answer: no later layer is wanted (early exit)."""


# Called with (layer number, the output as it would be after that layer); what it returns, (B, T, dim) at the
# rate of the output, is added to the running sequence (self-conditioning: arXiv:2104.02724).
Condition = Callable[[int, Padded], Tensor | Stop | None]


@final
class Absent(nn.Module):
    """The place of a layer that was cut out of a model (model/structure.py): hands on what it gets."""

    stride = 1  # frames in per frame out

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x


def present(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """The layers that were not cut out: those that remember something between two steps of a stream."""
    return [layer for layer in layers if not isinstance(layer, Absent)]


@final
class Taps:
    """Collects what the output would be after each of the ``wanted`` layers.

    Args:
        wanted: numbers of layers, from 0.
        layers: how many there are.
        condition: asked at each tap.

    ``stopped`` is True once it has answered ``Stop``: what was taken last is then the output.
    """

    def __init__(self, wanted: Sequence[int], layers: int, condition: Condition | None = None) -> None:
        wrong = [i for i in wanted if not 0 <= i < layers]
        if wrong:
            raise ConfigError(
                f"Intermediate outputs {wrong} do not exist.", mend=f"Layers are 0 to {layers - 1}."
            )
        self.wanted, self.layers, self.condition = wanted, layers, condition
        self.taken: list[Padded] = []
        self.stopped = False

    def after(self, layer: int, output: Callable[[], Padded]) -> Tensor | None:
        """Take what ``output`` makes, if this layer is wanted; what the condition answers to it."""
        if layer not in self.wanted:
            return None
        self.taken.append(output())
        answer = None if self.condition is None else self.condition(layer, self.taken[-1])
        self.stopped = isinstance(answer, Stop)
        return None if isinstance(answer, Stop) else answer


def run_layers(
    x: Float[Tensor, "batch time dim"],
    layers: Iterable[Callable[[Tensor], Tensor]],
    taps: Taps,
    output: Callable[[Tensor], Padded],
    *,
    first: int = 0,
    stride: int = 1,
    drop: float = 0.0,
) -> Float[Tensor, "batch time dim"]:
    """Sequence -> sequence after these layers, or after the one at which the taps were stopped.

    Args:
        output: running sequence -> the output as it would be, had no layer followed.
        first: number of the first of these layers among all of the encoder.
        stride: output frames per frame of the running sequence.
        drop: probability, for an utterance, of leaving out the encoder's last layer (0 outside training);
            for layer l of N it is l / N of that (stochastic depth, arXiv:1603.09382, section 3).
    """
    for i, layer in enumerate(layers, start=first):
        x = skip_for_some(x, layer(x), drop * (i + 1) / taps.layers)
        here = x
        answer = taps.after(i, lambda here=here: output(here))
        if answer is not None:
            x = x + answer[:, ::stride].to(x.dtype)
        if taps.stopped:
            break
    return x
