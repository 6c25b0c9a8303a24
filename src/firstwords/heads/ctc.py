"""CTC head: a label or blank for every frame, independent given the audio.

Graves et al., 2006, "Connectionist temporal classification". Owns the projection from encoded frames to
log-probabilities and the loss. The two-view consistency loss is in consistency.py, intermediate losses in
intermediate.py.

Everything after the projection is float32 (float64 stays float64): the loss sums thousands of log terms.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.heads.head import FrameHead
from firstwords.heads.numeric import at_least_float32
from firstwords.nn.linear import Linear
from firstwords.tensors import Padded, real_frames

_FEEDBACK_SCALE = 0.05  # as for the last layer of every Zipformer module


class CtcConfig(Config):
    """Settings of a CTC head and of the losses that go with it."""

    kind: Literal["ctc"] = "ctc"
    weight: NonNegativeFloat = 1.0  # factor on the loss of this head
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1  # on the encoded frames
    blank_bias: float = 0.0  # added to the blank's bias at the start; -1 shortens the all-blank phase
    consistency: NonNegativeFloat = 0.0  # weight of CR-CTC; 0 = one view, no such loss; published: 0.2
    intermediate: tuple[int, ...] = ()  # encoder stacks (0 = first) that get a CTC loss of their own
    intermediate_weight: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3  # of their mean against the last
    self_conditioned: bool = False  # feed the intermediate predictions back into the encoder

    @model_validator(mode="after")
    def conditions_on_something(self) -> CtcConfig:
        if self.self_conditioned and not self.intermediate:
            raise ValueError("self_conditioned = true needs intermediate stacks, for example [1, 3]")
        return self


@final
class CtcHead(FrameHead):
    """Dropout, one linear layer, log-softmax. Id 0 is the blank.

    Args:
        dim: width of the encoder's output.
        vocabulary: number of pieces, blank included.
    """

    # Which axis of a tensor counts the pieces; the others have none.
    PIECES: ClassVar[dict[str, int]] = {"projection.weight": 0, "projection.bias": 0, "feedback.weight": 1}

    feedback: nn.Linear | None  # predictions back into the encoder; see intermediate.py

    def __init__(self, config: CtcConfig, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.dropout = nn.Dropout(config.dropout)
        self.projection = Linear(dim, vocabulary)  # icefall: ctc_output.1
        with torch.no_grad():
            self.projection.bias[0] += config.blank_bias
        self.feedback = None
        if config.intermediate and config.self_conditioned:
            self.feedback = Linear(vocabulary, dim)
            # Small, so that a trained encoder is hardly disturbed. Not zero: the steps of ScaledAdam are in
            # proportion to a tensor's size, and after 150 of them zeros would have grown to 3e-6.
            with torch.no_grad():
                self.feedback.weight.mul_(_FEEDBACK_SCALE)
                self.feedback.bias.mul_(_FEEDBACK_SCALE)

    def log_probs(self, encoded: Padded) -> Padded:
        """Encoded (B, T, D) -> (B, T, V) natural-log probabilities, float32."""
        logits = self.projection(self.dropout(encoded.values))
        return Padded(at_least_float32(logits).log_softmax(dim=-1), encoded.lengths)

    def loss(self, encoded: Padded, targets: Padded) -> Float[Tensor, " batch"]:
        """Encoded (B, T, D) and target ids (B, U) -> -log P(target) of each utterance, in nats."""
        return self.loss_from_log_probs(self.log_probs(encoded), targets)

    def loss_from_log_probs(self, log_probs: Padded, targets: Padded) -> Float[Tensor, " batch"]:
        """What ``ctc_loss`` says, for log-probabilities that are needed elsewhere too."""
        return ctc_loss(log_probs, targets)


def ctc_loss(log_probs: Padded, targets: Padded) -> Float[Tensor, " batch"]:
    """Finite log-probabilities (B, T, V) and ids (B, U) -> -log of the sum over all alignments, in nats.

    An utterance with fewer frames than its tokens need (``can_align``) has probability 0: its loss is inf
    and its gradient zero, so that the caller can count, name and skip it without spoiling the batch.

    That is no setting. torch's ``zero_infinity`` alone hides such an utterance: its loss is 0, as of one that
    is read without a doubt. Without it the gradients of all weights become nan. Training names and leaves out
    what cannot align as recorded (training/prepare.py); what only a faster speed makes too short adds nothing
    to a step (training/tasks/ctc_objective.py).
    """
    values = at_least_float32(log_probs.values)
    device = values.device
    if values.numel() == 0:  # torch refuses a batch without utterances or frames
        loss = values.sum(dim=(1, 2))
    else:
        if device.type == "mps":  # torch has no CTC kernel there
            values = values.cpu()
        place = values.device
        loss = torch.nn.functional.ctc_loss(
            values.transpose(0, 1),
            targets.values.to(place),
            log_probs.lengths.to(place),
            targets.lengths.to(place),
            blank=0,
            reduction="none",
            zero_infinity=True,  # else the gradient of an impossible utterance is nan
        ).to(device)
    return loss.masked_fill(~can_align(log_probs.lengths.to(device), targets), float("inf"))


def can_align(frames: Int[Tensor, " batch"], targets: Padded) -> Bool[Tensor, " batch"]:
    """Number of encoded frames and target ids -> True where at least one alignment exists.

    Equal neighbours need a blank between them: "a a b" takes four frames, a - a b.
    """
    return frames >= frames_needed(targets).to(frames.device)


def frames_needed(targets: Padded) -> Int[Tensor, " batch"]:
    """Target ids (B, U) -> fewest encoded frames: tokens plus equal neighbours."""
    ids, lengths = targets.values, targets.lengths
    inside = real_frames(lengths, ids.shape[1])
    repeats = (ids[:, 1:] == ids[:, :-1]) & inside[:, 1:]
    return lengths + repeats.sum(dim=1)
