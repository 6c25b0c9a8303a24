"""An n-gram model as a scorer of next tokens: whole vocabulary, many sentences at once.

The rows of all states that were asked for once are kept: from then on a step is two gathers, whatever the
order. A row is that of the state to which the model backs off, which mostly is kept already, with what the
longer context has seen written over it. The scores are those of the model over the tokenizer's pieces:

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
from firstwords.lm.ngram import ROOT, UNKNOWN
from firstwords.nn.scorer import TokenScorer
from firstwords.text.tokenizer import Tokenizer

_CACHE_BYTES = 256 << 20
_FIRST = 2048  # rows for which room is made at once

Ints = NDArray[np.int64]
Singles = NDArray[np.float32]
Number = TypeVar("Number", np.float32, np.int64)


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
        self._most = max(1, cache_bytes // (4 * self.vocabulary + 12 * words))
        self._slots: Ints = np.full(len(self.model.parent), -1, dtype=np.int64)
        # Of each kept state: the model's own row over its words, the states after them, scores of the tokens.
        self._own: Singles = np.empty((0, words), dtype=np.float32)
        self._nexts: Ints = np.empty((0, words), dtype=np.int64)
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
            nodes = np.where(tokens == 0, self.model.begin, nexts[places, self._columns[tokens]])
        scores, _, places = self._look_up(nodes)
        return torch.from_numpy(scores[places]).to(self.device), torch.from_numpy(nodes)

    def reorder(self, state: Int[Tensor, " rows"], kept: Int[Tensor, " kept"]) -> Int[Tensor, " kept"]:
        """The nodes of the rows ``kept``."""
        return state[kept.cpu()]

    def _look_up(self, nodes: Ints) -> tuple[Singles, Ints, Ints]:
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
        """Keep these states and all to which they back off; False, and nothing done, if there is no room."""
        if self._used == 0:
            self._make_room(1)
            self._own[0], self._nexts[0] = self.model.root
            self._scores[:1] = self._of_tokens(self._own[:1])
            self._slots[ROOT], self._used = 0, 1
        levels = self._missing(nodes)
        first, end = self._used, self._used + sum(map(len, levels))
        if end > self._most:
            return False
        self._make_room(end)
        for level in levels:
            new = np.array(level, dtype=np.int64)
            rows = slice(self._used, self._used + len(new))
            below = self._slots[self.model.fail[new]]
            self._own[rows], self._nexts[rows] = self.model.rows_above(
                new, self._own[below], self._nexts[below]
            )
            self._slots[new] = np.arange(rows.start, rows.stop)
            self._used = rows.stop
        self._scores[first:end] = self._of_tokens(self._own[first:end])
        return True

    def _missing(self, nodes: Ints) -> list[list[int]]:
        """States that are not kept, once each: first those that back off to kept ones, then those above."""
        depth: dict[int, int] = {}
        levels: list[list[int]] = []
        for node in nodes.tolist():
            chain: list[int] = []
            while node not in depth and self._slots.item(node) < 0:
                chain.append(node)
                node = self.model.fail.item(node)
            above = depth.get(node, -1) + 1
            for level, missing in enumerate(reversed(chain), start=above):
                depth[missing] = level
                if level == len(levels):
                    levels.append([])
                levels[level].append(missing)
        return levels

    def _make_room(self, end: int) -> None:
        if end > len(self._own):
            size = min(self._most, max(end, 2 * len(self._own), _FIRST))
            self._own = _longer(self._own, size)
            self._nexts = _longer(self._nexts, size)
            self._scores = _longer(self._scores, size)

    def _of_tokens(self, own: Singles) -> Singles:
        """Rows over the model's words -> over the tokens."""
        return torch.from_numpy(own[:, self._columns] + self._share).log_softmax(dim=1).numpy()


def _longer(kept: NDArray[Number], rows: int) -> NDArray[Number]:
    """The same rows, and room for others."""
    found = np.empty((rows, kept.shape[1]), dtype=kept.dtype)
    found[: len(kept)] = kept
    return found
