"""The area under the curve against pairs counted one by one and scipy."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from firstwords.errors import UsageError
from firstwords.scoring.ranking import area_under_curve


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
