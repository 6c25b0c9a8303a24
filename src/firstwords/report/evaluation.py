"""All figures of one recogniser on one set of utterances: plain values, without a way to make or show them.

``evaluate.py`` fills them; ``evaluation_json.py``, ``_terminal`` and ``_page`` show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from firstwords.data.manifest import Utterance
from firstwords.scoring.detection import Detections
from firstwords.scoring.error_rate import ErrorRate
from firstwords.scoring.significance import Difference, Interval


@dataclass(frozen=True)
class Result:
    """One utterance: texts as written and as scored, and its errors."""

    utterance: Utterance
    reference: str
    hypothesis: str
    scored_reference: str
    scored_hypothesis: str
    words: ErrorRate
    graphemes: ErrorRate
    raw_words: ErrorRate
    raw_graphemes: ErrorRate
    bare_graphemes: ErrorRate  # diacritics removed
    labels: ErrorRate  # the model's pieces; without a tokenizer, letters


@dataclass(frozen=True)
class Row:
    """One line of a table: all utterances that share a value."""

    value: str
    utterances: int
    seconds: float
    words: ErrorRate
    graphemes: ErrorRate


@dataclass(frozen=True)
class Confusion:
    """What was said and what was written, and how often; None = nothing stood there."""

    said: str | None
    written: str | None
    count: int


@dataclass(frozen=True)
class Baseline:
    """What a program gets that always writes ``text``."""

    name: str
    text: str
    words: ErrorRate
    graphemes: ErrorRate


@dataclass(frozen=True)
class Comparison:
    """Second system minus first on the utterances both have; ``matched_pairs_p`` is MAPSSWE on words."""

    first: str
    second: str
    utterances: int
    words: Difference
    graphemes: Difference
    matched_pairs_p: float


@dataclass(frozen=True, kw_only=True)
class Formatting:
    """What stages of formatting made of the recognised words; see evaluate_formatted.py."""

    stages: tuple[str, ...]
    words: ErrorRate  # as written
    graphemes: ErrorRate  # as written
    scored_words: ErrorRate  # after the scoring normalizer
    changes: Mapping[str, int]  # stage -> rewrites
    phrases: tuple[Detections, Detections] | None  # of the stage "hotwords": before all stages, after
    texts: Mapping[str, str]  # id -> formatted text


@dataclass(frozen=True)
class Area:
    """Area under the curve, and its interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What is known of transcripts without a reference, and how well it tells; see evaluate_quality.py."""

    scores: Mapping[str, float]  # id -> nats per character
    confidences: Mapping[str, float]  # the same utterances
    wrong: int  # of them have a word error
    areas: Mapping[str, Area]  # text, confidence, both; none where all are right, or all wrong


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All figures of one system on one set of utterances."""

    model: str
    corpus: str
    split: str
    normalizer: str
    label_kind: str
    hardware: str
    seconds: float | None  # wall clock of the transcription
    results: tuple[Result, ...]
    skipped: Mapping[str, str]  # id -> why it was not scored
    word_interval: Interval
    grapheme_interval: Interval
    baselines: tuple[Baseline, ...]
    tables: Mapping[str, tuple[Row, ...]]
    word_confusions: tuple[Confusion, ...]
    grapheme_confusions: tuple[Confusion, ...]
    comparison: Comparison | None = None
    formatting: Formatting | None = None  # where stages were on
    quality: Quality | None = None  # where a language model chose among readings
    note: str = ""  # what a reader must know first, e.g. that the voices are synthetic
    made_from: Mapping[str, str] = field(default_factory=dict[str, str])  # "model", "corpus" -> its folder

    def total(self, part: str) -> ErrorRate:
        """Sum over the utterances of one of Result's counts: 'words', 'graphemes', 'raw_words', ..."""
        return ErrorRate.total(getattr(r, part) for r in self.results)

    @property
    def words(self) -> ErrorRate:
        return self.total("words")

    @property
    def graphemes(self) -> ErrorRate:
        return self.total("graphemes")

    @property
    def audio_seconds(self) -> float:
        return sum(r.utterance.duration for r in self.results)

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of computing per second of audio."""
        return self.seconds / self.audio_seconds if self.seconds is not None and self.audio_seconds else None

    @property
    def silent(self) -> tuple[int, int]:
        """(non-speech utterances that gave empty text, all non-speech utterances)."""
        silent = [r for r in self.results if not r.scored_reference]
        return sum(not r.scored_hypothesis for r in silent), len(silent)

    def worst(self, most: int = 20) -> tuple[Result, ...]:
        """Utterances with errors, highest grapheme error rate first, more errors first among equals."""
        wrong = [r for r in self.results if r.graphemes.errors or r.words.errors]
        order = sorted(wrong, key=lambda r: (-r.graphemes.rate, -r.graphemes.errors, r.utterance.id))
        return tuple(order[:most])
