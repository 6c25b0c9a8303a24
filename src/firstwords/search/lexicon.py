"""A word model asked letter by letter (lexicon_rows.py) in searches over tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.nn.scorer import TokenScorer
from firstwords.search.lexicon_rows import LexiconRows, Place, WordModel
from firstwords.search.words import WordBoundaries


@final
class LexiconScorer(TokenScorer[tuple[Place[Any], ...]]):
    """``LexiconRows`` as a scorer; the arguments are the same."""

    def __init__(
        self,
        model: WordModel[Any],
        spellings: Sequence[tuple[Sequence[int], int]],
        boundaries: WordBoundaries,
        *,
        letter: float = -1.0,
        look_ahead: Literal["best", "sum"] = "best",
    ) -> None:
        self.rows = LexiconRows(model, spellings, boundaries, letter=letter, look_ahead=look_ahead)

    def start(self, rows: int) -> tuple[Place[Any], ...]:
        return (self.rows.start(),) * rows

    def score(
        self, last: Int[Tensor, " rows"], state: tuple[Place[Any], ...]
    ) -> tuple[Float[Tensor, "rows vocabulary"], tuple[Place[Any], ...]]:
        tokens = last.tolist()
        after = tuple(self.rows.after(place, token) for place, token in zip(state, tokens, strict=True))
        rows = [torch.from_numpy(self.rows.row(place)) for place in after]
        if not rows:
            return torch.zeros(0, self.rows.boundaries.vocabulary, dtype=torch.float64), after
        return torch.stack(rows), after

    def reorder(self, state: tuple[Place[Any], ...], kept: Int[Tensor, " kept"]) -> tuple[Place[Any], ...]:
        return tuple(state[row] for row in kept.tolist())

    def join(self, states: Sequence[tuple[Place[Any], ...]]) -> tuple[Place[Any], ...]:
        return tuple(place for state in states for place in state)
