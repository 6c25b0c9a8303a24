"""How good formatted text is: what people would read against the reference as it is written.

    formatted      texts as they are: case, marks and figures count (only white space is made alike)
    after stages   both after the scoring normalizer: what stages did to words, whatever their case and marks

The unformatted rates beside them are those of the recognised words before any stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firstwords.inference.transcript import Formatted
from firstwords.report.evaluation import Evaluation, Formatting
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.scoring.phrases import count_phrases
from firstwords.text.normalize import normalizer


@dataclass(frozen=True)
class _Pair:
    reference: str
    recognised: str
    formatted: str


def score_formatted(
    evaluation: Evaluation, formatted: Mapping[str, Formatted], phrases: Sequence[str] = ()
) -> Formatting | None:
    """An evaluation and what stages made of its utterances -> their figures; None where there were none.

    Args:
        formatted: id -> formatted transcript.
        phrases: of the stage "hotwords": counted before and after the stages.
    """
    pairs = [
        _Pair(r.reference, r.hypothesis, formatted[r.utterance.id].text)
        for r in evaluation.results
        if r.utterance.id in formatted
    ]
    if not pairs:
        return None
    written, scored = normalizer("formatted"), normalizer(evaluation.normalizer)
    stages = next(iter(formatted.values())).stages
    changes = Counter(change.stage for found in formatted.values() for change in found.changes)
    counts = None
    if phrases:
        said = [scored(phrase) for phrase in phrases]
        before, _ = count_phrases(said, [(scored(p.reference), scored(p.recognised)) for p in pairs])
        after, _ = count_phrases(said, [(scored(p.reference), scored(p.formatted)) for p in pairs])
        counts = (before, after)
    return Formatting(
        stages=stages,
        words=ErrorRate.total(word_errors(written(p.reference), written(p.formatted)) for p in pairs),
        graphemes=ErrorRate.total(grapheme_errors(written(p.reference), written(p.formatted)) for p in pairs),
        scored_words=ErrorRate.total(word_errors(scored(p.reference), scored(p.formatted)) for p in pairs),
        changes={stage: changes[stage] for stage in stages},
        phrases=counts,
        texts={name: found.text for name, found in formatted.items()},
    )
