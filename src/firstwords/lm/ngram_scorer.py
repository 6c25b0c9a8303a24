"""An n-gram model as a scorer of next tokens: whole vocabulary, many sentences at once.

The rows of all states that were asked for once are kept: from then on a step is two gathers, whatever the
order. The scores are those of the model over the tokenizer's pieces:

- pieces the model does not know share <unk> evenly, which stands for all of them together;
- what the model gives to words that are no piece is shared out in proportion: rows sum to one.
"""

from __future__ import annotations

from typing import TypeVar, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from firstwords.lm.language_model import NgramLanguageModel
from firstwords.lm.ngram import UNKNOWN
from firstwords.nn.scorer import TokenScorer
from firstwords.text.tokenizer import Tokenizer

_CACHE_BYTES = 256 << 20
_FIRST = 2048  # rows for which room is made at once

Ints = NDArray[np.int64]
Singles = NDArray[np.float32]
Number = TypeVar("Number", np.float32, np.int32)


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
        self._columns: Ints = lm.columns(tokenizer)
        self.vocabulary = len(self._columns)
        unknown = self._columns == UNKNOWN
        self._share = np.where(unknown, -np.log(max(1, int(unknown.sum()))), 0.0).astype(np.float32)
        words = len(self.model.words)
        self._most = max(1, cache_bytes // (4 * self.vocabulary + 4 * words))
        self._slots: Ints = np.full(len(self.model.parent), -1, dtype=np.int64)
        # Of each kept state: the states after all words, and the scores of the tokens.
        self._nexts: NDArray[np.int32] = np.empty((0, words), dtype=np.int32)
        self._scores: Singles = np.empty((0, self.vocabulary), dtype=np.float32)
        self._used = 0

    def start(self, rows: int) -> Tensor:
        """The node of <s>, of which nothing has been asked."""
        return torch.full((rows,), self.model.begin, dtype=torch.int64)

    def score(
        self, last: Int[Tensor, " rows"], state: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows vocabulary"], Int[Tensor, " rows"]]:
        """The tokens chosen last -> log P of all next ones, and the nodes after them."""
        tokens: Ints = last.cpu().numpy()
        nodes: Ints = state.numpy()
        if tokens.any():
            _, nexts, places = self._look_up(nodes)
            after = nexts[places, self._columns[tokens]].astype(np.int64)
            nodes = np.where(tokens == 0, self.model.begin, after)
        scores, _, places = self._look_up(nodes)
        return torch.from_numpy(scores[places]).to(self.device), torch.from_numpy(nodes)

    def reorder(self, state: Int[Tensor, " rows"], kept: Int[Tensor, " kept"]) -> Int[Tensor, " kept"]:
        """The nodes of the rows ``kept``."""
        return state[kept.cpu()]

    def _look_up(self, nodes: Ints) -> tuple[Singles, NDArray[np.int32], Ints]:
        """Tables of scores (by token) and next states (by word), and the row of each node in them."""
        places = self._slots[nodes]
        missing = places < 0
        if missing.any():
            if not self._keep(nodes[missing]):
                self._slots.fill(-1)
                self._used = 0
                if not self._keep(nodes):  # more at once than may be kept
                    different, places = np.unique(nodes, return_inverse=True)
                    own, nexts = self.model.rows(different)
                    return self._of_tokens(own), nexts, places
            places = self._slots[nodes]
        return self._scores, self._nexts, places

    def _keep(self, nodes: Ints) -> bool:
        """Keep these states; False, and nothing done, if there is no room."""
        new = np.array(list(dict.fromkeys(nodes.tolist())), dtype=np.int64)
        rows = slice(self._used, self._used + len(new))
        if rows.stop > self._most:
            return False
        self._make_room(rows.stop)
        own, self._nexts[rows] = self.model.rows(new)
        self._scores[rows] = self._of_tokens(own)
        self._slots[new] = np.arange(rows.start, rows.stop)
        self._used = rows.stop
        return True

    def _make_room(self, end: int) -> None:
        if end > len(self._scores):
            size = min(self._most, max(end, 2 * len(self._scores), _FIRST))
            self._nexts = _longer(self._nexts, size)
            self._scores = _longer(self._scores, size)

    def _of_tokens(self, own: Singles) -> Singles:
        """Rows over the model's words -> over the tokens."""
        scores = own.take(self._columns, axis=1) + self._share  # rows in order, so that sums are exact
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores


def _longer(kept: NDArray[Number], rows: int) -> NDArray[Number]:
    """The same rows, and room for others."""
    found = np.empty((rows, kept.shape[1]), dtype=kept.dtype)
    found[: len(kept)] = kept
    return found
