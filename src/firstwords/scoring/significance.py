"""How sure an error rate is: bootstrap intervals, and whether two systems really differ.

Bootstrap: Bisani and Ney, 2004, ICASSP, "Bootstrap estimates for confidence intervals in ASR performance
evaluation". Whole speakers are drawn where there are ten or more of them, since the utterances of one speaker
are right or wrong together; else utterances, which is said (``unit``) because it is then too narrow for
other speakers.

Matched pairs: Gillick and Cox, 1989, ICASSP, "Some statistical issues in the comparison of speech recognition
algorithms" (MAPSSWE): the errors of both systems are compared in segments which two words that both got right
separate from their neighbors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from firstwords.scoring.alignment import align
from firstwords.scoring.error_rate import ErrorRate

Unit = Literal["speaker", "utterance"]
Floats = NDArray[np.float64]

SPEAKERS_NEEDED = 10
_BLOCK = 2_000_000  # draws held at once: 16 MB of indices


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval (``level`` of the replicates lie inside) and what was drawn."""

    low: float
    high: float
    level: float
    unit: Unit
    groups: int
    replicates: int

    def bounds(self, rate: ErrorRate) -> tuple[float, float]:
        """(low, high) to show beside the rate this interval belongs to.

        Without any error the bootstrap is blind: then it is 0 to 3 / symbols, the rule of three (Hanley and
        Lippman-Hand, 1983, JAMA 249).
        """
        if not rate.errors and rate.reference_length:
            return 0.0, min(1.0, 3 / rate.reference_length)
        return self.low, self.high


@dataclass(frozen=True)
class Difference:
    """Rate of the second system minus that of the first, same utterances; negative: the second is better.

    ``p_value`` is the two-sided bootstrap one, but never below what as many groups can show (``_floor``);
    ``interval`` is of the difference.
    """

    difference: float
    interval: Interval
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether chance alone would show such a difference in less than 1 - level of the cases."""
        return self.p_value < 1 - self.interval.level


def resampling_unit(speakers: Sequence[str | None]) -> Unit:
    """'speaker' when there are ten or more named ones."""
    return "speaker" if len({s for s in speakers if s is not None}) >= SPEAKERS_NEEDED else "utterance"


def bootstrap_interval(
    rates: Sequence[ErrorRate],
    speakers: Sequence[str | None] | None = None,
    *,
    level: float = 0.95,
    replicates: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Counts per utterance (and who spoke it) -> percentile interval of the corpus error rate."""
    unit, errors, lengths = _grouped([rates], speakers)
    drawn = [_rates(e[:, 0], n) for e, n in _replicates(errors, lengths, replicates, seed)]
    low, high = _percentiles(np.concatenate(drawn), level)
    return Interval(low, high, level, unit, len(lengths), replicates)


def paired_difference(
    first: Sequence[ErrorRate],
    second: Sequence[ErrorRate],
    speakers: Sequence[str | None] | None = None,
    *,
    level: float = 0.95,
    replicates: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Counts of two systems for the same utterances in the same order -> their difference and its p-value.

    Both systems are scored on the same draws, so what is hard for both cancels out.
    """
    if [r.reference_length for r in first] != [r.reference_length for r in second]:
        raise ValueError("the two systems were not scored on the same references")
    unit, errors, lengths = _grouped([first, second], speakers)
    drawn = np.concatenate(
        [_rates(e[:, 1] - e[:, 0], n) for e, n in _replicates(errors, lengths, replicates, seed)]
    )
    low, high = _percentiles(drawn, level)
    kept = drawn[np.isfinite(drawn)]
    # one is added to both so that a finite number of draws never claims p = 0
    below, above = int((kept <= 0).sum()), int((kept >= 0).sum())
    p_value = min(
        1.0, max(2 * (min(below, above) + 1) / (len(kept) + 1), _floor(errors[:, 1] - errors[:, 0]))
    )
    total = lengths.sum()
    observed = float((errors[:, 1] - errors[:, 0]).sum() / total) if total else 0.0
    return Difference(observed, Interval(low, high, level, unit, len(lengths), replicates), p_value)


def relative_gain(
    before: Sequence[ErrorRate],
    after: Sequence[ErrorRate],
    speakers: Sequence[str | None] | None = None,
    *,
    level: float = 0.95,
    replicates: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Counts of two systems for the same utterances -> interval of the share of errors that the second saves.

    1 - errors after / errors before, of the same draws; 0.2 is a fifth fewer errors, below 0 are more.
    """
    if [r.reference_length for r in before] != [r.reference_length for r in after]:
        raise ValueError("the two systems were not scored on the same references")
    unit, errors, lengths = _grouped([before, after], speakers)
    drawn = [1 - _rates(e[:, 1], e[:, 0]) for e, _ in _replicates(errors, lengths, replicates, seed)]
    low, high = _percentiles(np.concatenate(drawn), level)
    return Interval(low, high, level, unit, len(lengths), replicates)


def _floor(differences: Floats) -> float:
    """The least two-sided p that any paired test can reach: all that differ differ the same way.

    A bootstrap of one utterance draws that utterance ten thousand times and would be sure of anything;
    under the hypothesis that nothing differs, n signs agree with probability 2^(1 - n).
    """
    return min(1.0, 2.0 ** (1 - int(np.count_nonzero(differences))))


def _grouped(
    systems: Sequence[Sequence[ErrorRate]], speakers: Sequence[str | None] | None
) -> tuple[Unit, Floats, Floats]:
    """Counts -> errors (groups, systems), reference lengths (groups); an unnamed speaker is a group alone."""
    names: Sequence[str | None] = [None] * len(systems[0]) if speakers is None else speakers
    if any(len(rates) != len(names) for rates in systems):
        raise ValueError("counts and speakers must be of the same utterances")
    unit = resampling_unit(names)
    groups: dict[str | int, int] = {}
    place: list[int] = []
    for index, name in enumerate(names):
        key = name if unit == "speaker" and name is not None else index
        place.append(groups.setdefault(key, len(groups)))
    errors, lengths = np.zeros((len(groups), len(systems))), np.zeros(len(groups))
    for column, rates in enumerate(systems):
        np.add.at(errors[:, column], place, [r.errors for r in rates])
    np.add.at(lengths, place, [r.reference_length for r in systems[0]])
    return unit, errors, lengths


def _replicates(
    errors: Floats, lengths: Floats, replicates: int, seed: int
) -> Iterator[tuple[Floats, Floats]]:
    """Draw groups with replacement -> blocks of summed errors (block, systems) and lengths (block)."""
    count = len(lengths)
    if not count:
        raise ValueError("nothing to draw from: no utterances")
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // count)
    for start in range(0, replicates, block):
        rows = min(block, replicates - start)
        drawn = generator.integers(0, count, size=(rows, count))
        sums = np.stack([errors[:, c][drawn].sum(axis=1) for c in range(errors.shape[1])], axis=1)
        yield sums, lengths[drawn].sum(axis=1)


def _rates(errors: Floats, lengths: Floats) -> Floats:
    """Elementwise quotient; nan where a draw has no reference at all (it says nothing and is left out)."""
    return np.divide(errors, lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)


def _percentiles(drawn: Floats, level: float) -> tuple[float, float]:
    kept = drawn[np.isfinite(drawn)]
    if not len(kept):
        return 0.0, 0.0
    outside = 100 * (1 - level) / 2
    low, high = np.percentile(kept, [outside, 100 - outside])
    return float(low), float(high)


def matched_pairs(segments: Sequence[tuple[int, int]]) -> float:
    """Errors (first, second) of each segment -> two-sided p-value of equal means (normal approximation).

    With fewer than about 30 segments the normal approximation is coarse, and never below what as many
    segments can show; 1.0 where nothing differs.
    """
    differences = np.array([b - a for a, b in segments], dtype=np.float64)
    if len(differences) < 2 or not differences.any():
        return 1.0
    spread = float(differences.std(ddof=1))
    if spread == 0.0:  # every segment differs by the same amount: as sure as the number of them allows
        return _floor(differences)
    z = abs(float(differences.mean())) / (spread / math.sqrt(len(differences)))
    return max(math.erfc(z / math.sqrt(2)), _floor(differences))


def error_segments(
    reference: Sequence[Any], first: Sequence[Any], second: Sequence[Any]
) -> list[tuple[int, int]]:
    """One reference and two hypotheses -> (errors of the first, of the second) in each segment with errors.

    Two places of error are one segment unless two or more words between them are right in both systems.
    """
    counts = np.stack([_errors_by_slot(reference, h) for h in (first, second)])
    segments: list[tuple[int, int]] = []
    right_words = 2  # a segment may begin at once
    for slot in range(counts.shape[1]):
        here = int(counts[0, slot]), int(counts[1, slot])
        if not any(here):
            right_words += slot % 2  # odd slots are words, even ones the gaps between them
            continue
        if right_words >= 2:
            segments.append(here)
        else:
            segments[-1] = (segments[-1][0] + here[0], segments[-1][1] + here[1])
        right_words = 0
    return segments


def _errors_by_slot(reference: Sequence[Any], hypothesis: Sequence[Any]) -> NDArray[np.int64]:
    """Errors at each gap and word of the reference: gap 0, word 0, gap 1, word 1, ..., the last gap."""
    slots = np.zeros(2 * len(reference) + 1, dtype=np.int64)
    word = 0
    for expected, got in align(reference, hypothesis):
        if expected is None:
            slots[2 * word] += 1
        else:
            slots[2 * word + 1] += expected != got
            word += 1
    return slots
