"""How well what can be known without a reference tells right transcripts from wrong ones.

    text         what the second pass's language model says of the transcript, a character (lm/llm_quality.py)
    confidence   how sure the recogniser was: log of the mean over the words
    both         their sum

Each is judged by the area under the curve against true errors: the share of pairs, one utterance right and
one with a word error, in which the right one scores higher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from firstwords.inference.second_pass import SecondPass
from firstwords.lm.llm_quality import transcript_quality
from firstwords.report.evaluation import Area, Evaluation, Quality
from firstwords.scoring.ranking import area_interval, area_under_curve


def score_quality(
    evaluation: Evaluation, second: SecondPass, confidences: Mapping[str, float]
) -> Quality | None:
    """An evaluation and the language model that chose -> qualities and what they tell; None without scores.

    Utterances without text are left out: there is nothing to judge.

    Args:
        confidences: id -> mean over the words of the transcript.
    """
    if second.choose is not None:
        return None
    heard = [(r, " ".join(r.hypothesis.split())) for r in evaluation.results]
    said = second.scores_of([text for _, text in heard])
    judged = [
        (r, score, confidences[r.utterance.id])
        for (r, text), score in zip(heard, said, strict=True)
        if text and score.tokens and r.utterance.id in confidences and math.isfinite(score.log_prob)
    ]
    if not judged:
        return None
    text = [transcript_quality(score) for _, score, _ in judged]
    both = [transcript_quality(score, sure, weight=1.0) for _, score, sure in judged]
    sure = [sure for _, _, sure in judged]
    right = [not r.words.errors for r, _, _ in judged]
    speakers = [r.utterance.speaker for r, _, _ in judged]
    areas: dict[str, Area] = {}
    if 0 < sum(right) < len(right):
        for name, values in (("text", text), ("confidence", sure), ("both", both)):
            area = area_under_curve(values, right)
            areas[name] = Area(area, area_interval(values, right, speakers))
    return Quality(
        scores={r.utterance.id: value for (r, _, _), value in zip(judged, text, strict=True)},
        confidences={r.utterance.id: value for r, _, value in judged},
        wrong=len(right) - sum(right),
        areas=areas,
    )
