"""Error rates that add: word, grapheme, character and label errors as counts.

    WER  words = what white space separates
    CER  grapheme clusters, spaces count (a forgotten space is a fault)
    LER  label error rate: the model's own pieces, or any other sequence (``sequence_errors``)
    MER  match error rate: errors / (hits + errors), always within 0..1 (Morris et al., 2004)

A corpus rate is the sum of the errors over the sum of the reference lengths, never a mean of rates.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from firstwords.scoring.alignment import align
from firstwords.text.graphemes import graphemes


@dataclass(frozen=True)
class ErrorRate:
    """Counts of one or many utterances; ``ErrorRate()`` is the zero of ``+``.

    Args:
        reference_length: symbols of the reference, in the same unit as the errors.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0

    def __post_init__(self) -> None:
        if min(self.substitutions, self.deletions, self.insertions, self.reference_length) < 0:
            raise ValueError(f"counts cannot be negative: {self}")
        if self.substitutions + self.deletions > self.reference_length:
            raise ValueError(f"more substitutions and deletions than reference symbols: {self}")

    def __add__(self, other: ErrorRate) -> ErrorRate:
        return ErrorRate(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_length + other.reference_length,
        )

    @classmethod
    def total(cls, rates: Iterable[ErrorRate]) -> ErrorRate:
        """Sum of many; of none, the zero."""
        return sum(rates, ErrorRate())

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def hits(self) -> int:
        return self.reference_length - self.substitutions - self.deletions

    @property
    def rate(self) -> float:
        """Errors per reference symbol, may exceed 1; of an empty reference 0 if no errors, else infinite."""
        if self.reference_length:
            return self.errors / self.reference_length
        return float("inf") if self.errors else 0.0

    @property
    def match_error_rate(self) -> float:
        """Share of the alignment's pairs that are wrong, 0..1; 0 where there is nothing at all."""
        return self.errors / (self.hits + self.errors) if self.hits + self.errors else 0.0


def sequence_errors(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> ErrorRate:
    """Two sequences of any symbols -> counts."""
    substitutions = deletions = insertions = 0
    for expected, got in align(reference, hypothesis):
        if expected is None:
            insertions += 1
        elif got is None:
            deletions += 1
        elif expected != got:
            substitutions += 1
    return ErrorRate(substitutions, deletions, insertions, len(reference))


def word_errors(reference: str, hypothesis: str) -> ErrorRate:
    """Two texts -> counts of words (separated by white space)."""
    return sequence_errors(reference.split(), hypothesis.split())


def grapheme_errors(reference: str, hypothesis: str) -> ErrorRate:
    """Two texts -> counts of grapheme clusters, spaces among them: the CER of this project."""
    return sequence_errors(graphemes(reference), graphemes(hypothesis))
