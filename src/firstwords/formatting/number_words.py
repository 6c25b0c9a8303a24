"""Words -> numbers, by a table of the language (number_table.py).

    words    two      hundred and   einundzwanzig           hotel
    atoms    two      hundred and   ein  und  zwanzig       (no number)

Words are taken apart into atoms, words of the table; numbers are read over atoms and begin and end where
words do. Every reading is returned: whether there is exactly one is for the caller to judge.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, final

from firstwords.formatting.number_table import NumberTable

_NO_NUMBER = ""  # the atom of a word that is none
_UNBOUNDED = 10**18
_LONGEST_WORD = 200  # letters of a word that is taken apart

Key = tuple[str, ...]


class Reading(NamedTuple):
    """A whole number that ends before atom ``end``; ``idiom``: a "one" that may be an article, no more."""

    end: int
    value: int
    idiom: bool = False


_NONE: frozenset[Reading] = frozenset()


@dataclass(frozen=True)
class Heard:
    """Words of one segment and their atoms.

    Args:
        atoms: in order, of all words.
        owner: the word each atom belongs to.
        starts: the first atom of each word, and the number of atoms.
        known: what was read already; patterns ask for the same numbers again and again.
    """

    words: tuple[str, ...]
    atoms: tuple[str, ...]
    owner: tuple[int, ...]
    starts: tuple[int, ...]
    known: dict[tuple[int, int, bool], frozenset[Reading]] = field(
        default_factory=dict[tuple[int, int, bool], "frozenset[Reading]"], compare=False, repr=False
    )

    def word_at(self, atom: int) -> int | None:
        """The word that begins at an atom (or the number of words at the end); None inside a word."""
        if atom == len(self.atoms):
            return len(self.words)
        word = self.owner[atom]
        return word if self.starts[word] == atom else None


def folded(word: str) -> str:
    """As words are compared: without case."""
    return unicodedata.normalize("NFC", word).casefold()


@final
class NumberWords:
    """Reads the numbers of one language."""

    def __init__(self, table: NumberTable) -> None:
        self.table = table
        self.cardinals: Mapping[Key, int] = {_key(w): v for w, v in table.cardinals.items()}
        self.scales = {folded(word): scale for scale in table.scales for word in scale.words}
        self.ordinals: Mapping[Key, int] = {
            _key(stem + ending): value
            for stem, value in table.ordinals.stems.items()
            for ending in table.ordinals.endings
        }
        self.ones, self.joiners = _set(table.ones), _set(table.scale_joiners)
        self.zeros, self.point, self.minus = _set(table.zeros), _set(table.point), _set(table.minus)
        self.tens_joiner = folded(table.tens_joiner)
        self.digits = {key[0]: v for key, v in self.cardinals.items() if v < 10 and len(key) == 1}
        self.digits |= dict.fromkeys(self.zeros, 0)
        self._ambiguous = _set(table.ordinals.ambiguous)
        self._longest = max(len(key) for key in (*self.cardinals, *self.ordinals))
        keys = {atom for key in (*self.cardinals, *self.ordinals) for atom in key}
        self.values = frozenset(keys | set(self.scales))  # atoms that are numbers, or parts of them
        other = self.ones | self.joiners | self.zeros | self.point | self.minus
        self.free = frozenset((other | ({self.tens_joiner} if self.tens_joiner else set())) - self.values)
        self._said: dict[int, Key] = {}  # value -> how it is said
        for key, value in self.cardinals.items():
            self._said.setdefault(value, key)
        for scale in table.scales:
            self._said.setdefault(scale.value, (folded(scale.words[0]),))
        self._atoms = lru_cache(maxsize=4096)(self._taken_apart)

    def hear(self, words: Sequence[str]) -> Heard:
        """Words -> their atoms."""
        atoms: list[str] = []
        owner: list[int] = []
        starts: list[int] = []
        for number, word in enumerate(words):
            found = self._atoms(folded(word))
            starts.append(len(atoms))
            atoms += found
            owner += [number] * len(found)
        return Heard(tuple(folded(w) for w in words), tuple(atoms), tuple(owner), (*starts, len(atoms)))

    def _taken_apart(self, word: str) -> Key:
        known = self.values | self.free
        if word in known:
            return (word,)
        parts = word.split("-")
        if len(parts) > 1:
            inner = [self._taken_apart(part) for part in parts if part]
            if len(inner) == len(parts) and all(_NO_NUMBER not in part for part in inner):
                return tuple(atom for part in inner for atom in part)
        if self.table.compound and len(word) <= _LONGEST_WORD:
            return _fewest_parts(word, known) or (_NO_NUMBER,)
        return (_NO_NUMBER,)

    def is_value(self, heard: Heard, word: int) -> bool:
        """Is this word a number, or part of one?"""
        return any(atom in self.values for atom in heard.atoms[heard.starts[word] : heard.starts[word + 1]])

    def is_free(self, heard: Heard, word: int) -> bool:
        """May this word stand between numbers without being one ("and", "point", "a")?"""
        return heard.words[word] in self.free

    def _listed(self, heard: Heard, at: int) -> Iterator[Reading]:
        for size in range(1, self._longest + 1):
            value = self.cardinals.get(heard.atoms[at : at + size])
            if value is not None and at + size <= len(heard.atoms):
                yield Reading(at + size, value)

    def below_hundred(self, heard: Heard, at: int) -> Iterator[Reading]:
        """Numbers of 0 to 99 that begin at an atom."""
        for first in self._listed(heard, at):
            yield first
            is_tens, is_unit = first.value >= 20 and first.value % 10 == 0, 0 < first.value < 10
            order = self.table.order
            if not (is_tens if order == "tens first" else is_unit and order == "units first"):
                continue
            middle = first.end
            if self.tens_joiner:
                together = not self.table.compound or (
                    middle < len(heard.atoms) and heard.owner[middle] == heard.owner[middle - 1]
                )
                if heard.atoms[middle : middle + 1] != (self.tens_joiner,) or not together:
                    continue
                middle += 1
            for second in self._listed(heard, middle):
                tens, unit = (first, second) if order == "tens first" else (second, first)
                if 0 < unit.value < 10 and tens.value >= 20 and tens.value % 10 == 0:
                    yield Reading(second.end, tens.value + unit.value)

    def is_one_or_two(self, heard: Heard, word: int) -> bool:
        """Are three words from this one on two numbers, or one that is spelled apart ("vier und zwanzig")?"""
        if not self.table.compound or heard.words[word + 1 : word + 2] != (self.tens_joiner,):
            return False
        if word + 2 >= len(heard.words):
            return False
        unit = self.cardinals.get((heard.atoms[heard.starts[word + 1] - 1],), 0)
        tens = self.cardinals.get((heard.atoms[heard.starts[word + 2]],), 0)
        return 0 < unit < 10 and tens >= 20 and tens % 10 == 0

    def whole(
        self, heard: Heard, at: int, limit: int = _UNBOUNDED, *, ones: bool = True
    ) -> frozenset[Reading]:
        """Whole numbers below ``limit`` that begin at an atom; ``ones``: an article may count one."""
        key = (at, limit, ones)
        if key not in heard.known:
            heard.known[key] = (
                frozenset(self._whole(heard, at, limit, ones)) if at < len(heard.atoms) else _NONE
            )
        return heard.known[key]

    def _whole(self, heard: Heard, at: int, limit: int, ones: bool) -> set[Reading]:
        if heard.atoms[at] == _NO_NUMBER:
            return set()
        found = {r for r in self.below_hundred(heard, at) if r.value < limit}
        for scale in self.table.scales:
            if scale.value >= limit:
                continue
            times = {r for r in self.whole(heard, at, scale.most + 1, ones=ones) if r.value > 0}
            if scale.alone:
                times.add(Reading(at, 1))
            if ones and heard.atoms[at] in self.ones:
                times.add(Reading(at + 1, 1, idiom=True))
            for multiplier in times:
                found |= {r for r in self._with_rest(heard, multiplier, scale.value) if r.value < limit}
        return found

    def _with_rest(self, heard: Heard, times: Reading, size: int) -> set[Reading]:
        """A multiplier, then the scale of ``size``, then what is smaller."""
        scale = self.scales.get(heard.atoms[times.end]) if times.end < len(heard.atoms) else None
        if scale is None or scale.value != size:
            return set()
        at, base = times.end + 1, times.value * size
        found = {Reading(at, base, times.idiom)}
        if at >= len(heard.atoms):
            return found
        rests = set(self.whole(heard, at, size, ones=False))
        if heard.atoms[at] in self.joiners:
            rests |= set(self.below_hundred(heard, at + 1))
        return found | {Reading(r.end, base + r.value) for r in rests if r.value > 0}

    def ordinal(self, heard: Heard, first: int, last: int) -> int | None:
        """Words ``first`` to before ``last`` as an ordinal, if they are one: its last atoms say so."""
        begin, end = heard.starts[first], heard.starts[last]
        for size in range(1, min(self._longest, end - begin) + 1):
            value = self.ordinals.get(heard.atoms[end - size : end])
            if value is None:
                continue
            if end - begin > size and heard.atoms[end - 1] in self._ambiguous:
                return None
            said = self._said[value]  # twenty first -> twenty one
            atoms = (*heard.atoms[begin : end - size], *said)
            owner = (*heard.owner[begin : end - size], *[last - 1] * len(said))
            same = Heard(heard.words, atoms, owner, heard.starts)
            values = {r.value for r in self.whole(same, 0) if r.end == len(atoms) and not r.idiom}
            if len(values) == 1:
                return values.pop()
        return None

    def decimals(self, heard: Heard, at: int) -> set[tuple[int, str]]:
        """(atom after it, digits as written) of numbers with a decimal point that begin at an atom."""
        found: set[tuple[int, str]] = set()
        for whole in self.whole(heard, at, ones=False):
            if whole.end >= len(heard.atoms) or heard.atoms[whole.end] not in self.point:
                continue
            head = f"{self.grouped(whole.value)}{self.table.decimal_sign}"
            digits, end = "", whole.end + 1
            for pair in self.below_hundred(heard, end):
                if pair.value >= 10:
                    found.add((pair.end, head + str(pair.value)))
            while end < len(heard.atoms) and heard.atoms[end] in self.digits:
                digits += str(self.digits[heard.atoms[end]])
                end += 1
                found.add((end, head + digits))
        return found

    def grouped(self, value: int) -> str:
        """12345 -> 12,345."""
        text = str(value)
        return f"{value:,}".replace(",", self.table.group) if value >= self.table.group_from else text

    def sequence(self, heard: Heard, first: int, last: int) -> str | None:
        """Digits one after the other; at least ``sequence`` of them, or two where the first is a zero.

        "oh" alone may be an exclamation where a segment begins: there, all of them are needed.
        """
        words = heard.words[first:last]
        if not all(word in self.digits for word in words):
            return None
        exclaims = words[0] in self.zeros and first == 0
        least = 2 if self.digits[words[0]] == 0 and not exclaims else self.table.sequence
        return "".join(str(self.digits[word]) for word in words) if len(words) >= least else None

    def year(self, heard: Heard, first: int, last: int) -> str | None:
        """Two pairs of digits that make a year: nineteen eighty four, twenty oh five."""
        if not self.table.year_pairs:
            return None
        low, high = self.table.year_pairs
        end = heard.starts[last]
        found: set[str] = set()
        for century in self.below_hundred(heard, heard.starts[first]):
            if not low <= century.value <= high or century.end >= end:
                continue
            found |= {
                f"{century.value}{r.value}"
                for r in self.below_hundred(heard, century.end)
                if r.end == end and r.value >= 10
            }
            if (two := self.two_digits(heard, century.end)) and two.end == end:
                found.add(f"{century.value}0{two.value}")
        return found.pop() if len(found) == 1 else None

    def two_digits(self, heard: Heard, at: int) -> Reading | None:
        """ "oh five": 5 in two digits."""
        pair = heard.atoms[at : at + 2]
        if len(pair) < 2 or pair[1] not in self.digits or self.digits.get(pair[0]) != 0:
            return None
        return Reading(at + 2, self.digits[pair[1]])


def _key(words: str) -> Key:
    return tuple(folded(words).replace("-", " ").split())


def _set(words: Sequence[str]) -> frozenset[str]:
    return frozenset(folded(word) for word in words)


def _fewest_parts(word: str, known: frozenset[str]) -> Key | None:
    """The fewest known words that make up a word; of as few, the one whose first differing part is longer."""
    longest = max(len(part) for part in known)
    best: list[Key | None] = [None for _ in word]
    best.append(())
    for start in range(len(word) - 1, -1, -1):
        for end in range(min(len(word), start + longest), start, -1):
            rest = best[end]
            if rest is None or word[start:end] not in known:
                continue
            old = best[start]
            if old is None or len(rest) + 1 < len(old):
                best[start] = (word[start:end], *rest)
    return best[0]
