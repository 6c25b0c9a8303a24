"""An n-gram model as a scorer of next tokens: whole vocabulary, many sentences at once.

The rows of all states that were asked for once are kept, with the states that each token leads to: from then
on a step is two gathers, whatever the order. The scores are those of the model over the tokenizer's pieces:

- pieces the model does not know share <unk> evenly, which stands for all of them together;
- what the model gives to words that are no piece is shared out in proportion: rows sum to one.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.lm.language_model import NgramLanguageModel
from firstwords.lm.ngram import UNKNOWN
from firstwords.nn.scorer import TokenScorer
from firstwords.text.tokenizer import Tokenizer

_CACHE_BYTES = 256 << 20


@final
class NgramScorer(TokenScorer[Tensor]):
    """log P of the next token by an n-gram model; a state is one node of the model per row.

    Args:
        lm: a model of this tokenizer's pieces, or of letters where the pieces are letters.
        device: where scores are given.
        cache_bytes: upper bound of the kept rows; when it is reached they are made anew.
    """

    def __init__(
        self,
        lm: NgramLanguageModel,
        tokenizer: Tokenizer,
        *,
        device: torch.device | str = "cpu",
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        self.model = lm.model
        self.device = torch.device(device)
        self._columns = lm.columns(tokenizer)
        self.vocabulary = len(self._columns)
        unknown = self._columns == UNKNOWN
        self._share = np.where(unknown, -np.log(max(1, int(unknown.sum()))), 0.0).astype(np.float32)
        self._most = max(1, cache_bytes // (self.vocabulary * 12))
        self._slots = torch.full((len(self.model.parent),), -1, dtype=torch.int64, device=self.device)
        self._scores = torch.empty((0, self.vocabulary), device=self.device)
        self._nexts = torch.empty((0, self.vocabulary), dtype=torch.int64, device=self.device)
        self._used = 0

    def start(self, rows: int) -> Tensor:
        """The node of <s>, of which nothing has been asked."""
        return torch.full((rows,), self.model.begin, dtype=torch.int64, device=self.device)

    def score(
        self, last: Int[Tensor, " rows"], state: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows vocabulary"], Int[Tensor, " rows"]]:
        """The tokens chosen last -> log P of all next ones, and the nodes after them."""
        last = last.to(self.device)
        begun = last == 0
        if not bool(begun.all()):
            after = self._look_up(state)[1].gather(1, last[:, None]).squeeze(1)
            state = torch.where(begun, self.model.begin, after)
        return self._look_up(state)[0], state

    def reorder(self, state: Int[Tensor, " rows"], kept: Int[Tensor, " kept"]) -> Int[Tensor, " kept"]:
        """The nodes of the rows ``kept``."""
        return state[kept.to(self.device)]

    def _look_up(self, state: Int[Tensor, " rows"]) -> tuple[Tensor, Tensor]:
        """Scores and next states of every row, computed where they are not kept yet."""
        slots = self._slots[state]
        missing = slots < 0
        if bool(missing.any()):
            fresh = state[missing].unique()
            if len(fresh) > self._most:  # more at once than may be kept
                different, places = state.unique(return_inverse=True)
                scores, nexts = self._rows(different)
                return scores[places], nexts[places]
            if self._used + len(fresh) > self._most:
                self._slots.fill_(-1)
                self._used = 0
                return self._look_up(state)
            self._keep(fresh)
            slots = self._slots[state]
        return self._scores[slots], self._nexts[slots]

    def _keep(self, nodes: Int[Tensor, " nodes"]) -> None:
        end = self._used + len(nodes)
        if end > len(self._scores):
            size = min(self._most, max(end, 2 * len(self._scores), 64))
            more = (size - len(self._scores), self.vocabulary)
            self._scores = torch.cat([self._scores, self._scores.new_empty(more)])
            self._nexts = torch.cat([self._nexts, self._nexts.new_empty(more)])
        self._scores[self._used : end], self._nexts[self._used : end] = self._rows(nodes)
        self._slots[nodes] = torch.arange(self._used, end, device=self.device)
        self._used = end

    def _rows(
        self, nodes: Int[Tensor, " nodes"]
    ) -> tuple[Float[Tensor, "nodes vocabulary"], Int[Tensor, "nodes vocabulary"]]:
        scores, nexts = self.model.rows(nodes.cpu().numpy())
        kept = torch.from_numpy(scores[:, self._columns] + self._share).log_softmax(dim=1)
        return kept.to(self.device), torch.from_numpy(nexts[:, self._columns]).to(self.device)
