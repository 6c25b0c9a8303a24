"""Small scorers of next tokens, for tests of searches."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from firstwords.nn.scorer import TokenScorer


class Context(NamedTuple):
    """The token before the last one, and how many rows of tokens went by."""

    before: Tensor
    length: Tensor


@final
class TrigramScorer(TokenScorer[Context]):
    """log P(next | before, last), normalized over tokens and the end, from a random table."""

    def __init__(self, vocabulary: int, seed: int, spread: float = 1.5) -> None:
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(vocabulary, vocabulary, vocabulary, generator=generator, dtype=torch.float64)
        self.table = (table * spread).log_softmax(-1)
        self.asked = 0  # rows

    def start(self, rows: int) -> Context:
        return Context(torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64))

    def score(self, last: Tensor, state: Context) -> tuple[Tensor, Context]:
        self.asked += len(last)
        return self.table[state.before, last], Context(last, state.length + 1)

    def reorder(self, state: Context, kept: Tensor) -> Context:
        return Context(state.before[kept], state.length[kept])

    def log_prob(self, tokens: tuple[int, ...], *, end: bool = True) -> float:
        """Of the whole sentence, from the table itself."""
        padded = (0, 0, *tokens, *([0] if end else []))
        return sum(
            float(self.table[a, b, c]) for a, b, c in zip(padded, padded[1:], padded[2:], strict=False)
        )


def sentence_score(scorer: TokenScorer[Any], tokens: tuple[int, ...]) -> float:
    """What a scorer says of a sentence and its end, asked token by token."""
    state, total, last = scorer.start(1), 0.0, 0
    for token in (*tokens, 0):
        scores, state = scorer.score(torch.tensor([last]), state)
        total += float(scores[0, token])
        last = token
    return total


def sentences(vocabulary: int, longest: int) -> list[tuple[int, ...]]:
    """All token sequences up to a length."""
    return [s for n in range(longest + 1) for s in itertools.product(range(1, vocabulary), repeat=n)]
