"""How well a list of phrases was heard in an evaluation: found, missed, and heard where nobody said them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from firstwords.report.evaluation import Evaluation
from firstwords.scoring.detection import Detections
from firstwords.scoring.phrases import count_phrases
from firstwords.search.spotted import listed_phrases
from firstwords.text.normalize import normalizer


def count_in(path: Path, evaluation: Evaluation) -> tuple[Detections, dict[str, Detections]]:
    """A file of phrases and what was recognised -> counts of all and of each, scored as words are."""
    phrases = listed_phrases(path, normalizer(evaluation.normalizer))
    return count_phrases(phrases, ((r.scored_reference, r.scored_hypothesis) for r in evaluation.results))


def phrase_words(total: Detections) -> str:
    """The counts as one sentence."""
    spoken = total.hits + total.misses
    read = total.hits + total.false_alarms
    return (
        f"Phrases: {total.hits:,} of {spoken:,} spoken were heard ({100 * total.recall:.1f} %); "
        f"{total.false_alarms:,} of {read:,} read were not spoken (false alarms)."
    )


def phrase_table(each: Mapping[str, Detections]) -> str:
    """Counts of each phrase as tab-separated lines, most false alarms first."""
    rows = sorted(each.items(), key=lambda item: (-item[1].false_alarms, -item[1].misses, item[0]))
    lines = [f"{phrase}\t{c.hits}\t{c.misses}\t{c.false_alarms}" for phrase, c in rows]
    return "\n".join(("phrase\thits\tmisses\tfalse alarms", *lines)) + "\n"
