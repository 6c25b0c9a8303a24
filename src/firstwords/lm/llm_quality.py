"""How good a transcript is likely to be, without a reference.

    quality = log P(text) / characters + weight * log(acoustic confidence)

The first term asks a language model whether people speak like this; per character, since its tokens are
longer where it knows the language. The second is what the recogniser was sure of. Higher is better; the
numbers of one language model and one recogniser can be compared with each other, with nothing else. How well
they tell good from bad is ``scoring/ranking.py``'s area under the curve, measured against true errors.
"""

from __future__ import annotations

import math

from firstwords.errors import UsageError
from firstwords.lm.llm_score import TextScore

_LEAST = 1e-6  # confidences below count as this


def transcript_quality(score: TextScore, confidence: float | None = None, *, weight: float = 0.0) -> float:
    """Score of a transcript, and how sure the recogniser was -> quality, in nats per character.

    An empty transcript gets the log-probability of its end.

    Args:
        confidence: in 0..1; needed where ``weight`` is not 0.
    """
    quality = score.log_prob / max(1, score.characters)
    if weight == 0.0:
        return quality
    if confidence is None:
        raise UsageError(
            "The acoustic confidence of this transcript is not known, but has a weight.",
            mend="Give confidence, or weight=0 to judge by the text alone.",
        )
    return quality + weight * math.log(max(confidence, _LEAST))
