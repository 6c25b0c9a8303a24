"""Readings of a prefix beam search with the times and confidences of their best alignments; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from firstwords.search.align import align_many
from firstwords.search.ctc_common import hypothesis_from_path
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.prefix_beam import Floats, PrefixReading


def timed_readings(
    found: Sequence[PrefixReading], log_probs: Floats, frame_seconds: float, *, helped: bool
) -> list[Hypothesis]:
    """What (T, V) natural-log probabilities may read as -> the same as Hypotheses, in the same order.

    Args:
        helped: scorers took part; the one reading of a beam of 1 is then often that of the best path.
    """
    if helped and len(found) == 1 and len(log_probs):
        # Where the reading is that of the best path, no alignment is better than that path.
        plain = hypothesis_from_path(log_probs.argmax(axis=1), log_probs.max(axis=1), frame_seconds)
        if plain.tokens == found[0].tokens:
            return [replace(plain, score=found[0].score, parts=found[0].parts)]
    alignments = align_many(log_probs, [reading.tokens for reading in found])
    return [
        Hypothesis(
            tokens=reading.tokens,
            score=reading.score,
            parts=reading.parts,
            times=tuple(frame * frame_seconds for frame in alignment.first),
            ends=tuple((frame + 1) * frame_seconds for frame in alignment.last),
            confidences=alignment.confidences,
        )
        for reading, alignment in zip(found, alignments, strict=True)
    ]
