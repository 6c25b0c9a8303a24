"""How sure a model must be of a text before it counts as speech.

A recogniser answers a helicopter with a word now and then, but not with the confidence it has in speech. What
that is differs from model to model (CTC posteriors are no probabilities), so the gate is measured whenever a
model is published: on its dev utterances, and on non-speech.

    confidence  0 ────── x ─ x ─────────|────────── o ─ o oo ooo ── 1
                         answers to noise  gate      dev utterances

The gate may cost hardly any word that was right, and lies half-way between there and what noise reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from firstwords.data.places import Item

MAY_COST = 0.005  # of the words that were right on dev
_PROBES = 128  # stretches of non-speech
_PROBE_SECONDS = (0.5, 10.0)


class Heard(NamedTuple):
    """One decoded utterance: how sure the model is of it, and how many of its words are right."""

    confidence: float  # ``SpeechGate.sureness``
    right: int


def choose_gate(speech: Iterable[Heard], noise: Iterable[float]) -> float:
    """Answers to dev utterances and sureness of answers to noise -> the threshold, 0 (none) to 1.

    Args:
        speech: utterances that got any text.
        noise: non-speech that got any text.
    """
    answers = sorted(speech)
    total = sum(heard.right for heard in answers)
    if not total:
        return 0.0
    lost = np.cumsum([heard.right for heard in answers])
    first = int(np.searchsorted(lost, MAY_COST * total, side="right"))
    limit = answers[min(first, len(answers) - 1)].confidence
    highest = max((confidence for confidence in noise if confidence < limit), default=0.0)
    return (limit + highest) / 2


def noise_probes(seed: int) -> Sequence[Item]:
    """Places for stretches of non-speech, the same for every model of a seed."""
    lengths = np.random.default_rng([seed, 8]).uniform(*_PROBE_SECONDS, _PROBES)
    return [Item(f"probe-{n}", None, 0.0, round(float(x), 2), "", ()) for n, x in enumerate(lengths)]
