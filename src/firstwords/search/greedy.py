"""Greedy CTC decoding: the most probable symbol of every frame, repeats merged, blanks removed.

frames      -  c  c  -  a  -  t  t      - is the blank
reading        c        a     t
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from firstwords.search.ctc_common import hypothesis_from_path, rows_of
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import Search
from firstwords.search.prefix_beam import check_numbers
from firstwords.tensors import Padded


@final
class GreedySearch(Search):
    """One reading per utterance, that of the most probable path."""

    def __init__(self, frame_seconds: float) -> None:
        self.frame_seconds = frame_seconds

    def __call__(self, log_probs: Padded) -> list[list[Hypothesis]]:
        return [[h] for h in greedy_search(log_probs, frame_seconds=self.frame_seconds)]


def greedy_search(log_probs: Padded, *, frame_seconds: float) -> list[Hypothesis]:
    """(B, T, V) natural-log probabilities -> one Hypothesis per utterance.

    ``score`` is the log-probability of the best path, which is at most that of its label sequence. A token
    lasts from the first to the last frame of its run. Its confidence is the mean posterior over that run:
    CTC posteriors are peaked and overconfident, so compare confidences, do not read them as probabilities.
    """
    best, path = log_probs.values.float().max(dim=-1)
    numbers = rows_of(Padded(best.unsqueeze(-1), log_probs.lengths))
    symbols: NDArray[np.int64] = path.cpu().numpy()
    found: list[Hypothesis] = []
    for row, scores in enumerate(numbers):
        check_numbers(scores, f"Row {row} of the batch")  # of several, not a number is the largest
        found.append(hypothesis_from_path(symbols[row, : len(scores)], scores[:, 0], frame_seconds))
    return found
