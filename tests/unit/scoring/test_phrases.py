"""Hits, misses and false alarms of phrases, counted by hand."""

from __future__ import annotations

import pytest

from firstwords.scoring.detection import Detections
from firstwords.scoring.phrases import count_phrases


def test_counts_of_a_small_corpus() -> None:
    pairs = [
        ("anna met ben", "anna met carl"),
        ("new york is new", "new york new york"),
        ("nothing here", "nothing hear"),
        ("hannah", "anna"),
    ]
    total, each = count_phrases(["anna", "ben", "carl", "new york", "zoe"], pairs)
    assert each == {
        "anna": Detections(hits=1, misses=0, false_alarms=1),
        "ben": Detections(hits=0, misses=1, false_alarms=0),
        "carl": Detections(hits=0, misses=0, false_alarms=1),
        "new york": Detections(hits=1, misses=0, false_alarms=1),
        "zoe": Detections(),
    }
    assert total == Detections(hits=2, misses=1, false_alarms=3)
    assert total.recall == pytest.approx(2 / 3)
    assert total.precision == pytest.approx(2 / 5)


def test_phrases_that_overlap_and_repeat() -> None:
    total, each = count_phrases(["a a", "a  a", ""], [("a a a", "a a")])
    assert each == {"a  a": Detections(hits=1, misses=1)}
    assert total == Detections(hits=1, misses=1)


def test_nothing_spoken_and_nothing_read() -> None:
    total, _ = count_phrases(["x"], [("a", "b"), ("", "")])
    assert (total.recall, total.precision) == (1.0, 1.0)
