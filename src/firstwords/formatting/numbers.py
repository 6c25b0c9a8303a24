"""Stage "numbers": spoken numbers as figures (inverse text normalisation), by a table of the language.

    it costs five dollars and twenty cents     it costs $5.20
    in nineteen eighty four                    in 1984
    one of them                                one of them

No grammar library: patterns of the table first (number_table.py), longest first, then the numbers that are
left. Runs of number words are read as a whole or not at all:

- Whole numbers and ordinals below ``smallest`` stay words where no pattern takes them.
- A run with two readings, or with none, stays as it is: "one twenty", "twenty second", "hundred".
- Numbers side by side that are not one number stay words; "and" may part them: "twenty and thirty".
- Beside figures that stand already, words stay.
- A number ends at a mark (.,;:?!) and keeps it: "twenty one." is "21."; in quotes and brackets it stays.
- "a hundred" stays; "a hundred and five" is 105.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple, final

from firstwords.formatting.number_table import SLOT, NumberTable
from firstwords.formatting.number_words import Heard, NumberWords, folded
from firstwords.formatting.stage import Rewrite, Stage, Words

_LONGEST_NUMBER = 48  # words
_MARKS = ".,;:?!\u2026"  # what a word may end with in text with marks


class _Match(NamedTuple):
    end: int  # word after it
    written: str
    last_slot: int | None  # the word where the slot at its end begins


class _Parts(NamedTuple):
    """Numbers of a run; fewer numbers are better, then fewer words outside of them."""

    numbers: int
    outside: int
    rewrites: tuple[Rewrite, ...]


@final
class Numbers(Stage):
    """Spoken numbers -> figures."""

    def __init__(self, table: NumberTable) -> None:
        self.grammar = NumberWords(table)
        self.table = table
        self._digest = hashlib.sha256(table.model_dump_json().encode()).hexdigest()
        self._noun_after = frozenset(folded(word) for word in table.point_is_noun_after)
        self._leave = frozenset(folded(word) for word in table.leave_before)
        self._patterns = [
            ([folded(word) for word in say.split()], pattern.write)
            for pattern in table.patterns
            for say in pattern.say
        ]
        self._said = frozenset(word for say, _ in self._patterns for word in say)

    @property
    def name(self) -> str:
        return "numbers"

    @property
    def identity(self) -> str:
        return f"{self.name} {self._digest}"

    def rewrites(self, segments: Sequence[Words]) -> list[list[Rewrite]]:
        return [self._segment([word.word for word in words]) for words in segments]

    def _segment(self, words: Sequence[str]) -> list[Rewrite]:
        """What stands before and behind a mark is read apart; what is written last keeps the mark."""
        found: list[Rewrite] = []
        first = 0
        for last, word in enumerate(words, start=1):
            mark = self._mark(word)
            if not mark and last < len(words):
                continue
            part = [*words[first : last - 1], word.removesuffix(mark)]
            for begin, end, texts in ((r.first, r.last, r.texts) for r in self._part(part)):
                own = mark if end == len(part) else ""
                if texts[-1].endswith("."):  # 21., a.m.
                    own = own.removeprefix(".")
                found.append(Rewrite(first + begin, first + end, (*texts[:-1], texts[-1] + own)))
            first = last
        return found

    def _mark(self, word: str) -> str:
        """The marks at the end of a word, but those of a word that is said so (a.m.)."""
        bare = word.rstrip(_MARKS)
        for end in range(len(word), len(bare), -1):
            if folded(word[:end]) in self._said:
                return word[end:]
        return word[len(bare) :] if bare else ""

    def _part(self, words: Sequence[str]) -> list[Rewrite]:
        heard = self.grammar.hear(words)
        found: list[Rewrite] = []
        at = run = 0  # run: the first word of the numbers that no pattern has taken
        while at < len(words):
            is_number = self.grammar.is_value(heard, at) or self.grammar.is_free(heard, at)
            behind = self._is_behind(heard, run, at)
            match = self._best_match(heard, at, behind=behind)
            if match is None:
                at += 1
                if not is_number:
                    found += self._run(heard, run, at - 1)
                    run = at
                continue
            found += self._run(heard, run, at)
            found.append(Rewrite(at, match.end, tuple(match.written.split())))
            at = run = match.end
        return [*found, *self._run(heard, run, len(words))]

    def _is_behind(self, heard: Heard, run: int, at: int) -> bool:
        """Does the word go on with what a run has begun, such that a number must not begin with it?"""
        before = at - 1
        if before < run:
            return False
        grammar, words = self.grammar, heard.words
        if before > run and grammar.is_one_or_two(heard, before - 1):  # vier und / zwanzig
            return True
        if words[before] in grammar.point:  # at this point / five percent
            return before == 0 or words[before - 1] not in self._noun_after
        if grammar.is_value(heard, before):
            return True
        if words[before] in grammar.zeros:  # one oh / five
            while before > run and words[before] in grammar.zeros:
                before -= 1
            return grammar.is_value(heard, before)
        if words[before] not in grammar.joiners or before == run:
            return False
        end = heard.starts[before]  # hundred and / one
        return heard.atoms[end - 1] in grammar.scales and not any(
            reading.end == end
            for first in range(max(run, before - _LONGEST_NUMBER), before)
            for reading in grammar.whole(heard, heard.starts[first])
        )

    def _best_match(self, heard: Heard, at: int, *, behind: bool) -> _Match | None:
        """The longest pattern that begins at a word, perhaps ``behind`` a number, and cuts none in two."""
        best: _Match | None = None
        for match in self._matches(heard, at, behind=behind):
            if (best is None or match.end > best.end) and not self._takes_too_little(heard, match):
                best = match
        return best

    def _takes_too_little(self, heard: Heard, match: _Match) -> bool:
        """Does the number at its end go on, or belong to the next pattern (five euro / twenty percent)?"""
        if match.last_slot is None:
            return False
        if match.end < len(heard.words) and self.grammar.is_value(heard, match.end):
            return True
        return any(other.end > match.end for other in self._matches(heard, match.last_slot, behind=False))

    def _matches(self, heard: Heard, at: int, *, behind: bool) -> Iterator[_Match]:
        """All patterns that begin at a word; ``behind`` a number, none that begins with one."""
        number = self.grammar.is_value(heard, at) or self.grammar.is_free(heard, at)
        for say, write in self._patterns:
            if SLOT.fullmatch(say[0]) is None:
                if say[0] != heard.words[at]:
                    continue
            elif behind or not number:
                continue
            for end, values, last_slot in self._fill(heard, at, say):
                written = SLOT.sub(lambda slot, values=values: values[slot[0]], _signed(write, values))
                yield _Match(end, written, last_slot)

    def _fill(
        self, heard: Heard, at: int, say: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, str], int | None]]:
        """Ways to say a pattern from a word on -> word after it, what its slots are written as, last slot."""
        if not say:
            yield at, {}, None
            return
        slot = SLOT.fullmatch(say[0])
        if slot is None:
            if at < len(heard.words) and heard.words[at] == say[0]:
                yield from self._fill(heard, at + 1, say[1:])
            return
        followed = any(SLOT.fullmatch(part) for part in say[1:])
        for end, texts in self._slot(heard, at, slot[1], followed=followed):
            for after, others, last in self._fill(heard, end, say[1:]):
                yield after, others | texts, at if len(say) == 1 else last

    def _slot(
        self, heard: Heard, at: int, name: str, *, followed: bool
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Numbers that fit a slot, the longest first -> word after it, how the slot may be written.

        Where it is ``followed`` by another slot, the number is whole and not below zero: that of the other is
        its decimals.
        """
        if at >= len(heard.words):
            return
        if name == "n" and followed:
            for reading in sorted(self.grammar.whole(heard, heard.starts[at]), reverse=True):
                if (end := heard.word_at(reading.end)) is not None:
                    yield end, {"{n}": self.grammar.grouped(reading.value)}
            return
        if name == "n":
            for end, text in sorted(self._any_number(heard, at), reverse=True):
                yield end, {"{n}": text}
            return
        slot, start = self.table.slots[name], heard.starts[at]
        values = set(self.grammar.whole(heard, start, slot.most + 1, ones=False))
        if slot.width > 1 and (two := self.grammar.two_digits(heard, start)):
            values.add(two)
        for reading in sorted(values, reverse=True):
            end = heard.word_at(reading.end)
            if end is None or not slot.least <= reading.value <= slot.most:
                continue
            less = slot.most if reading.value == slot.least else reading.value - 1
            texts = {f"{{{name}}}": reading.value, f"{{{name}-1}}": less}
            yield end, {key: str(value).zfill(slot.width) for key, value in texts.items()}

    def _any_number(self, heard: Heard, at: int, *, idioms: bool = True) -> Iterator[tuple[int, str]]:
        """Whole and decimal numbers that begin at a word, a minus before them -> word after, as written."""
        if heard.words[at] in self.grammar.minus:
            if at + 1 < len(heard.words):
                for end, text in self._any_number(heard, at + 1, idioms=idioms):
                    if not text.startswith("-"):
                        yield end, f"-{text}"
            return
        start = heard.starts[at]
        for reading in self.grammar.whole(heard, start):
            end = heard.word_at(reading.end)
            if end is not None and (idioms or not reading.idiom):
                yield end, self.grammar.grouped(reading.value)
        for atom, text in self.grammar.decimals(heard, start):
            end = heard.word_at(atom)
            if end is None:
                continue
            yield end, text
            if end < len(heard.words) and heard.words[end] in self.grammar.scales:
                yield end + 1, f"{text} {heard.words[end]}"  # 2.5 million

    def _run(self, heard: Heard, first: int, last: int) -> list[Rewrite]:
        """Number words without a pattern -> what they are rewritten to, all of them or nothing."""
        while first < last and not self._may_end(heard, last - 1):
            last -= 1
        before, after = heard.words[:first][-1:], heard.words[last : last + 1]
        if any(word in self._leave for word in after) or _any_figure(*before, *after):
            return []
        if any(self._is_in_marks(word) for word in (*before, *after)):
            return []
        if any(self.grammar.is_one_or_two(heard, word) for word in range(first, last)):
            return []
        # From the end on: the best way to read the words from there, after a number and after none.
        size = last - first
        best: list[tuple[_Parts | None, _Parts | None]] = [(None, None) for _ in range(size)]
        best.append((_Parts(0, 0, ()), _Parts(0, 0, ())))
        for at in range(size - 1, -1, -1):
            ways: list[_Parts] = []
            for end in range(at + 1, min(size, at + _LONGEST_NUMBER) + 1):
                rest = best[end][1]
                if rest is None:
                    continue
                text = self._one_number(heard, first + at, first + end)
                if text is not None:
                    made = (Rewrite(first + at, first + end, tuple(text.split())),) if text else ()
                    ways.append(_Parts(rest.numbers + 1, rest.outside, (*made, *rest.rewrites)))
            rest = best[at + 1][0]
            outside = None
            if rest is not None and self.grammar.is_free(heard, first + at):
                outside = _Parts(rest.numbers, rest.outside + 1, rest.rewrites)
                ways.append(outside)
            best[at] = (min(ways, key=lambda w: w[:2]) if ways else None, outside)
        found = best[0][0]
        return list(found.rewrites) if found else []

    def _is_in_marks(self, word: str) -> bool:
        """Is this a number with a quote or a bracket on it?"""
        bare = word.strip("".join(c for c in word if unicodedata.category(c)[0] == "P"))
        return bare != word and self.grammar.is_value(self.grammar.hear([bare]), 0)

    def _may_end(self, heard: Heard, word: int) -> bool:
        """May a number end with this word?"""
        return self.grammar.is_value(heard, word) or heard.words[word] in self.grammar.zeros

    def _one_number(self, heard: Heard, first: int, last: int) -> str | None:
        """Words as one number: how it is written, "" where it stays as it is, None where it is none."""
        grammar = self.grammar
        if not self._may_end(heard, last - 1):
            return None
        end = heard.starts[last]
        values = {r.value for r in grammar.whole(heard, heard.starts[first]) if r.end == end and not r.idiom}
        if len(values) == 1:
            value = values.pop()
            return grammar.grouped(value) if value >= self.table.smallest else ""
        if values:
            return None
        ordinal = grammar.ordinal(heard, first, last)
        if ordinal is not None:
            return self.table.ordinals.written(ordinal) if ordinal >= self.table.smallest else ""
        texts = {text for after, text in self._any_number(heard, first, idioms=False) if after == last}
        if len(texts) == 1:
            return texts.pop()
        if texts:
            return None
        return grammar.year(heard, first, last) or grammar.sequence(heard, first, last)


def _signed(write: str, values: dict[str, str]) -> str:
    """What a pattern writes, a minus of its number before the currency sign (-$5) and out of ``values``."""
    at = write.find("{n}")
    if at < 0 or not values["{n}"].startswith("-"):
        return write
    while at > 0 and unicodedata.category(write[at - 1]) == "Sc":
        at -= 1
    values["{n}"] = values["{n}"].removeprefix("-")
    return f"{write[:at]}-{write[at:]}"


def _any_figure(*words: str) -> bool:
    return any(letter.isdigit() for word in words for letter in word)
