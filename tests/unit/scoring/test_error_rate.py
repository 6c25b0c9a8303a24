"""Counts that add: hand-made alignments, laws, agreement with a textbook Levenshtein distance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.scoring.alignment import align
from firstwords.scoring.error_rate import (
    ErrorRate,
    grapheme_errors,
    sequence_errors,
    word_errors,
)

counts = st.builds(
    lambda s, d, i, hits: ErrorRate(s, d, i, s + d + hits), *[st.integers(min_value=0, max_value=99)] * 4
)
words = st.lists(st.sampled_from("abc"), max_size=8)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("the cat sat", "the cat sat", ErrorRate(0, 0, 0, 3)),
        ("the cat sat", "the bat sat", ErrorRate(1, 0, 0, 3)),
        ("the cat sat", "the sat", ErrorRate(0, 1, 0, 3)),
        ("the cat sat", "the cat it sat down", ErrorRate(0, 0, 2, 3)),
        ("", "noise", ErrorRate(0, 0, 1, 0)),
        ("word", "", ErrorRate(0, 1, 0, 1)),
        ("  two   words\n", "two words", ErrorRate(0, 0, 0, 2)),
    ],
)
def test_word_errors_by_hand(reference: str, hypothesis: str, expected: ErrorRate) -> None:
    assert word_errors(reference, hypothesis) == expected


def test_a_wrong_tone_mark_is_one_grapheme_and_spaces_count() -> None:
    assert grapheme_errors("ọ̀la", "ọ́la") == ErrorRate(1, 0, 0, 3)
    assert grapheme_errors("a b", "ab") == ErrorRate(0, 1, 0, 3)
    assert grapheme_errors("क्षि", "क्ष") == ErrorRate(1, 0, 0, 1)


def test_rates() -> None:
    rate = ErrorRate(1, 2, 3, 10)
    assert (rate.errors, rate.hits, rate.rate) == (6, 7, 0.6)
    assert rate.match_error_rate == pytest.approx(6 / 13)
    assert ErrorRate(0, 0, 3, 0).rate == float("inf")
    assert ErrorRate(0, 0, 3, 0).match_error_rate == 1.0
    assert (ErrorRate().rate, ErrorRate().match_error_rate) == (0.0, 0.0)


@pytest.mark.parametrize("wrong", [(-1, 0, 0, 1), (0, 0, -1, 1), (2, 1, 0, 2), (0, 1, 0, 0)])
def test_impossible_counts_are_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError):
        ErrorRate(*wrong)


@given(counts, counts, counts)
def test_addition_has_a_zero_and_any_order(a: ErrorRate, b: ErrorRate, c: ErrorRate) -> None:
    assert a + ErrorRate() == a
    assert (a + b) + c == a + (b + c) == ErrorRate.total([c, b, a])
    assert (a + b).errors == a.errors + b.errors


def levenshtein(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


@given(words, words)
def test_totals_are_the_levenshtein_distance(reference: list[str], hypothesis: list[str]) -> None:
    got = sequence_errors(reference, hypothesis)
    assert got.errors == levenshtein(reference, hypothesis)
    assert got.reference_length == len(reference)
    assert got.hits + got.substitutions + got.insertions == len(hypothesis)


@given(words, words)
def test_alignment_holds_both_sides_in_order(reference: list[str], hypothesis: list[str]) -> None:
    pairs = align(reference, hypothesis)
    assert [r for r, _ in pairs if r is not None] == reference
    assert [h for _, h in pairs if h is not None] == hypothesis
    assert (None, None) not in pairs


def test_no_word_can_pose_as_a_gap() -> None:
    assert word_errors("* <eps> 0", "* <eps> 0") == ErrorRate(0, 0, 0, 3)
    assert align([0, ""], [""]) == [(0, None), ("", "")]
