"""CTC prefix beam search over batches: n-best readings with times (the search itself: prefix_beam.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from firstwords.search.ctc_common import rows_of
from firstwords.search.ctc_timed import timed_readings
from firstwords.search.fusion import Companion, Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, Search
from firstwords.search.prefix_beam import Floats, PrefixBeam, PrefixReading, check_numbers
from firstwords.tensors import Padded


@final
class CtcBeamSearch(Search):
    """N-best readings; times and confidences come from the best alignment of each reading.

    Args:
        scorers: language models and what else needs no audio; ``parts`` show their weighted shares.
    """

    def __init__(self, config: CtcBeamConfig, frame_seconds: float, scorers: Sequence[Weighted] = ()) -> None:
        self.config = config
        self.frame_seconds = frame_seconds
        self.scorers = tuple(scorers)

    def __call__(self, log_probs: Padded) -> list[list[Hypothesis]]:
        return [self._search(values, row) for row, values in enumerate(rows_of(log_probs))]

    def _search(self, log_probs: Floats, row: int) -> list[Hypothesis]:
        check_numbers(log_probs, f"Row {row} of the batch")
        found = prefix_readings(log_probs, self.config, self.scorers)[: self.config.n_best]
        return timed_readings(found, log_probs, self.frame_seconds, helped=bool(self.scorers))


def prefix_readings(
    log_probs: Floats, config: CtcBeamConfig, scorers: Sequence[Weighted] = ()
) -> list[PrefixReading]:
    """(T, V) natural-log probabilities -> what they may read as, best first.

    With a ``blank_penalty`` the share of CTC is that of the penalised posteriors.
    """
    companion = Companion(scorers, 1, config.beam, log_probs.shape[1]) if scorers else None
    beam = PrefixBeam(config.beam, companion)
    beam.read(log_probs, config)
    return beam.ended()


def prefix_beam(log_probs: Floats, config: CtcBeamConfig) -> list[tuple[tuple[int, ...], float]]:
    """``prefix_readings`` by CTC alone, as label sequences and their log-probability."""
    return [(reading.tokens, reading.score) for reading in prefix_readings(log_probs, config)]
