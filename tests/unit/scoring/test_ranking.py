"""The area under the curve against pairs counted one by one and scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from firstwords.errors import UsageError
from firstwords.scoring.ranking import area_interval, area_under_curve


def test_by_hand() -> None:
    # good 3, 2; bad 2, 1: pairs 3>2, 3>1, 2=2, 2>1
    assert area_under_curve([3, 2, 2, 1], [True, True, False, False]) == 3.5 / 4
    assert area_under_curve([1, 2], [False, True]) == 1.0
    assert area_under_curve([1, 2], [True, False]) == 0.0
    assert area_under_curve([5, 5, 5], [True, False, True]) == 0.5
    assert area_under_curve([float("-inf"), 0.0], [False, True]) == 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_against_every_pair_and_scipy(items: list[tuple[int, bool]]) -> None:
    scores, good = [float(s) for s, _ in items], [g for _, g in items]
    right = [s for s, g in items if g]
    wrong = [s for s, g in items if not g]
    if not right or not wrong:
        with pytest.raises(UsageError, match="needs good and bad"):
            area_under_curve(scores, good)
        return
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(right, wrong)]
    found = area_under_curve(scores, good)
    assert found == pytest.approx(sum(pairs) / len(pairs))
    assert found == pytest.approx(mannwhitneyu(right, wrong).statistic / len(pairs))
    assert area_under_curve([-s for s in scores], good) == pytest.approx(1 - found)


def test_what_has_no_rank() -> None:
    with pytest.raises(UsageError, match="NaN"):
        area_under_curve([float("nan"), 1.0], [True, False])
    with pytest.raises(ValueError, match="1 scores for 2 facts"):
        area_under_curve([1.0], [True, False])


@pytest.mark.parametrize("voices", [3, 12])
def test_the_interval_is_that_of_drawn_voices_or_utterances(voices: int) -> None:
    """Against areas of the same draws, each written out in full."""
    generator = np.random.default_rng(1)
    good = [bool(x) for x in generator.integers(0, 2, size=24)]
    scores = [round(float(g + generator.normal()), 1) for g in good]
    speakers = [f"{n % voices:02}" for n in range(24)]
    found = area_interval(scores, good, speakers, replicates=200, seed=3)
    unit = "speaker" if voices == 12 else "utterance"
    names = sorted(set(speakers)) if unit == "speaker" else sorted(map(str, range(24)))
    assert (found.unit, found.groups) == (unit, len(names))
    draws = np.random.default_rng(3)
    areas: list[float] = []
    for _ in range(200):
        drawn = [names[n] for n in draws.integers(0, len(names), size=len(names))]
        rows = [n for name in drawn for n in range(24) if (speakers[n] if voices == 12 else str(n)) == name]
        if 0 < sum(good[n] for n in rows) < len(rows):
            areas.append(area_under_curve([scores[n] for n in rows], [good[n] for n in rows]))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(areas, [2.5, 97.5])))


def test_without_two_kinds_nothing_is_known() -> None:
    assert (area_interval([1.0], [True], ["a"]).low, area_interval([1.0], [True], ["a"]).high) == (0.0, 1.0)
