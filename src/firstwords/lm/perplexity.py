"""How well a language model foresees a text: perplexity, with the words it does not know accounted for.

Perplexity is exp(-mean log P) over the words and the ends of sentences, as KenLM and SRILM count. Unknown
words are scored as <unk>; a model can look good by knowing few words, so both figures stand side by side:
``perplexity`` over everything, ``perplexity_known`` without unknown words (their probability and their number
left out, the contexts as they are). Models of other units are compared per word or per letter: the whole
text's log-probability, divided by its words (and ends) or its letters (and ends).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from firstwords.errors import TextError
from firstwords.lm.ngram import END, NgramModel
from firstwords.lm.ngram_text import Line
from firstwords.text.graphemes import graphemes
from firstwords.text.normalize import normalizer

if TYPE_CHECKING:  # models are queried without it, too
    from jaxtyping import Bool, Float64, Int64

_SENTENCES = 512  # scored side by side


class LanguageModelHeader(Protocol):
    """What of ``lm.toml`` is asked here."""

    @property
    def normalizer(self) -> str: ...


class LanguageModel(Protocol):
    """What a model of any kind is asked."""

    @property
    def header(self) -> LanguageModelHeader: ...

    def units(self, text: str) -> list[str]:
        """Text -> words, letters or pieces."""
        ...

    def ids(self, units: Sequence[str]) -> Int64[np.ndarray, " units"]:
        """Words, letters or pieces -> ids."""
        ...

    def unknown(self, ids: Int64[np.ndarray, " units"]) -> Bool[np.ndarray, " units"]:
        """True where the model never saw the unit."""
        ...

    def score(
        self, sentences: Sequence[Int64[np.ndarray, " units"]]
    ) -> list[Float64[np.ndarray, " units_and_end"]]:
        """log P of each unit and of the end of each sentence."""
        ...


@dataclass(frozen=True)
class Perplexity:
    """Sums over a text; those of two texts add.

    Args:
        units: words, letters or pieces, ends of sentences not counted.
        unknown: how many of them the model does not know.
        log_prob: of everything, in nats; ``log_prob_unknown`` is the share of unknown units.
        words: separated by spaces; ``letters`` are grapheme clusters, spaces too.
    """

    sentences: int = 0
    units: int = 0
    unknown: int = 0
    log_prob: float = 0.0
    log_prob_unknown: float = 0.0
    words: int = 0
    letters: int = 0

    def __add__(self, other: Perplexity) -> Perplexity:
        return Perplexity(
            self.sentences + other.sentences,
            self.units + other.units,
            self.unknown + other.unknown,
            self.log_prob + other.log_prob,
            self.log_prob_unknown + other.log_prob_unknown,
            self.words + other.words,
            self.letters + other.letters,
        )

    @property
    def perplexity(self) -> float:
        """Per unit, unknown ones too."""
        return _exp(-self.log_prob, self.units + self.sentences)

    @property
    def perplexity_known(self) -> float:
        """Per unit that the model knows."""
        known = self.units - self.unknown + self.sentences
        return _exp(self.log_prob_unknown - self.log_prob, known)

    @property
    def perplexity_per_word(self) -> float:
        """Of the whole text, per word and end of sentence."""
        return _exp(-self.log_prob, self.words + self.sentences)

    @property
    def bits_per_letter(self) -> float:
        """Of the whole text, per letter (spaces too) and end of sentence."""
        return -self.log_prob / math.log(2) / max(1, self.letters + self.sentences)

    @property
    def unknown_rate(self) -> float:
        """Share of the units that the model does not know."""
        return self.unknown / max(1, self.units)


def _exp(nats: float, count: int) -> float:
    mean = nats / max(1, count)
    return math.exp(mean) if mean < 700 else math.inf


def score_sentences(
    model: NgramModel, sentences: Sequence[Int64[np.ndarray, " words"]]
) -> list[Float64[np.ndarray, " words_and_end"]]:
    """log P of each word and of the end of each sentence; all sentences move on together."""
    lengths = np.array([len(s) + 1 for s in sentences])
    longest = int(lengths.max(initial=0))
    words = np.full((len(sentences), longest), END, dtype=np.int64)
    for row, sentence in enumerate(sentences):
        words[row, : len(sentence)] = sentence
    scores = np.zeros(words.shape)
    states = np.full(len(sentences), model.begin, dtype=np.int64)
    for step in range(longest):
        rows = np.flatnonzero(lengths > step)
        scores[rows, step], states[rows] = model.advance(states[rows], words[rows, step])
    return [scores[row, :length] for row, length in enumerate(lengths.tolist())]


def measure_perplexity(
    lm: LanguageModel, lines: Iterable[Line], *, progress: Callable[[int], None] | None = None
) -> Perplexity:
    """Text -> its perplexity; lines without text after normalization are not counted."""
    normalize = normalizer(lm.header.normalizer)
    total = Perplexity()
    waiting: list[Int64[np.ndarray, " words"]] = []
    for line in lines:
        if progress is not None:
            progress(line.size)
        if not (units := lm.units(line.text)):
            continue
        text = normalize(line.text)
        waiting.append(lm.ids(units))
        total += Perplexity(words=len(text.split()), letters=len(graphemes(text)))
        if len(waiting) == _SENTENCES:
            total += _sums(lm, waiting)
            waiting = []
    total += _sums(lm, waiting)
    if not total.sentences:
        raise TextError("there is no text to measure.", mend="Give text files with one sentence a line.")
    return total


def _sums(lm: LanguageModel, sentences: list[Int64[np.ndarray, " words"]]) -> Perplexity:
    total = Perplexity()
    for ids, scores in zip(sentences, lm.score(sentences), strict=True):
        unknown = lm.unknown(ids)
        total += Perplexity(
            sentences=1,
            units=len(ids),
            unknown=int(unknown.sum()),
            log_prob=float(scores.sum()),
            log_prob_unknown=float(scores[:-1][unknown].sum()),
        )
    return total
