"""Phrase boosting (phrase_rows.py) in searches over tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.nn.scorer import TokenScorer
from firstwords.search.phrase_rows import Phrase, PhraseRows, spelled_phrases
from firstwords.search.words import WordBoundaries
from firstwords.text.tokenizer import Tokenizer


@final
class PhraseScorer(TokenScorer[Tensor]):
    """``PhraseRows`` as a scorer: its state is one number per row; the arguments are the same."""

    def __init__(
        self, phrases: Sequence[Phrase], boundaries: WordBoundaries, *, whole_words: bool = True
    ) -> None:
        self.rows = PhraseRows(phrases, boundaries, whole_words=whole_words)

    def start(self, rows: int) -> Tensor:
        return torch.zeros(rows, dtype=torch.int64)

    def score(
        self, last: Int[Tensor, " rows"], state: Tensor
    ) -> tuple[Float[Tensor, "rows vocabulary"], Tensor]:
        pairs = zip(state.tolist(), last.tolist(), strict=True)
        after = [self.rows.after(place, token) for place, token in pairs]
        rows = [torch.from_numpy(self.rows.row(place)) for place in after]
        if not rows:
            return torch.zeros(0, self.rows.boundaries.vocabulary, dtype=torch.float64), state
        return torch.stack(rows), torch.tensor(after, dtype=torch.int64)

    def reorder(self, state: Tensor, kept: Int[Tensor, " kept"]) -> Tensor:
        return state[kept.to("cpu")]


def phrase_scorer(
    phrases: Mapping[str, float | None], tokenizer: Tokenizer, *, whole_words: bool = True, scale: float = 1.0
) -> PhraseScorer:
    """Phrases as text with their weights, or None, where ``scale`` is for (``spelled_phrases``) -> scorer."""
    spelled = spelled_phrases(phrases, tokenizer, scale=scale)
    return PhraseScorer(spelled, WordBoundaries.of(tokenizer.pieces), whole_words=whole_words)
