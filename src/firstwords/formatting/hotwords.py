"""Stage "hotwords": names and terms that matter, in place of what was misheard for them.

    phrases      Ouagadougou
    recognised   from wagadugu (0.41) to ...      from Ouagadougou to ...

Words are replaced where all of these hold:

- the recogniser was unsure of each of them (confidence below ``unsure``): sure words are never rewritten;
- as many letters as ``threshold`` of the phrase's, or fewer, must be changed to get from them to the phrase
  (Levenshtein distance over graphemes, without case, spaces and marks);
- the phrase has at least ``shortest`` graphemes, since short words are near to everything;
- no other phrase is as near, and none of the words belongs to a phrase that was recognised as it is.

Phrases may have several words, and the recogniser may have heard another number of them. Of overlapping
candidates the nearest is taken, then the one of more letters, then the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import NamedTuple, final

from firstwords.formatting.stage import Rewrite, Stage, Word, Words
from firstwords.text.graphemes import graphemes, pattern
from firstwords.text.normalize import normalizer

_MORE_WORDS = 2  # a phrase may have been heard as so many words more than it has
_MARKS = r"^(\p{P}*)(.*?)(\p{P}*)$"


class _Phrase(NamedTuple):
    text: str  # as it is written
    letters: tuple[str, ...]
    words: int


class _Found(NamedTuple):
    distance: float  # share of the phrase's letters
    letters: int
    first: int
    last: int
    phrase: _Phrase


@dataclass(frozen=True)
class HotwordLimits:
    """When words may be replaced; shares of 1."""

    threshold: float = 0.34
    unsure: float = 0.8
    shortest: int = 4


@final
class Hotwords(Stage):
    """Misheard words -> phrases of a list."""

    def __init__(self, phrases: Sequence[str], limits: HotwordLimits | None = None) -> None:
        self.limits = limits or HotwordLimits()
        self._normalize = normalizer("score_default")
        self._letters = lru_cache(maxsize=65_536)(self._as_letters)
        listed = [_Phrase(" ".join(p.split()), self._letters(p), len(p.split())) for p in phrases]
        self._listed = tuple(p.text for p in listed)
        self._phrases = [p for p in listed if len(p.letters) >= self.limits.shortest]
        self.too_short = tuple(p.text for p in listed if len(p.letters) < self.limits.shortest)
        self._known = {self._by_word(p.text.split()) for p in listed if p.letters}
        self._most_words = max((p.words for p in self._phrases), default=0) + _MORE_WORDS

    @property
    def phrases(self) -> tuple[str, ...]:
        """Those that are looked for, as they are written."""
        return tuple(phrase.text for phrase in self._phrases)

    @property
    def name(self) -> str:
        return "hotwords"

    @property
    def identity(self) -> str:
        return f"{self.name} {json.dumps([*astuple(self.limits), *self._listed], ensure_ascii=False)}"

    def rewrites(self, segments: Sequence[Words]) -> list[list[Rewrite]]:
        return [self._segment(words) for words in segments]

    def _segment(self, words: Words) -> list[Rewrite]:
        taken = [word.confidence >= self.limits.unsure for word in words]
        # what is right already is no part of anything misheard, overlapping or beside sure words as it may be
        for first, last in self._windows([False] * len(words)):
            if self._by_word([word.word for word in words[first:last]]) in self._known:
                taken[first:last] = [True] * (last - first)
        found = [best for first, last in self._windows(taken) if (best := self._nearest(words, first, last))]
        chosen: list[Rewrite] = []
        for one in sorted(found, key=lambda f: (f.distance, -f.letters, f.first, f.last)):
            if not any(taken[one.first : one.last]):
                taken[one.first : one.last] = [True] * (one.last - one.first)
                texts = _with_marks(words[one.first].word, words[one.last - 1].word, one.phrase.text)
                chosen.append(Rewrite(one.first, one.last, texts))
        return sorted(chosen, key=lambda rewrite: rewrite.first)

    def _windows(self, taken: Sequence[bool]) -> Iterator[tuple[int, int]]:
        """All stretches of a few words none of which is taken when its turn comes."""
        for first in range(len(taken)):
            for last in range(first + 1, min(len(taken), first + self._most_words) + 1):
                if any(taken[first:last]):
                    break
                yield first, last

    def _nearest(self, words: Words, first: int, last: int) -> _Found | None:
        heard = self._heard(words[first:last])
        if not heard:
            return None
        near: list[_Found] = []
        for phrase in self._phrases:
            most = int(self.limits.threshold * len(phrase.letters))
            if last - first > phrase.words + _MORE_WORDS or abs(len(phrase.letters) - len(heard)) > most:
                continue
            distance = _distance(heard, phrase.letters, most)
            if distance is not None:
                share = distance / len(phrase.letters)
                near.append(_Found(share, len(phrase.letters), first, last, phrase))
        best = min((f.distance for f in near), default=0.0)
        nearest = [f for f in near if f.distance == best]
        return nearest[0] if len({f.phrase.letters for f in nearest}) == 1 else None

    def _heard(self, words: Sequence[Word]) -> tuple[str, ...]:
        return tuple(letter for word in words for letter in self._letters(word.word))

    def _by_word(self, words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        return tuple(self._letters(word) for word in words)

    def _as_letters(self, text: str) -> tuple[str, ...]:
        return tuple(g for g in graphemes(self._normalize(text)) if g.isalnum() or not g.isascii())


def _with_marks(first: str, last: str, phrase: str) -> tuple[str, ...]:
    """The words of a phrase, with the marks around the words they replace."""
    before, after = pattern(_MARKS).match(first), pattern(_MARKS).match(last)
    opening = before[1] if before is not None and before[2] else ""
    closing = after[3] if after is not None and after[2] else ""
    return tuple(f"{opening}{phrase}{closing}".split())


def _distance(a: Sequence[str], b: Sequence[str], most: int) -> int | None:
    """Levenshtein distance (1966), None where it is above ``most``."""
    row = list(range(len(b) + 1))
    for number, symbol in enumerate(a, start=1):
        above, row = row, [number]
        for place, other in enumerate(b, start=1):
            row.append(min(above[place] + 1, row[-1] + 1, above[place - 1] + (symbol != other)))
        if min(row) > most:
            return None
    return row[-1] if row[-1] <= most else None
