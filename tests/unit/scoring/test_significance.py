"""Intervals and p-values against full enumeration, closed forms and hand-made segments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from firstwords.scoring.error_rate import ErrorRate
from firstwords.scoring.significance import (
    bootstrap_interval,
    error_segments,
    matched_pairs,
    paired_difference,
    relative_gain,
    resampling_unit,
)


def rates(*pairs: tuple[int, int]) -> list[ErrorRate]:
    return [ErrorRate(insertions=errors, reference_length=length) for errors, length in pairs]


FIVE = rates((0, 4), (1, 7), (3, 3), (2, 9), (6, 8))


def all_draws(systems: list[list[ErrorRate]]) -> np.ndarray:
    """Rate difference (or rate) of every one of the n**n resamples."""
    values = []
    for draw in itertools.product(range(len(systems[0])), repeat=len(systems[0])):
        length = sum(systems[0][i].reference_length for i in draw)
        errors = [sum(s[i].errors for i in draw) for s in systems]
        values.append((errors[-1] - (errors[0] if len(systems) == 2 else 0)) / length)
    return np.array(values)


def test_interval_equals_enumeration_of_all_resamples() -> None:
    exact = np.percentile(all_draws([FIVE]), [2.5, 97.5])
    got = bootstrap_interval(FIVE, replicates=200_000, seed=3)
    # 200 000 draws of 3125 equally likely ones: the percentile is a step of the exact table
    assert (got.low, got.high) == pytest.approx(tuple(exact), abs=0.01)
    assert (got.unit, got.groups) == ("utterance", 5)


def test_p_value_equals_enumeration() -> None:
    second = rates((1, 4), (2, 7), (3, 3), (2, 9), (5, 8))
    exact = all_draws([FIVE, second])
    expected = min(1.0, 2 * min((exact <= 0).mean(), (exact >= 0).mean()))
    got = paired_difference(FIVE, second, replicates=100_000)
    assert got.p_value == pytest.approx(expected, abs=0.01)
    assert got.difference == pytest.approx((13 - 12) / 31)
    assert not got.significant


def test_normal_approximation_on_many_utterances() -> None:
    """For n equal lengths the bootstrap spread is the standard error of the mean."""
    generator = np.random.default_rng(0)
    errors = generator.binomial(10, 0.3, size=2000)
    got = bootstrap_interval(rates(*[(int(e), 10) for e in errors]), replicates=4000)
    half = 1.96 * errors.std() / math.sqrt(2000) / 10
    mean = errors.mean() / 10
    assert (got.low, got.high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


def test_ten_speakers_are_drawn_whole() -> None:
    """Twelve speakers who are all right or all wrong: utterances would claim a far narrower interval."""
    speakers = [f"s{i % 12}" for i in range(240)]
    counts = rates(*[(5 if (i % 12) < 6 else 0, 5) for i in range(240)])
    by_speaker = bootstrap_interval(counts, speakers)
    by_utterance = bootstrap_interval(counts)
    assert (by_speaker.unit, by_speaker.groups) == ("speaker", 12)
    assert by_speaker.high - by_speaker.low > 3 * (by_utterance.high - by_utterance.low)
    assert resampling_unit([f"s{i % 9}" for i in range(99)]) == "utterance"
    assert resampling_unit([None] * 99) == "utterance"


def test_unnamed_speakers_are_groups_of_their_own() -> None:
    speakers = [f"s{i}" for i in range(10)] * 2 + [None, None]
    assert bootstrap_interval(rates(*[(1, 2)] * 22), speakers).groups == 12


def test_seed_decides_everything() -> None:
    once, again = bootstrap_interval(FIVE, seed=1), bootstrap_interval(FIVE, seed=1)
    assert once == again
    assert bootstrap_interval(FIVE, seed=2, replicates=50) != bootstrap_interval(FIVE, seed=1, replicates=50)


def test_a_clear_difference_is_significant_and_its_mirror_too() -> None:
    worse = rates(*[(5, 10)] * 40, *[(4, 10)] * 10)
    better = rates(*[(2, 10)] * 40, *[(4, 10)] * 10)
    got, mirror = paired_difference(worse, better), paired_difference(better, worse)
    assert got.difference == pytest.approx(-0.24)
    assert got.interval.high < 0
    assert got.significant
    assert mirror.difference == -got.difference
    assert mirror.p_value == got.p_value


def test_the_same_system_never_differs() -> None:
    got = paired_difference(FIVE, FIVE)
    assert (got.difference, got.p_value, got.significant) == (0.0, 1.0, False)


def test_draws_without_reference_words_are_left_out() -> None:
    mixed = bootstrap_interval(rates((1, 0), (2, 4)))
    assert math.isfinite(mixed.low)
    assert math.isfinite(mixed.high)
    nothing = bootstrap_interval(rates((1, 0), (0, 0)))
    assert (nothing.low, nothing.high) == (0.0, 0.0)


@pytest.mark.parametrize(("count", "sure"), [(1, False), (3, False), (5, False), (8, True)])
def test_few_utterances_are_never_sure(count: int, sure: bool) -> None:
    """One system right and the other wrong in each of ``count``: the sign test's p is the least there is."""
    got = paired_difference(rates(*[(3, 5)] * count, (1, 5)), rates(*[(0, 5)] * count, (1, 5)))
    assert got.p_value >= 2.0 ** (1 - count)
    assert got.significant is sure
    assert matched_pairs([(1, 0), (2, 0), (1, 0), (0, 0)]) >= 0.25


def test_without_an_error_the_upper_end_is_not_zero() -> None:
    right = rates(*[(0, 5)] * 4)
    interval = bootstrap_interval(right)
    assert (interval.low, interval.high) == (0.0, 0.0)
    assert interval.bounds(ErrorRate.total(right)) == (0.0, 3 / 20)
    assert bootstrap_interval(FIVE).bounds(ErrorRate.total(FIVE))[0] > 0
    assert interval.bounds(ErrorRate(reference_length=2)) == (0.0, 1.0)


def test_wrong_pairings_are_refused() -> None:
    with pytest.raises(ValueError, match="same references"):
        paired_difference(FIVE, FIVE[:4] + rates((1, 9)))
    with pytest.raises(ValueError, match="same utterances"):
        bootstrap_interval(FIVE, ["a"])
    with pytest.raises(ValueError, match="no utterances"):
        bootstrap_interval([])


def test_matched_pairs_by_hand() -> None:
    # differences 1, 1, -1, 2: mean 0.75, variance (0.0625*2 + 3.0625 + 1.5625) / 3 = 1.58333
    z = 0.75 / math.sqrt(1.5833333333333333 / 4)
    assert matched_pairs([(0, 1), (1, 2), (1, 0), (0, 2)]) == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert matched_pairs([(1, 1), (2, 2)]) == 1.0
    assert matched_pairs([]) == 1.0
    assert matched_pairs([(1, 0)] * 11) == pytest.approx(2 * 0.5**11)


@pytest.mark.parametrize(
    ("first", "second", "segments"),
    [
        ("a b c d e f", "a b c d e f", []),
        ("x b c d e f", "a b c d e y", [(1, 0), (0, 1)]),  # four right words between
        ("x b d e f", "a y c d e f", [(2, 1)]),  # x, y and the lost c lie closer than two right words
        ("x b c y e f", "a b c d e f", [(1, 0), (1, 0)]),  # b c are two right words
        ("a b z c d e f", "a b c d e f z", [(1, 0), (0, 1)]),  # insertions sit in the gaps
        ("", "a b c d e f", [(6, 0)]),
    ],
)
def test_error_segments(first: str, second: str, segments: list[tuple[int, int]]) -> None:
    assert error_segments(["a", "b", "c", "d", "e", "f"], first.split(), second.split()) == segments


def test_relative_gain_equals_enumeration() -> None:
    before, after = rates((2, 4), (3, 7), (1, 3), (4, 9)), rates((1, 4), (3, 7), (0, 3), (1, 9))
    gains = [
        1 - sum(after[i].errors for i in draw) / sum(before[i].errors for i in draw)
        for draw in itertools.product(range(4), repeat=4)
    ]
    got = relative_gain(before, after, replicates=200_000)
    assert (got.low, got.high) == pytest.approx(tuple(np.percentile(gains, [2.5, 97.5])), abs=0.01)
    assert got.low < 0.5 < got.high  # 5 errors of 10 saved
    half = relative_gain(rates((2, 4), (2, 5)), rates((1, 4), (1, 5)))
    assert (half.low, half.high) == (0.5, 0.5)
    with pytest.raises(ValueError, match="same references"):
        relative_gain(FIVE, FIVE[::-1])
    free = relative_gain(rates((0, 4)), rates((1, 4)))  # no errors to save: nothing can be said
    assert (free.low, free.high) == (0.0, 0.0)
