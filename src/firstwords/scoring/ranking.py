"""Does a score rank good above bad: the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firstwords.errors import UsageError


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
