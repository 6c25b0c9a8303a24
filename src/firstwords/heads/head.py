"""What a head promises: encoded frames and targets in, a loss for each utterance out.

Laws: the loss of an alignment head equals the brute-force sum over all alignments on tiny sizes, that of a
token head the sum of -log P(token | tokens before); gradients pass a numerical check.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from firstwords.nn.scorer import AttentionScorer
from firstwords.tensors import Padded


class Head(nn.Module, ABC):
    """Negative log-likelihood of each utterance, in nats, not averaged, in float32."""

    @abstractmethod
    def loss(self, encoded: Padded, targets: Padded) -> Float[Tensor, " batch"]:
        """Encoded (B, T, D) and target ids (B, U) -> one loss per utterance."""


class FrameHead(Head, ABC):
    """A head that scores every frame by itself (CTC)."""

    vocabulary: int  # outputs, blank included

    @abstractmethod
    def log_probs(self, encoded: Padded) -> Padded:
        """Encoded (B, T, D) -> (B, T, V) natural-log probabilities, float32."""


class TokenHead(Head, ABC):
    """A head that writes token by token and looks at the frames while it does (attention decoders).

    Its sentences begin and end with an id of its own, ``vocabulary``, which no tokenizer and no other part
    ever sees: as an output it is the probability to stop. ``loss`` may add what helps training (label
    smoothing, guided attention) while the module is in training mode; otherwise it is -``log_likelihood``.
    """

    vocabulary: int  # pieces, blank included
    longest: int | None  # tokens of a sentence, its end not counted; None: any number

    @abstractmethod
    def log_likelihood(self, encoded: Padded, targets: Padded) -> Float[Tensor, " batch"]:
        """Encoded (B, T, D) and target ids (B, U) -> log P(targets and then the end), in nats."""

    @abstractmethod
    def attention(self, encoded: Padded, targets: Padded) -> Padded:
        """What it looks at while writing the targets: (B, U + 1, T), rows sum to one; the last is the end's.

        Lengths count tokens and the end. The mean over attention heads where there are several.
        """

    @abstractmethod
    def scorer(self, encoded: Padded) -> AttentionScorer[Any]:
        """Encoded (B, T, D) -> a scorer of next tokens, whose rows are B times any number."""
