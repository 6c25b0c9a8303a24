"""Misheard names: what is replaced, what never is, and how it is told."""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.formatting.hotwords import HotwordLimits, Hotwords, _distance
from firstwords.formatting.stage import Formatter, Word


def heard(text: str, *sure: float) -> list[Word]:
    words = text.split()
    confidences = sure or (0.4,) * len(words)
    return [Word(w, float(n), n + 0.8, c) for n, (w, c) in enumerate(zip(words, confidences, strict=True))]


def corrected(text: str, phrases: list[str], *sure: float, **limits: float) -> str:
    made = Hotwords(phrases, HotwordLimits(**limits) if limits else None)  # pyright: ignore[reportArgumentType]
    (found,), _ = Formatter([made]).format([heard(text, *sure)])
    return " ".join(word.word for word in found)


@lru_cache(maxsize=10_000)
def distance(a: str, b: str) -> int:
    """Levenshtein by its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def test_the_distance_is_that_of_the_definition() -> None:
    generator = random.Random(1)
    for _ in range(200):
        a, b = ("".join(generator.choices("abc", k=generator.randint(0, 5))) for _ in range(2))
        right = distance(a, b)
        assert _distance(tuple(a), tuple(b), 99) == right
        assert _distance(tuple(a), tuple(b), right) == right
        assert _distance(tuple(a), tuple(b), right - 1) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from wagadugu to bobo", "from Ouagadougou to bobo"),  # 4 of 11 letters: see the limit below
        ("wag a dougou", "Ouagadougou"),
        ("ouagadougou", "ouagadougou"),  # right already, whatever its case
        ("in newyork now", "in New York now"),
        ("in nu york now", "in New York now"),
        ("(wagadougou), yes", "(Ouagadougou), yes"),
        ("", ""),
        ("nothing like it", "nothing like it"),
    ],
)
def test_what_is_replaced(text: str, expected: str) -> None:
    assert corrected(text, ["Ouagadougou", "New York"], threshold=0.4, unsure=0.8, shortest=4) == expected


def test_sure_words_are_never_touched() -> None:
    assert corrected("in wagadougou now", ["Ouagadougou"], 0.1, 0.8, 0.1) == "in wagadougou now"
    assert corrected("wa gadougou", ["Ouagadougou"], 0.9, 0.1) == "wa Ouagadougou"
    assert corrected("wa gadougou", ["Ouagadougou"], 0.1, 0.9) == "wa gadougou"


def test_the_threshold_is_a_share_of_the_phrase() -> None:
    # wagadugu -> ouagadougou: w -> ou is 2, o twice: 4 of 11 letters
    assert distance("wagadugu", "ouagadougou") == 4
    assert corrected("wagadugu", ["Ouagadougou"], threshold=0.37) == "Ouagadougou"
    assert corrected("wagadugu", ["Ouagadougou"], threshold=0.36) == "wagadugu"


def test_two_phrases_as_near_are_none() -> None:
    assert corrected("martin", ["Marlin", "Marvin"]) == "martin"
    assert corrected("martin", ["Marlin", "marlin"]) == "Marlin"  # the same letters: one phrase
    assert corrected("marlen", ["Marlin", "Marvin"]) == "Marlin"


def test_short_phrases_are_named_and_left_alone() -> None:
    made = Hotwords(["Ann", "Annabelle", " "], HotwordLimits(shortest=4))
    assert made.too_short == ("Ann", "")
    assert made.phrases == ("Annabelle",)
    assert corrected("amn", ["Ann"]) == "amn"
    assert corrected("ann", [], 0.1) == "ann"


def test_times_are_shared_by_letters_and_the_change_is_told() -> None:
    words = [Word("newyork", 1.0, 1.7, 0.3)]
    (found,), changes = Formatter([Hotwords(["New York"])]).format([words])
    assert found == [Word("New", 1.0, 1.3, 0.3), Word("York", 1.3, 1.7, 0.3)]
    assert [(c.stage, c.before, c.after, c.start, c.end) for c in changes] == [
        ("hotwords", "newyork", "New York", 1.0, 1.7)
    ]


def test_overlapping_candidates_do_not_both_win() -> None:
    assert corrected("anna bel anna belle", ["Annabelle"]) == "Annabelle Annabelle"


@pytest.mark.parametrize(
    ("spoken", "phrases"),
    [
        ("b a", ["b", "b a"]),  # a phrase within a phrase
        ("anna belle lou", ["Anna Belle", "Belle Lou"]),  # phrases that share a word
    ],
)
def test_what_is_right_is_left_alone(spoken: str, phrases: list[str]) -> None:
    assert corrected(spoken, phrases, threshold=0.5, shortest=2) == spoken


def test_a_phrase_of_which_a_part_was_sure_is_left_alone() -> None:
    words = [Word("new", 0.0, 0.5, 0.9), Word("york", 0.5, 1.0, 0.3)]
    (found,), changes = Formatter([Hotwords(["New York"], HotwordLimits(threshold=0.5))]).format([words])
    assert found == words
    assert not changes


def test_graphemes_count_not_code_points() -> None:
    # ọ̀ is one grapheme of three code points decomposed: one letter of five is wrong
    assert corrected("àwọ̀nla", ["Àwọnlá"], threshold=0.34) == "Àwọnlá"


@given(
    st.lists(st.tuples(st.text("abc.", min_size=1, max_size=5), st.integers(0, 10)), max_size=8),
    st.lists(st.text("abc ", min_size=1, max_size=9), max_size=4),
)  # fmt: skip
def test_laws(spoken: list[tuple[str, int]], phrases: list[str]) -> None:
    stage = Hotwords(phrases, HotwordLimits(0.5, 0.5, 2))
    words = [Word(text, n * 1.0, n + 0.5, sure / 10) for n, (text, sure) in enumerate(spoken)]
    (found,), changes = Formatter([stage]).format([words])
    assert [w for w in found if w.confidence >= 0.5] == [w for w in words if w.confidence >= 0.5]
    assert bool(found) == bool(words)
    assert all(a.start <= a.end <= b.start for a, b in pairwise(found))
    (again,), _ = Formatter([stage]).format([found])
    assert [w.word for w in again] == [w.word for w in found]
    assert len(changes) <= len(words)
