"""A closed vocabulary as numbers for a search: known words are free, every other one costs ``PENALTY``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from firstwords.search.lexicon_rows import spell_words
from firstwords.text.tokenizer import Tokenizer

PENALTY = 6.0  # nats
BEAM = 8
KNOWN_WORDS = "known_words"  # name of their share of a score


@final
class KnownWords:
    """A ``WordModel`` that asks nothing of known words and a penalty of all others."""

    def __init__(self, words: int, penalty: float = PENALTY) -> None:
        self._free = np.zeros(words + 1)
        self._penalty = penalty

    def start(self) -> int:
        """No word depends on those before."""
        return 0

    def scores(self, history: int) -> NDArray[np.float64]:
        """(words + 1,) nats of each known word, that of the end first."""
        return self._free

    def oov(self, history: int) -> float:
        """Nats of a word that is not known."""
        return -self._penalty

    def advance(self, history: int, word: int) -> int:
        """The same again."""
        return history


def spelled_once(words: Iterable[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The words of a closed vocabulary -> their spellings.

    Words that the tokenizer spells alike count once; one that it cannot spell is left out.
    """
    return tuple(dict.fromkeys(tokens for tokens, _ in spell_words(sorted(words), tokenizer) if tokens))


def numbered(spellings: Sequence[Sequence[int]]) -> list[tuple[tuple[int, ...], int]]:
    """Spellings, the first of them word number 1, as a lexicon wants them."""
    return [(tuple(tokens), number) for number, tokens in enumerate(spellings, start=1)]
