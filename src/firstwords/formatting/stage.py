"""What every stage of formatting is: words with times in, the same stretch of time written otherwise.

    words      three    hundred   people          a stage says: words 0 to 2 become ("300",)
    rewritten  300                people          the span of both, the mean of their confidences

A stage only names what it rewrites (``Rewrite``); ``Formatter`` does it, so that for all stages times never
go back, every moment with a word keeps one, and what was changed can be told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from firstwords.text.graphemes import graphemes


@dataclass(frozen=True, slots=True)
class Word:
    """One word; ``start`` and ``end`` in seconds of the recording."""

    word: str
    start: float
    end: float
    confidence: float


Words = Sequence[Word]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Words ``first`` to before ``last`` of a segment become ``texts``, at least one of each."""

    first: int
    last: int
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What a stage wrote in place of what; times in seconds of the recording."""

    stage: str
    before: str
    after: str
    start: float
    end: float


class Stage(ABC):
    """One step between what was recognised and what is shown."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As recipes name it."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """All that decides what it writes: its name, and settings, files and weights or digests of them."""

    @abstractmethod
    def rewrites(self, segments: Sequence[Words]) -> list[list[Rewrite]]:
        """The segments of a whole recording -> what is rewritten in each, in order and not overlapping."""


@final
class Formatter:
    """Stages, one after the other in the given order; none leaves everything as it is."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the stages."""
        return tuple(stage.name for stage in self.stages)

    @property
    def identity(self) -> str:
        """All that decides what the stages write."""
        return "\n".join(stage.identity for stage in self.stages)

    def format(self, segments: Sequence[Words]) -> tuple[list[list[Word]], list[Change]]:
        """Segments -> as many segments, and what was changed, stage by stage."""
        current = [list(words) for words in segments]
        changes: list[Change] = []
        for stage in self.stages:
            found = stage.rewrites(current)
            for number, (words, rewrites) in enumerate(zip(current, found, strict=True)):
                current[number], made = rewritten(words, rewrites, stage.name)
                changes += made
        return current, changes

    def text(self, text: str) -> str:
        """Plain text without times, as one segment of equally sure words."""
        words = [Word(word, float(n), float(n + 1), 1.0) for n, word in enumerate(text.split())]
        (found,), _ = self.format([words])
        return " ".join(word.word for word in found)


def rewritten(words: Words, rewrites: Sequence[Rewrite], stage: str) -> tuple[list[Word], list[Change]]:
    """Words of one segment and what a stage wants of them -> the new words, and what changed.

    Several words for one stretch of time share it by their numbers of graphemes.

    Raises:
        ValueError: rewrites overlap, go back, are empty or leave the segment: a fault of the stage.
    """
    edges = [0, *(edge for r in rewrites for edge in (r.first, r.last)), len(words)]
    if any(a > b for a, b in pairwise(edges)):
        raise ValueError(f"{stage}: rewrites overlap or leave the segment of {len(words)} words")
    result: list[Word] = []
    changes: list[Change] = []
    at = 0
    for rewrite in rewrites:
        if rewrite.first == rewrite.last or not rewrite.texts or not all(rewrite.texts):
            raise ValueError(f"{stage}: a rewrite takes and gives at least one word, got {rewrite}")
        result += words[at : rewrite.first]
        old = words[rewrite.first : rewrite.last]
        new = _shared(old, rewrite.texts)
        result += new
        before, after = (" ".join(w.word for w in side) for side in (old, new))
        if before != after:
            changes.append(Change(stage, before, after, old[0].start, old[-1].end))
        at = rewrite.last
    return [*result, *words[at:]], changes


def _shared(old: Words, texts: Sequence[str]) -> list[Word]:
    """The time of some words, shared among others."""
    sure = round(sum(word.confidence for word in old) / len(old), 4)
    if len(texts) == len(old):  # word by word: each keeps its own time and confidence
        return [
            Word(text, word.start, word.end, word.confidence) for word, text in zip(old, texts, strict=True)
        ]
    start, end = old[0].start, old[-1].end
    sizes = [max(1, len(graphemes(text))) for text in texts]
    times = [start]
    for done in range(1, len(sizes)):
        times.append(round(start + (end - start) * sum(sizes[:done]) / sum(sizes), 3))
    return [Word(text, a, b, sure) for text, (a, b) in zip(texts, pairwise([*times, end]), strict=True)]
