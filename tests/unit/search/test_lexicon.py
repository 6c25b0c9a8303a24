"""Word models letter by letter: over a sentence they say what they say of its words."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from firstwords.errors import SearchError
from firstwords.search import lexicon_rows
from firstwords.search.ctc_beam import prefix_readings
from firstwords.search.fusion import Weighted
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.lexicon import LexiconScorer
from firstwords.search.lexicon_rows import UNKNOWN, spell_words
from firstwords.search.words import WordBoundaries
from firstwords.text.characters import GraphemeTokenizer
from toy_scorers import sentence_score, sentences

LETTERS = GraphemeTokenizer(["<blank>", "▁", "a", "b", "c"])
PIECES = WordBoundaries.of(["<blank>", "▁a", "b", "▁c", "▁"])


class WordBigram:
    """log P(next word | last) from a random table; row 0: start, column 0: end, last row: unknown."""

    def __init__(self, words: int, seed: int = 0) -> None:
        table = np.random.default_rng(seed).standard_normal((words + 2, words + 1)) * 1.5
        self.table = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
        self.asked = 0

    def start(self) -> int:
        return 0

    def scores(self, history: int) -> np.ndarray:
        self.asked += 1
        return self.table[history]

    def oov(self, history: int) -> float:
        return -7.5 - 0.1 * history

    def advance(self, history: int, word: int) -> int:
        return len(self.table) - 1 if word == UNKNOWN else word


def sentence(model: WordBigram, words: list[tuple[int, int]], letter: float) -> float:
    """(word or UNKNOWN, tokens) one after the other and the end -> what the model says."""
    history, total = 0, 0.0
    for word, length in words:
        total += model.oov(history) + letter * length if word == UNKNOWN else model.table[history, word]
        history = model.advance(history, word)
    return total + float(model.table[history, 0])


def test_many_words_are_kept_of_few_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by bytes, and what is forgotten is asked again."""
    words = ["ab", "a", "abc", "cb", "ca"]
    model = WordBigram(len(words))
    spelled = spell_words(words, LETTERS)
    boundaries = WordBoundaries.of(LETTERS.pieces)
    whole = LexiconScorer(model, spelled, boundaries)
    monkeypatch.setattr(lexicon_rows, "_FEWEST", 2)
    monkeypatch.setattr(lexicon_rows, "_KEPT_BYTES", 1)
    monkeypatch.setattr(lexicon_rows, "_KEPT", 3)
    small = LexiconScorer(model, spelled, boundaries)
    for tokens in sentences(5, 4)[::7]:
        assert sentence_score(small, tokens) == sentence_score(whole, tokens)
        assert len(small.rows._numbers) <= 2


@pytest.mark.parametrize("look_ahead", ["best", "sum"])
def test_every_sentence_of_letters_gets_what_its_words_get(look_ahead: Literal["best", "sum"]) -> None:
    words = ["ab", "a", "abc", "cb", "ca"]
    model = WordBigram(len(words))
    spelled = spell_words(words, LETTERS)
    assert spelled[0] == ((2, 3), 1)
    scorer = LexiconScorer(
        model, spelled, WordBoundaries.of(LETTERS.pieces), letter=-0.7, look_ahead=look_ahead
    )
    for tokens in sentences(5, 5):
        said = [
            (words.index(w) + 1 if w in words else UNKNOWN, len(w)) for w in LETTERS.decode(tokens).split()
        ]
        assert sentence_score(scorer, tokens) == pytest.approx(sentence(model, said, -0.7)), tokens


def test_every_sentence_of_pieces_gets_what_its_words_get() -> None:
    """Pieces that begin a word; a ▁ alone, too. The first piece of a sentence begins a word in any case."""
    spellings = [((1,), 1), ((1, 2), 2), ((3, 2, 2), 3), ((2, 2), 4)]
    numbers = dict(spellings)
    model = WordBigram(4, seed=1)
    scorer = LexiconScorer(model, spellings, PIECES, letter=-1.5)
    for tokens in sentences(5, 5):
        groups: list[list[int]] = [[]]
        for token in tokens:
            if token == 4:
                groups.append([])
                continue
            if token in (1, 3):
                groups.append([])
            groups[-1].append(token)
        said = [(numbers.get(tuple(g), UNKNOWN), len(g)) for g in groups if g]
        assert sentence_score(scorer, tokens) == pytest.approx(sentence(model, said, -1.5)), tokens


def test_what_is_lent_is_the_best_word_that_may_come() -> None:
    words = ["ab", "ac", "b"]
    model = WordBigram(3)
    model.table[:] = np.log([0.1, 0.2, 0.3, 0.4])
    spelled = spell_words(words, LETTERS)
    for kind, lent in (("best", 0.3), ("sum", 0.5)):
        scorer = LexiconScorer(model, spelled, WordBoundaries.of(LETTERS.pieces), look_ahead=kind)  # type: ignore[arg-type]
        first, state = scorer.score(torch.tensor([0]), scorer.start(1))
        assert first[0, 2:4].exp().tolist() == pytest.approx([lent, 0.4])
        assert first[0, 4] == pytest.approx(model.oov(0) - 1.0)  # no word begins with c
        assert first[0, 0].exp() == pytest.approx(0.1)
        second, state = scorer.score(torch.tensor([2]), state)
        assert second[0, 3:].exp().tolist() == pytest.approx([0.2 / lent, 0.3 / lent])
        assert second[0, 1] == pytest.approx(model.oov(0) - 1.0 - math.log(lent))  # "a" is no word


def test_a_model_is_asked_once_for_each_history() -> None:
    model = WordBigram(2)
    scorer = LexiconScorer(model, spell_words(["a", "b"], LETTERS), WordBoundaries.of(LETTERS.pieces))
    for tokens in sentences(4, 5):
        sentence_score(scorer, tokens)
    assert model.asked <= 4


def test_rows_go_their_own_ways() -> None:
    model = WordBigram(2)
    scorer = LexiconScorer(model, spell_words(["ab", "b"], LETTERS), WordBoundaries.of(LETTERS.pieces))
    _, state = scorer.score(torch.tensor([0, 0]), scorer.start(2))
    _, state = scorer.score(torch.tensor([2, 3]), state)
    swapped, _ = scorer.score(torch.tensor([1, 3]), scorer.reorder(state, torch.tensor([1, 0])))
    straight, _ = scorer.score(torch.tensor([3, 1]), state)
    torch.testing.assert_close(swapped, straight[[1, 0]])
    joined = scorer.join([state[:1], state[1:]])
    torch.testing.assert_close(scorer.score(torch.tensor([3, 1]), joined)[0], straight)
    assert scorer.score(torch.zeros(0, dtype=torch.int64), ())[0].shape == (0, 5)


def test_a_search_reads_the_words_of_the_lexicon() -> None:
    """The ear hears ac a little better than ab, which alone is a word."""
    frames = np.log(
        np.array(
            [[0.02, 0.02, 0.92, 0.02, 0.02], [0.9, 0.02, 0.03, 0.03, 0.02], [0.1, 0.05, 0.05, 0.35, 0.45]]
        )
    )
    model = WordBigram(1)
    scorer = LexiconScorer(model, spell_words(["ab"], LETTERS), WordBoundaries.of(LETTERS.pieces))
    assert prefix_readings(frames, CtcBeamConfig())[0].tokens == (2, 4)
    found = prefix_readings(frames, CtcBeamConfig(), [Weighted("words", 0.5, scorer)])[0]
    assert found.tokens == (2, 3)
    assert found.parts["words"] == pytest.approx(0.5 * sentence(model, [(1, 2)], -1.0))


def test_words_that_the_model_forbids_are_left_to_the_rest() -> None:
    model = WordBigram(2)
    model.table[:, 1] = -math.inf
    scorer = LexiconScorer(model, spell_words(["ab", "b"], LETTERS), WordBoundaries.of(LETTERS.pieces))
    assert sentence_score(scorer, (2, 3)) == -math.inf
    assert sentence_score(scorer, (2, 2)) == pytest.approx(sentence(model, [(UNKNOWN, 2)], -1.0))


def test_lexicons_that_cannot_be_are_errors() -> None:
    boundaries = WordBoundaries.of(LETTERS.pieces)
    model = WordBigram(2)
    for spelling in ([], [1], [0], [9]):
        with pytest.raises(SearchError, match="spells word 1"):
            LexiconScorer(model, [(spelling, 1)], boundaries)
    with pytest.raises(SearchError, match="spells word 0"):
        LexiconScorer(model, [([2], 0)], boundaries)
    with pytest.raises(SearchError, match="1 and 2 of the lexicon are spelled alike"):
        LexiconScorer(model, [([2], 1), ([2], 2)], boundaries)
    with pytest.raises(SearchError, match="begins a word"):
        LexiconScorer(model, [([2, 1], 1)], PIECES)
    short = LexiconScorer(model, [([2], 5)], boundaries)
    with pytest.raises(SearchError, match="3 numbers"):
        short.score(torch.tensor([0]), short.start(1))
