"""How sure a model must be of a text before it counts as speech.

A recogniser answers a helicopter with a word now and then, but not with the confidence it has in speech. What
that is differs from model to model (CTC posteriors are no probabilities), so the gate is measured whenever a
model is published: on its dev utterances, and on non-speech.

    confidence  0 ────── x ─ x ─────────|────────── o ─ o oo ooo ── 1
                         answers to noise  gate      dev utterances

The gate may cost hardly any word that was right. It lies half-way between there and what noise reaches, and
there where noise reaches further.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from firstwords.data.manifest import Utterance
from firstwords.data.places import Item

MAY_COST = 0.005  # of the words that were right on dev
_PROBES = 64  # stretches of non-speech
_RECORDINGS = 192  # of it, heard as they are
_LONGEST = 10.0  # seconds of a recording
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
    answered = list(noise)
    if any(confidence >= limit for confidence in answered):
        return limit
    return (limit + max(answered, default=0.0)) / 2


def noise_probes(seed: int, recordings: Sequence[Utterance]) -> Sequence[Item]:
    """Places for stretches of non-speech, and recordings of it as they are; a seed decides which."""
    draw = np.random.default_rng([seed, 8])
    lengths = draw.uniform(*_PROBE_SECONDS, _PROBES)
    probes = [Item(f"probe-{n}", None, 0.0, round(float(x), 2), "", ()) for n, x in enumerate(lengths)]
    for n in draw.permutation(len(recordings))[:_RECORDINGS]:
        clip = recordings[n]
        probes.append(Item(clip.id, clip.audio, clip.start, min(clip.duration, _LONGEST), "", ()))
    return probes
