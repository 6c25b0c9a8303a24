"""Readings of a prefix beam search with the times and confidences of their best alignments; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from firstwords.search.align import align_pairs
from firstwords.search.ctc_common import hypothesis_from_path
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.prefix_beam import Floats, PrefixReading

_TOGETHER = 8  # utterances that are aligned at once


def timed_readings(
    found: Sequence[PrefixReading], log_probs: Floats, frame_seconds: float, *, helped: bool
) -> list[Hypothesis]:
    """What (T, V) natural-log probabilities may read as -> the same as Hypotheses, in the same order.

    Args:
        helped: scorers took part; the one reading of a beam of 1 is then often that of the best path.
    """
    return timed_batch([found], [log_probs], frame_seconds, helped=helped)[0]


def timed_batch(
    found: Sequence[Sequence[PrefixReading]], rows: Sequence[Floats], frame_seconds: float, *, helped: bool
) -> list[list[Hypothesis]]:
    """``timed_readings`` of many utterances."""
    timed: list[list[Hypothesis]] = [[] for _ in rows]
    left: list[int] = []  # utterances whose readings must be aligned
    for number, (readings, log_probs) in enumerate(zip(found, rows, strict=True)):
        if helped and len(readings) == 1 and len(log_probs):
            # Where the reading is that of the best path, no alignment is better than that path.
            plain = hypothesis_from_path(log_probs.argmax(axis=1), log_probs.max(axis=1), frame_seconds)
            if plain.tokens == readings[0].tokens:
                timed[number] = [replace(plain, score=readings[0].score, parts=readings[0].parts)]
                continue
        left.append(number)
    left.sort(key=lambda number: len(rows[number]))
    for first in range(0, len(left), _TOGETHER):
        group = [(number, reading) for number in left[first : first + _TOGETHER] for reading in found[number]]
        alignments = align_pairs([(rows[number], reading.tokens) for number, reading in group])
        for (number, reading), alignment in zip(group, alignments, strict=True):
            timed[number].append(
                Hypothesis(
                    tokens=reading.tokens,
                    score=reading.score,
                    parts=reading.parts,
                    times=tuple(frame * frame_seconds for frame in alignment.first),
                    ends=tuple((frame + 1) * frame_seconds for frame in alignment.last),
                    confidences=alignment.confidences,
                )
            )
    return timed
