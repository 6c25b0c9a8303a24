"""Targets of compression: what is understood, what is refused, what holds and by how much it does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.compression.target import METRICS, Limit, Measures, Target, shown
from firstwords.errors import UsageError

ORIGINAL: Measures = {"size": 9.6e6, "rtf": 0.02, "cer": 10.0, "parameters": 2.4e6}


def test_the_example_of_the_help() -> None:
    target = Target.parse("size<1MB, rtf<0.05, cer<=+1.0")
    assert target.limits == (
        Limit("size", 1e6, strict=True),
        Limit("rtf", 0.05, strict=True),
        Limit("cer", 1.0, strict=False, relative=True),
    )
    assert str(target) == "size<1.00MB, rtf<0.05, cer<=+1.00%"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("size<=500KB", 5e5),
        ("size<=500 kib", 512_000),
        ("size < 0.5 MB", 5e5),
        ("memory<100MiB", 104_857_600),
        ("parameters<1.5M", 1.5e6),
        ("macs<1G", 1e9),
        ("WER<=12%", 12.0),
        ("cer<=-0.5", -0.5),
    ],
)
def test_units(text: str, value: float) -> None:
    assert Target.parse(text).limits[0].value == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "what", "mend"),
    [
        ("", "is no limit", "commas"),
        ("size<1MB,", "is no limit", "commas"),
        ("size=1MB", "is no limit", "<="),
        ("size>1MB", "is no limit", "<="),
        ("sise<1MB", "no metric 'sise'", "size"),
        ("watts<3", "no metric 'watts'", "rtf"),
        ("size<1parsec", "no unit 'parsec'", "MiB"),
        ("rtf<5ms", "no unit 'ms'", "none"),
        ("size<+1MB", "only cer and wer", "Leave"),
        ("size<1MB, size<2MB", "stands twice", "one"),
        ("rtf<0", "nothing has", "more"),
        ("cer<=1e400", "is no limit", "commas"),
    ],
)
def test_what_is_refused(text: str, what: str, mend: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        Target.parse(text)
    assert mend in caught.value.mend


def test_points_are_those_above_the_original() -> None:
    target = Target.parse("cer<=+1.0")
    assert not target.broken({"cer": 11.0}, ORIGINAL)
    assert not target.broken({"cer": 0.1 * 110}, ORIGINAL)
    (broken,) = target.broken({"cer": 11.25}, ORIGINAL)
    assert str(broken) == "cer is 11.25%, 0.25 points above 11.00%"
    assert target.excess({"cer": 11.25}, ORIGINAL) == pytest.approx(math.log2(11.25 / 11))


def test_beyond_is_told_in_doublings() -> None:
    target = Target.parse("size<1MB, rtf<0.05")
    assert target.excess({"size": 2e6, "rtf": 0.05}, ORIGINAL) == pytest.approx(1.0, abs=1e-6)
    assert target.excess({"size": 4e6, "rtf": 0.1}, ORIGINAL) == pytest.approx(3.0)
    assert target.excess({"size": 1e6 - 1, "rtf": 0.01}, ORIGINAL) == 0.0


def test_what_nobody_can_keep_does_not_hide_the_rest() -> None:
    """A time that is 60 times too long, give or take a twentieth: 1.2 MB are nearer than 2.4 all the same."""
    target = Target.parse("size<0.9MB, rtf<0.0005")
    large: Measures = {"size": 2.4e6, "rtf": 0.0295}
    small: Measures = {"size": 1.2e6, "rtf": 0.031}
    assert target.excess(small, ORIGINAL) < target.excess(large, ORIGINAL)


def test_less_is_less_than() -> None:
    assert Target.parse("rtf<0.05").broken({"rtf": 0.05}, ORIGINAL)
    assert not Target.parse("rtf<=0.05").broken({"rtf": 0.05}, ORIGINAL)


def test_how_far_off_is_told() -> None:
    (broken,) = Target.parse("size<1MB").broken({"size": 1.25e6}, ORIGINAL)
    assert str(broken) == "size is 1.25MB, 250.00KB above 1.00MB, 25 %"


def test_what_was_not_measured_is_broken() -> None:
    target = Target.parse("memory<100MB, wer<=+1")
    told = [str(b) for b in target.broken({"wer": 3.0}, ORIGINAL)]
    assert told == [
        "memory was not measured (wanted memory<100.00MB)",
        "wer was not measured (wanted wer<=+1.00%)",
    ]
    assert math.isinf(target.excess({"wer": 3.0}, ORIGINAL))


@given(
    st.dictionaries(st.sampled_from(METRICS), st.floats(0, 1e10, allow_subnormal=False), min_size=1),
    st.floats(1e-3, 1e10),
)
def test_broken_and_excess_agree(measures: Measures, bound: float) -> None:
    for metric in METRICS:
        target = Target((Limit(metric, bound, strict=False),))
        assert bool(target.broken(measures, {})) == (target.excess(measures, {}) > 0)
        assert shown(metric, bound)


@given(st.text("sizertfcw<=+-.0123456789 MKBG,%", max_size=30))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        target = Target.parse(text)
    except UsageError:
        return
    assert Target.parse(str(target).lower()).limits[0].metric == target.limits[0].metric


def test_beyond_a_bound_of_nothing_the_nearest_is_told_from_the_others() -> None:
    """A model without errors, and "size<1MB, cer<=+0": 8 MB is not as near as 0.9."""
    target, original = Target.parse("size<1MB, cer<=+0"), {"size": 8e6, "cer": 0.0}
    large, small = ({"size": 8e6, "cer": 0.1}, {"size": 0.9e6, "cer": 0.3})
    assert target.excess(small, original) < target.excess(large, original) < math.inf
