"""A neural language model as a scorer of next tokens: plain log-probabilities, nothing normalized by length.

What the model gives to units that are no piece of the tokenizer is shared out in proportion, and pieces the
model does not know share <unk> evenly: rows sum to one over the tokenizer's pieces, as with n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.lm.neural.folder import UNKNOWN, NeuralLanguageModel, load_neural
from firstwords.lm.neural.model import NeuralLm
from firstwords.nn.scorer import TokenScorer
from firstwords.text.tokenizer import Tokenizer


def neural_scorer(
    lm: NeuralLanguageModel | Path | str, tokenizer: Tokenizer, *, device: torch.device | str = "cpu"
) -> NeuralScorer:
    """Model (or its folder) and the tokenizer of a recogniser -> scorer of that tokenizer's pieces."""
    found = lm if isinstance(lm, NeuralLanguageModel) else load_neural(lm)
    columns = torch.from_numpy(found.columns(tokenizer))
    return NeuralScorer(found.network.to(device), columns)


@final
class NeuralScorer(TokenScorer[Any]):
    """log P of the next token by a network; a state is that of the network.

    Args:
        network: is put into evaluation mode.
        columns: token id -> id of the network; none: they are the same.
    """

    def __init__(self, network: NeuralLm[Any], columns: Int[Tensor, " vocabulary"] | None = None) -> None:
        self.network = network.eval()
        self.device = network.device
        self.vocabulary = network.vocabulary if columns is None else len(columns)
        self._columns: Tensor | None = None
        if columns is not None and columns.tolist() != list(range(network.vocabulary)):
            self._columns = columns.to(self.device)
            unknown = columns == UNKNOWN
            share = np.log(max(1, int(unknown.sum())))
            self._share = torch.where(unknown, -share, 0.0).to(self.device)

    def start(self, rows: int) -> Any:
        """The network's state before the start."""
        return self.network.start(rows)

    @torch.no_grad()
    def score(self, last: Int[Tensor, " rows"], state: Any) -> tuple[Float[Tensor, "rows vocabulary"], Any]:
        """The tokens chosen last -> log P of all next ones, and the state after."""
        last = last.to(self.device)
        _, logits, after = self.network.hidden(last if self._columns is None else self._columns[last], state)
        return self._log_probs(logits), after

    def _log_probs(self, logits: Float[Tensor, "rows units"]) -> Float[Tensor, "rows vocabulary"]:
        logits = logits if logits.dtype is torch.float64 else logits.float()
        if self._columns is None:
            return logits.log_softmax(dim=1)
        return (logits[:, self._columns] + self._share.to(logits.dtype)).log_softmax(dim=1)

    def reorder(self, state: Any, kept: Int[Tensor, " kept"]) -> Any:
        """The state of the rows ``kept``."""
        return self.network.reorder(state, kept)

    def join(self, states: Sequence[Any]) -> Any:
        """The rows of all these states as one, however many tokens each has read."""
        return self.network.join(states)
