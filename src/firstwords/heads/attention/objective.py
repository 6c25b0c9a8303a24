"""Teacher forcing: what a decoder reads and what it must say, and the loss of it.

The decoder knows the ids 1..V-1 of the tokenizer and one more, V, which marks both ends of a sentence; blank
and padding (0) are neither read nor said. Its embeddings and outputs are therefore counted from 0 as
id - 1 ("units"):

    ids      a  b               V = 5, a = 2, b = 3
    inputs   5  2  3            <sos> a b
    outputs  2  3  5            a b <eos>
    units    1  2  4

``TaughtHead`` is what all such decoders do with a lesson; a decoder itself says only how it writes one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from firstwords.heads.head import TokenHead
from firstwords.heads.numeric import at_least_float32
from firstwords.tensors import Padded, real_frames


class Lesson(NamedTuple):
    """Units read and units to be said, one more of each than tokens; beyond ``lengths`` stands the end."""

    inputs: Int[Tensor, "batch tokens_and_end"]
    outputs: Int[Tensor, "batch tokens_and_end"]
    lengths: Int[Tensor, " batch"]


def lesson_of(targets: Padded, vocabulary: int) -> Lesson:
    """Target ids (B, U), 1..V-1 within each length -> the units a decoder reads and must say."""
    ids, lengths = targets.values, targets.lengths
    end = vocabulary - 1
    units = torch.where(real_frames(lengths, ids.shape[1]), ids - 1, end)
    ends = units.new_full((units.shape[0], 1), end)
    return Lesson(torch.cat([ends, units], dim=1), torch.cat([units, ends], dim=1), lengths + 1)


def units_of(last: Int[Tensor, " rows"], vocabulary: int) -> Int[Tensor, " rows"]:
    """Ids in the convention of TokenScorer, where 0 starts a sentence -> units."""
    return (last - 1) % vocabulary


def log_probs_by_id(logits: Float[Tensor, "rows units"]) -> Float[Tensor, "rows vocabulary"]:
    """Scores of units -> natural-log probabilities in the convention of TokenScorer: column 0 is the end."""
    return at_least_float32(logits).log_softmax(dim=-1).roll(1, dims=-1)


def sentence_loss(
    logits: Float[Tensor, "batch tokens_and_end units"], lesson: Lesson, *, smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """-Σ log P(unit | units before, audio) of each utterance, the end included, in nats and float32.

    With ``smoothing`` s the target is (1 - s) on the unit plus s spread evenly over all units (Szegedy et
    al., 2016, arXiv:1512.00567, section 7).
    """
    each = F.cross_entropy(
        at_least_float32(logits).transpose(1, 2), lesson.outputs, reduction="none", label_smoothing=smoothing
    )
    return each.masked_fill(~real_frames(lesson.lengths, each.shape[1]), 0).sum(dim=1)


def _of_nobody(encoded: Padded) -> Float[Tensor, " batch"]:
    """The loss of a batch without utterances: none, and no gradient."""
    return at_least_float32(encoded.values).sum(dim=(1, 2))


class Written(NamedTuple):
    """What a decoder says for every token and the end, and what it looked at (mean over attention heads)."""

    logits: Float[Tensor, "batch tokens_and_end units"]
    weights: Float[Tensor, "batch tokens_and_end time"]


class TaughtHead(TokenHead, ABC):
    """A decoder that is taught with lessons.

    A sentence of more than ``longest`` tokens has probability 0: its loss is inf and its gradient zero, so
    that the caller can name and skip it without spoiling the batch.
    """

    @abstractmethod
    def write(self, encoded: Padded, lesson: Lesson) -> Written:
        """Encoded (B, T, D) and the units to read -> what is said for each."""

    @abstractmethod
    def lesson_loss(self, encoded: Padded, lesson: Lesson) -> Float[Tensor, " batch"]:
        """-log P(lesson), and what helps training while the module is in training mode."""

    def loss(self, encoded: Padded, targets: Padded) -> Float[Tensor, " batch"]:
        """-log P(targets, end); in training smoothed, sampled and guided as the settings say."""
        if not len(targets.lengths):
            return _of_nobody(encoded)
        lesson = lesson_of(self._cut(targets), self.vocabulary)
        return self._possible(self.lesson_loss(encoded, lesson), targets)

    def log_likelihood(self, encoded: Padded, targets: Padded) -> Float[Tensor, " batch"]:
        """Encoded (B, T, D) and target ids (B, U) -> log P(targets and then the end), in nats."""
        if not len(targets.lengths):
            return _of_nobody(encoded)
        lesson = lesson_of(self._cut(targets), self.vocabulary)
        return -self._possible(sentence_loss(self.write(encoded, lesson).logits, lesson), targets)

    def attention(self, encoded: Padded, targets: Padded) -> Padded:
        """Weights (B, U + 1, T) while writing the targets and the end; zero beyond them."""
        lesson = lesson_of(targets, self.vocabulary)
        weights = self.write(encoded, lesson).weights[:, :, : encoded.values.shape[1]]
        written = real_frames(lesson.lengths, weights.shape[1])
        return Padded(weights.masked_fill(~written[..., None], 0), lesson.lengths)

    def _cut(self, targets: Padded) -> Padded:
        if self.longest is None:
            return targets
        return Padded(targets.values[:, : self.longest], targets.lengths.clamp_max(self.longest))

    def _possible(self, loss: Float[Tensor, " batch"], targets: Padded) -> Float[Tensor, " batch"]:
        if self.longest is None:
            return loss
        return loss.masked_fill(targets.lengths.to(loss.device) > self.longest, torch.inf)
