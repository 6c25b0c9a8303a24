"""Greedy search: merging, times, confidences, empty input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from firstwords.search.ctc_common import find_runs
from firstwords.search.greedy import GreedySearch, greedy_search
from firstwords.search.search import CtcBeamConfig, GreedyConfig, build_search
from firstwords.tensors import Padded


def posteriors(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).log()[None]


SPOKEN = posteriors(
    [0.8, 0.1, 0.1],
    [0.1, 0.6, 0.3],
    [0.2, 0.7, 0.1],
    [0.9, 0.05, 0.05],
    [0.1, 0.5, 0.4],
    [0.1, 0.1, 0.8],
)  # - 1 1 - 1 2


def test_repeats_merge_and_blanks_part() -> None:
    (found,) = greedy_search(Padded(SPOKEN, torch.tensor([6])), frame_seconds=0.04)
    assert found.tokens == (1, 1, 2)
    assert found.times == pytest.approx((0.04, 0.16, 0.20))
    assert found.ends == pytest.approx((0.12, 0.20, 0.24))
    assert found.confidences == pytest.approx((0.65, 0.5, 0.8))
    assert found.score == pytest.approx(float(np.log([0.8, 0.6, 0.7, 0.9, 0.5, 0.8]).sum()))
    assert found.parts == {"ctc": found.score}


def test_padding_is_not_read() -> None:
    (found,) = greedy_search(Padded(SPOKEN, torch.tensor([3])), frame_seconds=0.04)
    assert found.tokens == (1,)


def test_no_frames_and_no_utterances() -> None:
    nothing = Padded(torch.zeros(1, 0, 3), torch.tensor([0]))
    (found,) = greedy_search(nothing, frame_seconds=0.04)
    assert (found.tokens, found.score, found.times, found.confidences) == ((), 0.0, (), ())
    (found,) = greedy_search(Padded(SPOKEN, torch.tensor([0])), frame_seconds=0.04)
    assert found.tokens == ()
    empty = Padded(torch.zeros(0, 5, 3), torch.zeros(0, dtype=torch.int64))
    assert greedy_search(empty, frame_seconds=0.04) == []


def test_search_returns_one_reading_per_utterance() -> None:
    search = GreedySearch(0.04)
    found = search(Padded(SPOKEN.repeat(2, 1, 1), torch.tensor([6, 1])))
    assert [[h.tokens for h in row] for row in found] == [[(1, 1, 2)], [()]]


def test_runs() -> None:
    runs = find_runs(np.array([0, 3, 3, 0, 3, 2]))
    assert runs.tokens.tolist() == [3, 3, 2]
    assert runs.first.tolist() == [1, 4, 5]
    assert runs.last.tolist() == [2, 4, 5]


def test_build_search_by_kind() -> None:
    batch = Padded(SPOKEN, torch.tensor([6]))
    greedy = build_search(GreedyConfig(), 0.04)(batch)
    beam = build_search(CtcBeamConfig(beam=4), 0.04)(batch)
    assert len(greedy[0]) == 1
    assert len(beam[0]) == 4
