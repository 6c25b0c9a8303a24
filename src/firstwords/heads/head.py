"""What a head promises: encoded frames and targets in, a loss for each utterance out.

Laws: the loss equals the brute-force sum over all alignments on tiny sizes; gradients pass a numerical check.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

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
