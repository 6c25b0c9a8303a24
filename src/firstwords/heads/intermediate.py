"""CTC losses inside the encoder, and predictions fed back into it.

InterCTC: Lee and Watanabe, 2021, arXiv:2102.03216: the head also reads what comes out of inner stacks, and
loss = (1 - w) * last + w * mean(inner). Self-conditioned CTC: Nozaki and Komatsu, 2021, arXiv:2104.02724:
after such a stack the frames become x + Linear(softmax(ctc(x))), so that later stacks know what earlier ones
heard; this is part of the model, in training and in use. Both layers are shared among the stacks.

An encoder that can be tapped shows what its output would be had a stack been its last, and adds what it gets
in return to the sequence that goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.encoders.encoder import Encoder
from firstwords.encoders.layers import Condition, Stop
from firstwords.errors import ConfigError
from firstwords.heads.ctc import CtcHead
from firstwords.tensors import Padded, zero_padding


@runtime_checkable
class Tappable(Protocol):
    """An encoder whose stacks can be looked at on the way."""

    def forward_with_intermediate(
        self, frames: Padded, layers: Sequence[int], condition: Condition | None = None
    ) -> tuple[Padded, list[Padded]]:
        """Frames -> output, and the output as it would be after each stack in ``layers``.

        ``condition`` is given the stack's number and that output; its answer is added to what goes on, or
        ends the way there (``Stop``): the output is then that of this stack.
        """
        ...


class Tapped(NamedTuple):
    """An encoder's output, and the head's log-probabilities (B, T, V) at each inner stack, in their order."""

    encoded: Padded
    inner: list[Padded]


def encode_with_taps(
    encoder: Encoder,
    head: CtcHead,
    frames: Padded,
    enough: Callable[[int, Padded, Padded], bool] | None = None,
) -> Tapped:
    """Feature frames -> encoded frames and inner predictions, conditioned on them if the head says so.

    With no ``intermediate`` stacks in the head's settings this is ``encoder(frames)`` and an empty list.

    Args:
        enough: given a stack's number, what the output would be and what the head says of it: True where no
            later stack is to be computed.
    """
    stacks = head.config.intermediate
    if not stacks:
        return Tapped(encoder(frames), [])
    if not isinstance(encoder, Tappable):
        raise ConfigError(
            f"heads.ctc.intermediate = {list(stacks)}: this encoder cannot be tapped.",
            mend="Set heads.ctc.intermediate = [].",
        )
    inner: list[Padded] = []

    def read(tap: Padded) -> Padded:
        with torch.autocast(tap.values.device.type, enabled=False):
            inner.append(head.log_probs(Padded(tap.values.to(head.projection.weight.dtype), tap.lengths)))
        return inner[-1]

    if head.feedback is None and enough is None:
        encoded, taps = encoder.forward_with_intermediate(frames, stacks)
        for tap in taps:
            read(tap)
        return Tapped(encoded, inner)

    feedback = head.feedback

    def condition(stack: int, tap: Padded) -> Tensor | Stop | None:
        said = read(tap)
        if enough is not None and enough(stack, tap, said):
            return Stop()
        if feedback is None:
            return None
        posteriors = said.values.exp().to(feedback.weight.dtype)
        return zero_padding(Padded(feedback(posteriors), tap.lengths)).values

    encoded, _ = encoder.forward_with_intermediate(frames, stacks, condition)
    return Tapped(encoded, inner)


def combine(
    last: Float[Tensor, " batch"], inner: Iterable[Float[Tensor, " batch"]], weight: float
) -> Float[Tensor, " batch"]:
    """(1 - weight) * last + weight * mean(inner); with no inner losses, the last alone."""
    losses = list(inner)
    if not losses:
        return last
    return (1 - weight) * last + weight * torch.stack(losses).mean(dim=0)
