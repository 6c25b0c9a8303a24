"""What a neural language model promises: whole sentences at once, or token by token with state in and out.

Ids are those of ``nn/scorer.py``: 0 is the start of a sentence where it is read and its end where it is said,
so one embedding serves both, and the output layer is the embedding (Press and Wolf, 2017, arXiv:1608.05859).

    read      0  a  b         teacher forcing: forward(read) -> hidden values, logits(hidden) -> scores
    to say    a  b  0

    hidden, logits, state = network.hidden(last, state)        one token a row

``hidden`` is what deep and cold fusion ask (Gulcehre et al., 2015, arXiv:1503.03535; Sriram et al., 2018,
arXiv:1708.06426): the last layer's output after dropout's place, of which the logits are one linear map.

Laws (tests): token by token equals the whole sentence; ``reorder`` and ``join`` commute with ``hidden``, also
for states of different lengths. A row whose ``last`` is 0 begins anew, whatever its state was.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from firstwords.nn.linear import linear

State = TypeVar("State")


class NeuralLm(nn.Module, Generic[State], ABC):
    """A network over ``vocabulary`` ids (0: start and end) whose hidden values have ``dim`` columns."""

    vocabulary: int
    dim: int
    embedding: TiedEmbedding

    @abstractmethod
    def forward(self, read: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens dim"]:
        """What is read, the start first -> hidden values, from which the next token follows.

        A place sees itself and those before it: what stands behind a sentence's end changes nothing.
        """

    def logits(self, hidden: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows vocabulary"]:
        """Hidden values -> scores of the next token before the softmax; column 0 is the end."""
        return self.embedding.logits(hidden)

    @abstractmethod
    def start(self, rows: int) -> State:
        """The state before the start."""

    @abstractmethod
    def step(self, last: Int[Tensor, " rows"], state: State) -> tuple[Float[Tensor, "rows dim"], State]:
        """The tokens chosen last (0: the start) and the state before them -> hidden values, state after."""

    def hidden(
        self, last: Int[Tensor, " rows"], state: State
    ) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, "rows vocabulary"], State]:
        """The tokens chosen last and the state before them -> hidden values, their logits, state after."""
        found, after = self.step(last, state)
        return found, self.logits(found), after

    @abstractmethod
    def reorder(self, state: State, kept: Int[Tensor, " kept"]) -> State:
        """The state of the rows ``kept``, in their order."""

    @abstractmethod
    def join(self, states: Sequence[State]) -> State:
        """The rows of all these states as one; they may have read different numbers of tokens."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.embedding.weight.device


@final
class TiedEmbedding(nn.Module):
    """One table for what is read and what is said, and a bias for each unit said."""

    def __init__(self, vocabulary: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocabulary, dim) * dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.scale = math.sqrt(dim)  # of the size one when read

    def forward(self, ids: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows dim"]:
        return F.embedding(ids, self.weight) * self.scale

    def logits(self, hidden: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows vocabulary"]:
        """Hidden values -> scores of all units."""
        return linear(hidden, self.weight, self.bias)
