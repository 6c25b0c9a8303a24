"""How well phrases are found: hits, misses and false alarms of each, for lists of boosted names and terms.

    reference    anna met ben              hits 1 (anna), misses 1 (ben),
    hypothesis   anna met carl             false alarms 1 (carl, if it is in the list)

A phrase occurs where its words stand one after the other. Occurrences are counted by utterance: what the
hypothesis has fewer than the reference are misses, what it has more are false alarms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PhraseCounts:
    """Counts of one phrase or of many; ``PhraseCounts()`` is the zero of ``+``."""

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0

    def __add__(self, other: PhraseCounts) -> PhraseCounts:
        return PhraseCounts(
            self.hits + other.hits, self.misses + other.misses, self.false_alarms + other.false_alarms
        )

    @property
    def recall(self) -> float:
        """Share of the spoken phrases that were found; 1 where none was spoken."""
        spoken = self.hits + self.misses
        return self.hits / spoken if spoken else 1.0

    @property
    def precision(self) -> float:
        """Share of the phrases read that were spoken; 1 where none was read."""
        read = self.hits + self.false_alarms
        return self.hits / read if read else 1.0


def count_phrases(
    phrases: Sequence[str], pairs: Iterable[tuple[str, str]]
) -> tuple[PhraseCounts, dict[str, PhraseCounts]]:
    """Phrases and (reference, hypothesis) texts -> the counts of all together, and of each phrase.

    All texts normalized alike. Phrases that are the same word by word are counted once.
    """
    words = {tuple(phrase.split()): phrase for phrase in phrases if phrase.split()}
    found = {phrase: PhraseCounts() for phrase in words.values()}
    for reference, hypothesis in pairs:
        spoken, read = reference.split(), hypothesis.split()
        for wanted, phrase in words.items():
            expected, got = _occurrences(wanted, spoken), _occurrences(wanted, read)
            hits = min(expected, got)
            found[phrase] += PhraseCounts(hits, expected - hits, got - hits)
    return sum(found.values(), PhraseCounts()), found


def _occurrences(wanted: tuple[str, ...], words: list[str]) -> int:
    size = len(wanted)
    return sum(tuple(words[at : at + size]) == wanted for at in range(len(words) - size + 1))
