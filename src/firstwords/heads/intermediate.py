"""CTC losses inside the encoder, and predictions fed back into it.

InterCTC: Lee and Watanabe, 2021, arXiv:2102.03216: loss = (1 - w) * last + w * mean(intermediate).
Self-conditioned CTC: Nozaki and Komatsu, 2021, arXiv:2104.02724: after a tapped stack the frames become
x + Linear(softmax(ctc(x))), so that later stacks know what earlier ones heard.

Differs from the papers: stacks of a Zipformer have widths of their own, so each tap has its own projection;
the feedback starts at zero, so that adding it to a trained encoder changes nothing at first.

Per forward pass one ``Taps`` goes along; an encoder calls it after each stack with the stack's number and
output, and goes on with what comes back:

    taps = head.intermediate.taps()
    encoded = encoder(frames, taps)
    losses = [ctc_loss(taps.log_probs[i], targets) for i in head.config.intermediate]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from firstwords.errors import ConfigError
from firstwords.heads.numeric import at_least_float32
from firstwords.tensors import Padded, zero_padding


@final
class IntermediateCtc(nn.Module):
    """Projections at chosen stacks.

    Args:
        stacks: numbers of the stacks, 0 = first.
        stack_dims: width of every stack's output.
        self_conditioned: feed the posteriors back.
    """

    def __init__(
        self,
        stacks: Sequence[int],
        stack_dims: Sequence[int],
        vocabulary: int,
        *,
        dropout: float,
        self_conditioned: bool,
    ) -> None:
        super().__init__()
        wrong = [s for s in stacks if not 0 <= s < len(stack_dims) - 1]
        if wrong:
            raise ConfigError(
                f"intermediate = {list(stacks)}: stack {wrong[0]} has no place for a loss; it can stand "
                f"after stacks 0 to {len(stack_dims) - 2}.",
                mend="Name only those (the last stack's output goes to the head itself).",
            )
        self.stacks = tuple(stacks)
        self.dropout = nn.Dropout(dropout)
        self.projections = nn.ModuleDict({str(s): nn.Linear(stack_dims[s], vocabulary) for s in stacks})
        self.feedbacks = nn.ModuleDict()
        if self_conditioned:
            for stack in stacks:
                feedback = nn.Linear(vocabulary, stack_dims[stack])
                nn.init.zeros_(feedback.weight)
                nn.init.zeros_(feedback.bias)
                self.feedbacks[str(stack)] = feedback

    def taps(self) -> Taps:
        """A fresh collector for one forward pass."""
        return Taps(self)

    def log_probs(self, stack: int, frames: Padded) -> Padded:
        """Output of a tapped stack (B, T, D) -> (B, T, V) natural-log probabilities, float32."""
        projection = cast("nn.Linear", self.projections[str(stack)])
        logits = cast("Tensor", projection(self.dropout(frames.values)))
        return Padded(at_least_float32(logits).log_softmax(dim=-1), frames.lengths)

    def condition(self, stack: int, frames: Padded, log_probs: Padded) -> Padded:
        """Frames and their predictions -> the frames that the next stack gets; padding is not touched."""
        if str(stack) not in self.feedbacks:
            return frames
        feedback = cast("nn.Linear", self.feedbacks[str(stack)])
        added = zero_padding(Padded(feedback(log_probs.values.exp()), frames.lengths))
        return Padded(frames.values + added.values.to(frames.values.dtype), frames.lengths)


@final
class Taps:
    """What one forward pass left at the taps: ``log_probs`` by stack number."""

    def __init__(self, intermediate: IntermediateCtc) -> None:
        self.intermediate = intermediate
        self.log_probs: dict[int, Padded] = {}

    def __call__(self, stack: int, frames: Padded) -> Padded:
        """Output of any stack -> what the next stack gets."""
        if stack not in self.intermediate.stacks:
            return frames
        log_probs = self.intermediate.log_probs(stack, frames)
        self.log_probs[stack] = log_probs
        return self.intermediate.condition(stack, frames, log_probs)


def combine(
    last: Float[Tensor, " batch"], intermediate: Iterable[Float[Tensor, " batch"]], weight: float
) -> Float[Tensor, " batch"]:
    """(1 - weight) * last + weight * mean(intermediate); with no intermediate losses, the last alone."""
    inner = list(intermediate)
    if not inner:
        return last
    return (1 - weight) * last + weight * torch.stack(inner).mean(dim=0)
