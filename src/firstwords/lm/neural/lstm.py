"""An LSTM language model (Hochreiter and Schmidhuber, 1997; Sundermeyer et al., Interspeech 2012).

Dropout is locked: one mask for all tokens of a sentence (Gal and Ghahramani, 2016, arXiv:1512.05287; Merity
et al., 2018, arXiv:1708.02182, section 4.1). The same noise at every step cannot be averaged out by the
recurrence, and the mask costs a row instead of a matrix. Recurrent weights have none: it would leave the fast
kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from firstwords.lm.neural.config import LstmLmConfig
from firstwords.lm.neural.model import NeuralLm, TiedEmbedding


class LstmState(NamedTuple):
    """What each layer remembers."""

    hidden: Float[Tensor, "rows layers dim"]
    cell: Float[Tensor, "rows layers dim"]


@final
class LstmLm(NeuralLm[LstmState]):
    """Embedding, LSTM layers, and the embedding again as output layer.

    Args:
        vocabulary: number of ids, 0 included.
    """

    def __init__(self, config: LstmLmConfig, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary, self.dim = vocabulary, config.dim
        self.embedding = TiedEmbedding(vocabulary, config.dim)
        self.layers = nn.ModuleList(
            nn.LSTM(config.dim, config.dim, batch_first=True) for _ in range(config.layers)
        )
        with torch.no_grad():
            for layer in self.layers:
                bias = cast("Tensor", layer.bias_ih_l0)
                bias[config.dim : 2 * config.dim] = 1.0  # what is in the cell stays there at first

    def forward(self, read: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens dim"]:
        x = self._locked(self.embedding(read))
        for layer in self.layers:
            x = self._locked(cast("Tensor", layer(x)[0]))
        return x

    def start(self, rows: int) -> LstmState:
        """Zeros."""
        zeros = self.embedding.weight.new_zeros(rows, len(self.layers), self.dim)
        return LstmState(zeros, zeros)

    def step(
        self, last: Int[Tensor, " rows"], state: LstmState
    ) -> tuple[Float[Tensor, "rows dim"], LstmState]:
        """One token of each row; a start finds an empty memory."""
        last = last.to(self.device)
        going_on = (last != 0)[:, None, None]
        hidden, cell = (part * going_on for part in state)
        x = self._locked(self.embedding(last)[:, None])
        after: list[tuple[Tensor, Tensor]] = []
        if not len(last):  # torch's kernel refuses none
            return x[:, 0], state
        for n, layer in enumerate(self.layers):
            before = (hidden[None, :, n].contiguous(), cell[None, :, n].contiguous())
            x, own = layer(x, before)
            x = self._locked(x)
            after.append((own[0][0], own[1][0]))
        return x[:, 0], LstmState(*(torch.stack(parts, dim=1) for parts in zip(*after, strict=True)))

    def reorder(self, state: LstmState, kept: Int[Tensor, " kept"]) -> LstmState:
        """The memories of the rows ``kept``."""
        kept = kept.to(self.device)
        return LstmState(state.hidden[kept], state.cell[kept])

    def join(self, states: Sequence[LstmState]) -> LstmState:
        """The memories of all rows."""
        return LstmState(torch.cat([s.hidden for s in states]), torch.cat([s.cell for s in states]))

    def _locked(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        if not self.training or self.config.dropout == 0:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.config.dropout)
