from __future__ import annotations

import numpy as np
import pytest

from firstwords.data.shapes import CONTEXT_SECONDS, UNIT_SECONDS, Shapes, pack, units_of


@pytest.mark.parametrize("batch_seconds", [1.0, 15.0, 40.0, 57.6, 60.0, 600.0])
def test_a_batch_stays_within_its_seconds(batch_seconds: float) -> None:
    shapes = Shapes(batch_seconds, 64)
    assert 1 <= len(shapes.areas) <= 3
    assert max(shapes.areas) * UNIT_SECONDS <= max(batch_seconds, 6 * UNIT_SECONDS)
    for seconds in np.linspace(0.1, 40, 500):
        rows = shapes.rows(float(seconds))
        assert rows == 1 or rows * seconds <= batch_seconds
        assert rows == 1 or any(area % rows == 0 for area in shapes.areas)
        assert rows <= 64
        assert shapes.padded_seconds(rows, float(seconds)) >= seconds + CONTEXT_SECONDS


def test_full_batches_have_few_numbers_of_frames() -> None:
    shapes = Shapes(60.0, 64)
    frames = set()  # after the front end: (T - 7) // 2 of each row
    for seconds in np.linspace(2.0, 28.0, 100):
        rows = shapes.rows(float(seconds))
        padded = shapes.padded_seconds(rows, float(seconds))
        frames.add(rows * ((round(padded * 100) - 7) // 2))
    assert frames >= {8 * area for area in shapes.areas}
    assert all(f % 8 == 0 for f in frames)
    assert len(frames) <= 8  # the few beside the areas are of batches with much empty room


def test_little_of_a_batch_is_empty() -> None:
    shapes = Shapes(40.0, 64)
    filled = []
    for seconds in np.linspace(2.0, 19.0, 200):
        rows = shapes.rows(float(seconds))
        filled.append(seconds / shapes.padded_seconds(rows, float(seconds)))
    assert np.mean(filled) > 0.92  # one area of 240 units alone: 0.87
    assert min(filled) > 0.8


def test_nearly_empty_rows_keep_a_length_of_their_own() -> None:
    shapes = Shapes(60.0, 64)
    assert shapes.rows(0.3) == 60
    assert shapes.padded_seconds(60, 0.3) == pytest.approx(units_of(0.3) * UNIT_SECONDS + CONTEXT_SECONDS)


def test_pack_takes_every_utterance_once_from_long_to_short() -> None:
    durations = np.random.default_rng(0).uniform(0.5, 20, 300).tolist()
    shapes = Shapes(60.0, 64)
    batches = pack(durations, shapes)
    assert [i for batch in batches for i in batch] == sorted(range(300), key=lambda n: -durations[n])
    assert all(len(b) * max(durations[i] for i in b) <= 60 for b in batches)
    assert all(len(b) == shapes.rows(max(durations[i] for i in b)) for b in batches[:-1])
    assert pack([], shapes) == []
