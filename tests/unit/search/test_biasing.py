"""Phrase boosting: over a whole sentence exactly the complete occurrences count."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from firstwords.errors import SearchError
from firstwords.search.biasing import PhraseScorer, phrase_scorer
from firstwords.search.ctc_beam import prefix_readings
from firstwords.search.fusion import Weighted
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.phrase_rows import Phrase, phrases_unspelled, read_phrases, spelled_phrases
from firstwords.search.words import WordBoundaries
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.text.pieces import BYTES
from toy_scorers import sentence_score, sentences

LETTERS = WordBoundaries.of(["<blank>", "▁", "a", "b"])
PIECES = WordBoundaries.of(["<blank>", "▁a", "b", "▁c"])

CASES: list[tuple[list[Phrase], WordBoundaries, bool]] = [
    ([Phrase((2, 3), 1.0)], LETTERS, True),
    ([Phrase((2, 3), 1.0), Phrase((2, 3, 1, 2), 0.5), Phrase((2,), 2.0)], LETTERS, True),
    ([Phrase((3, 1, 2), 1.5), Phrase((2, 1, 3), 0.7)], LETTERS, True),
    ([Phrase((2, 3), 1.0)], LETTERS, False),
    ([Phrase((2, 2), 1.0), Phrase((2, 3, 2), 0.3), Phrase((3,), 2.5)], LETTERS, False),
    ([Phrase((2, 3, 3), 1.0), Phrase((3, 3, 2), 2.0), Phrase((3, 2), 0.5)], LETTERS, False),
    ([Phrase((1, 2), 1.0), Phrase((3,), 0.5), Phrase((1,), 0.2)], PIECES, True),
    ([Phrase((1, 2, 3), 1.0), Phrase((3, 2), 2.0)], PIECES, True),
    ([Phrase((2, 3), 1.0)], PIECES, False),
]


def complete(
    tokens: tuple[int, ...], phrases: list[Phrase], boundaries: WordBoundaries, whole: bool
) -> float:
    """By definition: every token in an occurrence earns the highest weight of the phrases it lies in."""
    earned = [0.0] * len(tokens)
    for phrase in phrases:
        size = len(phrase.tokens)
        for at in range(len(tokens) - size + 1):
            if tokens[at : at + size] != phrase.tokens:
                continue
            end = at + size
            begins = at == 0 or boundaries.parts[tokens[at - 1]] or boundaries.begins[tokens[at]]
            ends = end == len(tokens) or boundaries.parts[tokens[end]] or boundaries.begins[tokens[end]]
            if not whole or (begins and ends):
                earned[at:end] = [max(old, phrase.weight) for old in earned[at:end]]
    return sum(earned)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_every_sentence_earns_its_complete_phrases(case: int) -> None:
    phrases, boundaries, whole = CASES[case]
    scorer = PhraseScorer(phrases, boundaries, whole_words=whole)
    some = 0
    for tokens in sentences(4, 6):
        expected = complete(tokens, phrases, boundaries, whole)
        assert sentence_score(scorer, tokens) == pytest.approx(expected, abs=1e-9), tokens
        some += expected > 0
    assert some > 20


def test_bonus_is_lent_token_by_token_and_taken_back() -> None:
    """The drawing in the module's head: anna, and and."""
    tokenizer = GraphemeTokenizer(["<blank>", "▁", "a", "d", "n"])
    scorer = phrase_scorer({"anna": 1.0}, tokenizer)

    def bonuses(text: str) -> list[float]:
        state, last, found = scorer.start(1), 0, []
        for token in (*tokenizer.encode(text), 0):
            scores, state = scorer.score(torch.tensor([last]), state)
            found.append(float(scores[0, token]))
            last = token
        return found

    assert bonuses("anna ") == [1, 1, 1, 1, 0, 0]
    assert bonuses("and") == [1, 1, -2, 0]
    assert bonuses("ann") == [1, 1, 1, -3]
    assert bonuses("annan") == [1, 1, 1, 1, -4, 0]
    assert bonuses("nanna") == [0, 0, 0, 0, 0, 0]
    assert bonuses("na anna") == [0, 0, 0, 1, 1, 1, 1, 0]


def test_phrases_without_a_weight_have_one_by_their_length() -> None:
    tokenizer = GraphemeTokenizer(["<blank>", "▁", "a", "d", "n"])
    spelled = spelled_phrases({"anna": None, "and": 1.5, "an": None, "a": None}, tokenizer)
    assert [phrase.weight for phrase in spelled] == [0.5, 1.5, 0.125, 0.125]
    assert [phrase.weight for phrase in spelled_phrases({"anadan" * 2: None}, tokenizer, scale=1.2)] == [1.0]


def test_rows_go_their_own_ways() -> None:
    scorer = PhraseScorer([Phrase((2, 3), 1.0)], LETTERS)
    _, state = scorer.score(torch.tensor([0, 0]), scorer.start(2))
    scores, state = scorer.score(torch.tensor([2, 3]), state)
    assert scores.tolist() == [[-1, -1, -1, 1], [0, 0, 0, 0]]
    swapped, _ = scorer.score(torch.tensor([3, 3]), scorer.reorder(state, torch.tensor([1, 0])))
    assert swapped.tolist() == [[0, 0, 0, 0], [0, 0, -2, -2]]
    joined = scorer.join([scorer.start(1), state])
    assert scorer.score(torch.tensor([0, 3, 3]), joined)[0][:, 2].tolist() == [1, -2, 0]


def test_a_boosted_phrase_is_read() -> None:
    """The ear is undecided between ab and bb."""
    frames = np.log(np.array([[0.1, 0.1, 0.38, 0.42], [0.94, 0.02, 0.02, 0.02], [0.1, 0.05, 0.05, 0.8]]))
    scorer = PhraseScorer([Phrase((2, 3), 0.5)], LETTERS)
    assert prefix_readings(frames, CtcBeamConfig(beam=8))[0].tokens == (3, 3)
    best = prefix_readings(frames, CtcBeamConfig(beam=8), [Weighted("phrases", 1.0, scorer)])[0]
    assert best.tokens == (2, 3)
    assert best.parts["phrases"] == pytest.approx(1.0)


def test_phrases_that_cannot_be_are_errors() -> None:
    for tokens in ((), (0,), (2, 4)):
        with pytest.raises(SearchError, match="tokens 1 to 3"):
            PhraseScorer([Phrase(tokens, 1.0)], LETTERS)
    for weight in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(SearchError, match="not above 0"):
            PhraseScorer([Phrase((2,), weight)], LETTERS)
    with pytest.raises(SearchError, match="no letters"):
        phrase_scorer({" ": 1.0}, GraphemeTokenizer(["<blank>", "▁", "a"]))


def test_no_phrases_and_no_rows() -> None:
    scorer = PhraseScorer([], LETTERS)
    assert all(sentence_score(scorer, tokens) == 0.0 for tokens in sentences(4, 3))
    scores, state = scorer.score(torch.zeros(0, dtype=torch.int64), scorer.start(0))
    assert scores.shape == (0, 4)
    assert state.shape == (0,)


def test_phrases_with_letters_that_have_no_pieces_are_told() -> None:
    learned = GraphemeTokenizer.train(["anna bob"])
    found = phrases_unspelled({"anna": None, "北京": 1.0, "bob é": None}, learned)
    assert found == [
        "2 of 3 phrases hold letters that this recogniser has no pieces for, and will hardly be heard: "
        "北京, bob é."
    ]
    assert phrases_unspelled(["anna"], learned) == []
    assert phrases_unspelled(["anna", "北京"], GraphemeTokenizer(["<blank>", "▁", *BYTES])) == []
    many = phrases_unspelled([f"北{n}" for n in range(7)], learned)
    assert many[0].endswith("北3, 北4 and 2 more.")
    strict = GraphemeTokenizer.train(["anna"], GraphemeConfig(bytes=False))
    with pytest.raises(SearchError, match="The phrase 'bob' cannot be heard: 'b'"):
        phrases_unspelled(["anna", "bob"], strict)
    with pytest.raises(SearchError, match="The phrase 'bob' cannot be heard: 'b'"):
        phrase_scorer({"bob": 1.0}, strict)


def test_a_file_of_phrases(tmp_path: Path) -> None:
    path = tmp_path / "phrases.txt"
    path.write_bytes("\ufeffAnna Karenina\t2\r\n\n  \nTolstoy\ntolstoy\t0.5\nLevin\t \n".encode())
    assert read_phrases(path, str.lower) == {"anna karenina": 2.0, "tolstoy": 0.5, "levin": None}
    for text, said in (
        ("anna\tmuch\n", "line 1: the boost 'much' is no number above 0"),
        ("a\nanna\t-1\n", "line 2: the boost '-1'"),
        ("anna\tinf\n", "boost 'inf'"),
        ("anna\tnan\n", "boost 'nan'"),
        ("a\n!!!\t2\n", "line 2: nothing is left of '!!!'"),
        ("\n \n", "holds no phrases"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(SearchError, match=said):
            read_phrases(path, lambda t: t.replace("!", "").lower())
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SearchError, match="no UTF-8"):
        read_phrases(path, str.lower)
    with pytest.raises(SearchError, match="cannot be read"):
        read_phrases(tmp_path / "absent.txt", str.lower)
