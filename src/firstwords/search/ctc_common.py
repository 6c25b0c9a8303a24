"""What greedy search, beam search and alignment share: runs of a frame path and the readings they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstwords.search.hypothesis import Hypothesis

if TYPE_CHECKING:  # all but rows_of is used without torch, too
    from firstwords.tensors import Padded

BLANK = 0


class Runs(NamedTuple):
    """Maximal runs of one non-blank symbol in a frame path; one entry per token."""

    tokens: NDArray[np.int64]
    first: NDArray[np.int64]  # frame of the start
    last: NDArray[np.int64]  # frame of the end, inclusive


def rows_of(batch: Padded) -> list[NDArray[np.float64]]:
    """(B, T, V) on any device -> one (T_i, V) float64 array per utterance, padding cut off."""
    values = batch.values.detach().to("cpu").double().numpy()
    lengths = batch.lengths.tolist()
    return [values[row, :length] for row, length in enumerate(lengths)]


def find_runs(path: NDArray[np.int64]) -> Runs:
    """One symbol per frame -> its runs.

    path 0 3 3 0 3 2   ->   tokens 3 3 2, first 1 4 5, last 2 4 5
    """
    if len(path) == 0:
        empty = np.zeros(0, dtype=np.int64)
        return Runs(empty, empty, empty)
    starts = np.flatnonzero(np.concatenate(([True], path[1:] != path[:-1])))
    ends = np.concatenate((starts[1:], [len(path)])) - 1
    kept = path[starts] != BLANK
    return Runs(path[starts][kept], starts[kept], ends[kept])


def confidences(scores: NDArray[np.float64], runs: Runs) -> NDArray[np.float64]:
    """Log-probability of the path's symbol per frame -> mean posterior over each run, in 0..1."""
    if len(runs.tokens) == 0:
        return np.zeros(0)
    sums = np.concatenate(([0.0], np.cumsum(np.exp(scores))))
    means = (sums[runs.last + 1] - sums[runs.first]) / (runs.last + 1 - runs.first)
    return np.clip(means, 0.0, 1.0)


def hypothesis_from_path(
    path: NDArray[np.int64], scores: NDArray[np.float64], frame_seconds: float
) -> Hypothesis:
    """A frame path with its log-probability per frame -> the reading, scored by this path alone."""
    runs = find_runs(path)
    score = float(scores.sum())
    return Hypothesis(
        tokens=tuple(runs.tokens.tolist()),
        score=score,
        parts={"ctc": score},
        times=tuple((runs.first * frame_seconds).tolist()),
        ends=tuple(((runs.last + 1) * frame_seconds).tolist()),
        confidences=tuple(confidences(scores, runs).tolist()),
    )
