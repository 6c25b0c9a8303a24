"""What a check rule is, and what it may look at.

A rule is one function from ``Evidence`` to (utterance id, what was found). Rules never change anything and
know nothing of each other; ``validate.py`` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from firstwords.data.manifest import Utterance
from firstwords.text.graphemes import graphemes
from firstwords.text.normalize import normalizer

Severity = Literal["quarantine", "warning"]
Hit = tuple[str, str]  # utterance id, what was found

# Values of any label that say: no words are expected here.
NON_SPEECH = frozenset({"non-speech", "non_speech", "nonspeech", "no-speech", "noise", "silence", "music"})


@dataclass(frozen=True, kw_only=True)
class Sound:
    """What one utterance sounds like, as far as it could be read.

    ``problem`` names the rule that says why nothing could be measured. Levels are in dB of full scale, over
    frames of 10 ms with their mean removed. What only decoding tells is None after a look at headers alone.
    """

    problem: str | None = None
    detail: str = ""
    sample_rate: int = 0  # hertz, of the file
    channels: int = 0
    seconds: float = 0.0  # of this utterance that the file really holds
    repairs: tuple[str, ...] = ()
    clipped: float | None = None  # share of samples at full scale
    offset: float | None = None  # mean sample
    loud_db: float | None = None  # 99th percentile of the levels
    quiet_db: float | None = None  # 5th percentile
    active_seconds: float | None = None  # frames clearly above the quiet level
    digest: bytes | None = None  # of the samples: equal only for equal audio


@dataclass(frozen=True)
class Finding:
    """One rule found something in one utterance."""

    rule: str
    severity: Severity
    utterance: str
    detail: str


@dataclass(frozen=True)
class Evidence:
    """All that rules may look at."""

    utterances: tuple[Utterance, ...]
    sounds: Mapping[str, Sound]  # id -> what was measured
    decoded: bool  # False: only headers were read

    @cached_property
    def spoken(self) -> tuple[Utterance, ...]:
        """Utterances with words."""
        return tuple(u for u in self.utterances if (u.text or "").strip() and not is_non_speech(u))

    @cached_property
    def letters(self) -> Mapping[str, list[str]]:
        """id -> grapheme clusters of the text as training sees it by default."""
        normalize = normalizer("default")
        return {u.id: graphemes(normalize(u.text or "")) for u in self.spoken}

    @cached_property
    def scored(self) -> Mapping[str, str]:
        """id -> text as scoring sees it: case and punctuation do not count."""
        normalize = normalizer("score_default")
        return {u.id: normalize(u.text or "") for u in self.spoken}

    @cached_property
    def closed_vocabulary(self) -> bool:
        """True where a few sentences are said again and again (digits, commands): repeats are meant."""
        return len(self.spoken) >= 20 and len(set(self.scored.values())) < 0.2 * len(self.spoken)


@dataclass(frozen=True)
class Rule:
    """A named rule: what it means, how bad it is, how to mend it, and the function that finds it.

    Args:
        spares_evaluation: in dev and test it only warns, as its findings are hard to recognise and not
            wrong: leaving them out would measure the easy ones.
    """

    id: str
    meaning: str
    severity: Severity
    mend: str
    find: Callable[[Evidence], Iterator[Hit]]
    spares_evaluation: bool = False


def is_non_speech(utterance: Utterance) -> bool:
    """True where a label says that no words are expected."""
    return any(value.strip().lower() in NON_SPEECH for value in utterance.labels.values())


def is_evaluation(split: str | None) -> bool:
    """True for the splits a result is measured on (dev, test, validation, ...)."""
    return (split or "").lower().startswith(("dev", "test", "val", "eval"))


def is_training(split: str | None) -> bool:
    """True for the splits a model learns from."""
    return (split or "").lower().startswith("train")
