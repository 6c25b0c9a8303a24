"""An n-gram model over words as what a lexicon asks (lexicon_rows.py), and the words that can be spelled."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from firstwords.errors import CheckpointError, TextError
from firstwords.lm.ngram import END, SPECIAL, UNKNOWN, NgramModel
from firstwords.lm.writing import Missing, unknown_words, unseen_pieces
from firstwords.search.lexicon_rows import WordModel
from firstwords.search.words import WordBoundaries
from firstwords.text.pieces import BYTES, SPACE
from firstwords.text.tokenizer import Tokenizer

_MEND = "Make it from text of the language that the recogniser was trained on."
_SPECIALS = len(SPECIAL)  # <unk>, <s>, </s> come before the words


@final
class WordNgram(WordModel[int]):
    """Words are numbered from 1 in the order of the model's list; a history is a state of the model."""

    def __init__(self, model: NgramModel) -> None:
        self.model = model

    def start(self) -> int:
        return self.model.begin

    def scores(self, history: int) -> NDArray[np.floating]:
        row = self.model.rows(np.array([history]))[0][0]
        return np.concatenate([row[[END]], row[_SPECIALS:]])

    def oov(self, history: int) -> float:
        return float(self.model.advance(np.array([history]), np.array([UNKNOWN]))[0][0])

    def advance(self, history: int, word: int) -> int:
        known = UNKNOWN if word < 1 else word + _SPECIALS - 1
        return int(self.model.advance(np.array([history]), np.array([known]))[1][0])


Spellings = list[tuple[tuple[int, ...], int]]


def word_lexicon(
    model: NgramModel, tokenizer: Tokenizer, name: str
) -> tuple[WordNgram, Spellings, WordBoundaries]:
    """A word model -> the first arguments of ``LexiconRows`` and ``LexiconScorer``; ``name`` is for errors.

    Words that the tokenizer cannot spell, or spells as an earlier one, are unknown ones to the search.
    """
    boundaries = WordBoundaries.of(tokenizer.pieces)
    spellings = _spellings(model.words[_SPECIALS:], tokenizer, boundaries)
    if not spellings:
        raise CheckpointError(
            f"{name} holds no word that this recogniser's tokenizer can spell.",
            mend=_MEND,
        )
    letters = [bool(p) and p not in BYTES and p != SPACE for p in tokenizer.pieces[1:]]
    in_letters = (all(letters[token - 1] for token in tokens) for tokens, _ in spellings)
    if any(letters) and not any(in_letters):
        strange = model.words[spellings[0][1] + _SPECIALS - 1]
        raise CheckpointError(
            f"{name} holds no word in the letters of this recogniser (not '{strange}', for one): it is of "
            "another vocabulary, or of text that was written otherwise.",
            mend=_MEND,
        )
    return WordNgram(model), spellings, boundaries


def strange_words(
    model: NgramModel, spellings: Spellings, tokenizer: Tokenizer, known: Collection[str]
) -> list[Missing]:
    """What a word model and a recogniser do not know of each other.

    Args:
        spellings: from ``word_lexicon``.
        known: words that the recogniser writes, as far as it is known; empty: any.
    """
    letters = {n for n, piece in enumerate(tokenizer.pieces) if n and piece not in BYTES and piece != SPACE}
    written = {number for tokens, number in spellings if letters.issuperset(tokens)}
    words = model.words[_SPECIALS:]
    return [
        unseen_pieces(tokenizer, {token for tokens, _ in spellings for token in tokens}),
        Missing(
            [word for number, word in enumerate(words, start=1) if number not in written],
            len(words),
            "{count} of its {total} words have letters that this recogniser does not write",
        ),
        unknown_words(model.id_of, known),
    ]


def _spellings(words: Sequence[str], tokenizer: Tokenizer, boundaries: WordBoundaries) -> Spellings:
    found: dict[tuple[int, ...], int] = {}
    for number, word in enumerate(words, start=1):
        try:
            ids = tokenizer.encode(word)
        except TextError:  # only a vocabulary without bytes
            continue
        tokens = tuple(token for token in ids if not boundaries.parts[token])
        if tokens and not any(boundaries.begins[token] for token in tokens[1:]):
            found.setdefault(tokens, number)
    return list(found.items())
