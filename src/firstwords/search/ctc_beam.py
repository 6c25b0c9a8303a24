"""CTC prefix beam search over batches: n-best readings with times (the search itself: prefix_beam.py)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import final

import numpy as np

from firstwords.search.ctc_common import rows_of
from firstwords.search.ctc_timed import timed_batch
from firstwords.search.fusion import Companion, Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, Search
from firstwords.search.prefix_beam import (
    Floats,
    PrefixBeam,
    PrefixReading,
    Shares,
    check_numbers,
    is_narrow,
)
from firstwords.search.prefix_narrow import side_by_side
from firstwords.tensors import Padded

_TOGETHER = 128  # prefixes that may live at once in searches side by side: what memory holds of scorers


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
        return self.many([log_probs])[0]

    def many(self, batches: Sequence[Padded]) -> list[list[list[Hypothesis]]]:
        """Of all batches together: the more searches wait for an answer, the more are answered at once."""
        each = [rows_of(log_probs) for log_probs in batches]
        every = list(chain.from_iterable(each))
        for row, values in enumerate(every):
            check_numbers(values, f"Row {row} of the batch")
        found = prefix_readings_of(every, self.config, self.scorers)
        best = [readings[: self.config.n_best] for readings in found]
        timed = iter(timed_batch(best, every, self.frame_seconds, helped=bool(self.scorers)))
        return [list(islice(timed, len(rows))) for rows in each]


def prefix_readings_of(
    batch: Sequence[Floats], config: CtcBeamConfig, scorers: Sequence[Weighted] = ()
) -> list[list[PrefixReading]]:
    """Natural-log probabilities (T, V) of utterances -> what each may read as, best first.

    With a ``blank_penalty`` the share of CTC is that of the penalised posteriors.
    """
    if not (scorers and is_narrow(config)):
        return [prefix_readings(log_probs, config, scorers) for log_probs in batch]
    count = max(1, _TOGETHER // config.beam)
    found: list[list[PrefixReading]] = []
    for first in range(0, len(batch), count):
        found += _side_by_side(batch[first : first + count], config, scorers)
    return found


def _side_by_side(
    batch: Sequence[Floats], config: CtcBeamConfig, scorers: Sequence[Weighted]
) -> list[list[PrefixReading]]:
    """``prefix_readings_of`` where the search is narrow, all utterances at once."""
    companion = Companion(scorers, len(batch), len(batch) * config.beam, batch[0].shape[1])
    beams = [PrefixBeam(config) for _ in batch]
    empty = np.zeros(1)
    searches = [beam.steps(log_probs, empty) for beam, log_probs in zip(beams, batch, strict=True)]
    for beam, living in zip(beams, side_by_side(searches, [1] * len(beams), companion), strict=True):
        beam.go_on_with(living)
    values = companion.ended()
    ends = np.cumsum([len(beam.nodes) for beam in beams]).tolist()
    return [
        beam.ended(Shares(companion.names, values[end - len(beam.nodes) : end]))
        for beam, end in zip(beams, ends, strict=True)
    ]


def prefix_readings(
    log_probs: Floats, config: CtcBeamConfig, scorers: Sequence[Weighted] = ()
) -> list[PrefixReading]:
    """The same for one utterance."""
    companion = Companion(scorers, 1, config.beam, log_probs.shape[1]) if scorers else None
    beam = PrefixBeam(config, companion)
    beam.read(log_probs)
    return beam.ended()


def prefix_beam(log_probs: Floats, config: CtcBeamConfig) -> list[tuple[tuple[int, ...], float]]:
    """``prefix_readings`` by CTC alone, as label sequences and their log-probability."""
    return [(reading.tokens, reading.score) for reading in prefix_readings(log_probs, config)]
