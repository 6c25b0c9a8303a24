"""Does a score rank good above bad: the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstwords.errors import UsageError
from firstwords.scoring.significance import Interval, resampling_unit


def area_under_curve(scores: Sequence[float], good: Sequence[bool]) -> float:
    """Scores, and which of them belong to something good -> AUC in 0..1.

    The share of pairs (one good, one bad) in which the good one scores higher, ties counted half: the
    Mann-Whitney U statistic over the number of pairs (Hanley and McNeil, 1982, Radiology 143). 0.5 is chance,
    1 parts them wholly.
    """
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(good, dtype=bool)
    if len(values) != len(truth):
        raise ValueError(f"{len(values)} scores for {len(truth)} facts")
    if np.isnan(values).any():
        raise UsageError("A score is not a number (NaN): it has no rank.", mend="Leave that item out.")
    num_good = int(truth.sum())
    num_bad = len(truth) - num_good
    if not num_good or not num_bad:
        raise UsageError(
            f"The area under the curve needs good and bad examples, got {num_good} and {num_bad}.",
            mend="Use more utterances, or another line between good and bad.",
        )
    ordered = np.sort(values)
    # The mean of the ranks that equal values share, from 1.
    ranks = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2
    return float((ranks[truth].sum() - num_good * (num_good + 1) / 2) / (num_good * num_bad))


def area_interval(
    scores: Sequence[float],
    good: Sequence[bool],
    speakers: Sequence[str | None],
    *,
    level: float = 0.95,
    replicates: int = 2_000,
    seed: int = 0,
) -> Interval:
    """The same with who spoke -> percentile interval of the AUC, by drawing whole speakers or utterances.

    Draws that hold good or bad ones alone say nothing and are left out.
    """
    unit = resampling_unit(speakers)
    names = [
        name if unit == "speaker" and name is not None else str(place) for place, name in enumerate(speakers)
    ]
    # Equal scores stand in one column; a row of drawn columns is an AUC of its own.
    _, column = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    _, group = np.unique(np.asarray(names), return_inverse=True)
    groups, columns = int(group.max()) + 1, int(column.max()) + 1
    generator = np.random.default_rng(seed)
    truth = np.asarray(good, dtype=bool)
    areas: list[float] = []
    for _ in range(replicates):
        times = np.bincount(generator.integers(0, groups, size=groups), minlength=groups)[group]
        right = np.bincount(column, weights=times * truth, minlength=columns)
        wrong = np.bincount(column, weights=times * ~truth, minlength=columns)
        pairs = right.sum() * wrong.sum()
        if pairs:
            areas.append(float((right * (np.cumsum(wrong) - wrong / 2)).sum() / pairs))
    outside = 100 * (1 - level) / 2
    low, high = np.percentile(areas, [outside, 100 - outside]) if areas else (0.0, 1.0)
    return Interval(float(low), float(high), level, unit, groups, replicates)
