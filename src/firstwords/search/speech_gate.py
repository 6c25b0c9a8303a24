"""Is a reading speech at all? Only if the model is sure enough of it.

A recogniser answers a sneeze with a syllable now and then. Two things tell such an answer from speech: the
model is less sure of it, and where there are but few words (digits, commands) it mostly is none of them. The
threshold is measured when a model is published (training/gate.py), the words are those of its training texts
if these are few and each is frequent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from firstwords.search.hypothesis import Hypothesis
from firstwords.text.pieces import SPACE
from firstwords.text.tokenizer import Tokenizer

FEW_WORDS = 50  # different words, at most, of a closed vocabulary, ...
OFTEN = 20  # ... each of which stands in the texts at least so often


@dataclass(frozen=True)
class SpeechGate:
    """Passes what is speech.

    Args:
        threshold: least sureness, 0 (everything passes) to 1.
        words: all there are; empty: any.
    """

    threshold: float = 0.0
    words: frozenset[str] = field(default_factory=frozenset[str])

    @property
    def identity(self) -> str:
        """The same words in every process, for what must notice another gate."""
        return " ".join((str(self.threshold), *sorted(self.words)))

    def sureness(self, reading: Hypothesis, tokenizer: Tokenizer) -> float | None:
        """Mean confidence of the tokens, of which those outside ``words`` count as 0.

        None without tokens or where the search knows no confidences.
        """
        if not self.words or not reading.confidences:
            return reading.confidence
        known = self._known(reading, tokenizer)
        pairs = zip(reading.confidences, known, strict=True)
        return sum(sure for sure, is_known in pairs if is_known) / len(known)

    def is_speech(self, reading: Hypothesis, tokenizer: Tokenizer) -> bool:
        """False where the model is less sure than the threshold."""
        sure = self.sureness(reading, tokenizer)
        return sure is None or sure >= self.threshold

    def _known(self, reading: Hypothesis, tokenizer: Tokenizer) -> list[bool]:
        """Of every token, whether it is part of one of ``words``; a space goes with the word behind it."""
        starts = [tokenizer.pieces[token].startswith(SPACE) for token in reading.tokens]
        numbers = [sum(starts[: n + 1]) for n in range(len(starts))]
        known: list[bool] = []
        for _, group in groupby(zip(numbers, reading.tokens, strict=True), key=lambda pair: pair[0]):
            tokens = [token for _, token in group]
            word = tokenizer.decode(tokens).strip()
            known += [word in self.words or not word] * len(tokens)
        return known


OPEN = SpeechGate()


def closed_vocabulary(texts: Iterable[str]) -> frozenset[str]:
    """Normalized training texts -> their words if these are few and each is frequent, else none."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.split())
        if len(counts) > FEW_WORDS:
            return frozenset()
    return frozenset(counts) if counts and min(counts.values()) >= OFTEN else frozenset()
