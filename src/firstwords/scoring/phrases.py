"""How well phrases are found: hits, misses and false alarms of each, for lists of boosted names and terms.

    reference    anna met ben              hits 1 (anna), misses 1 (ben),
    hypothesis   anna met carl             false alarms 1 (carl, if it is in the list)

A phrase occurs where its words stand one after the other. Occurrences are counted by utterance: what the
hypothesis has fewer than the reference are misses, what it has more are false alarms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from firstwords.scoring.detection import Detections


def count_phrases(
    phrases: Sequence[str], pairs: Iterable[tuple[str, str]]
) -> tuple[Detections, dict[str, Detections]]:
    """Phrases and (reference, hypothesis) texts -> the counts of all together, and of each phrase.

    All texts normalized alike. Phrases that are the same word by word are counted once.
    """
    words = {tuple(phrase.split()): phrase for phrase in phrases if phrase.split()}
    found = {phrase: Detections() for phrase in words.values()}
    for reference, hypothesis in pairs:
        spoken, read = reference.split(), hypothesis.split()
        for wanted, phrase in words.items():
            expected, got = _occurrences(wanted, spoken), _occurrences(wanted, read)
            hits = min(expected, got)
            found[phrase] += Detections(hits, expected - hits, got - hits)
    return sum(found.values(), Detections()), found


def _occurrences(wanted: tuple[str, ...], words: list[str]) -> int:
    size = len(wanted)
    return sum(tuple(words[at : at + size]) == wanted for at in range(len(words) - size + 1))
