"""Formatted text -> what a punctuation model learns: bare words, their case, the mark behind each.

    Well, I know Anna.      well   i        know    anna
                      mark  ,      none     none    .
                      case  capital capital as is   capital

Bare words are what the normalizer of the recogniser leaves. Marks are single characters of Unicode's "other
punctuation" that stand behind a word (full stop, comma, danda, Arabic question mark, ...), those that occur
often enough; opening marks, quotation marks and brackets are not learned.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from firstwords.scoring.detection import Detections
from firstwords.text.graphemes import pattern
from firstwords.text.normalize import Normalizer, normalizer

CASES = ("as is", "capital", "upper", "other")
_NO_SENTENCE_MARKS = frozenset("'\"%‰&*/\\#@†‡§¶‘’“”«»")
_SAME_APOSTROPHE = str.maketrans({"\u2019": "'", "\u2018": "'"})
LEAST_MARKS = 10  # a mark seen less often is not learned


class Labelled(NamedTuple):
    """One bare word; ``form`` is how a word of case "other" is written, ``mark`` "" where none follows."""

    word: str
    case: int
    mark: str
    form: str


@dataclass
class Tally:
    """Counts of each mark and each case over many words."""

    marks: dict[str, Detections] = field(default_factory=dict[str, Detections])
    cases: dict[str, Detections] = field(default_factory=dict[str, Detections])
    words: int = 0

    def add(self, marks: Iterable[tuple[str, str]], cases: Iterable[tuple[str, str]]) -> None:
        """(wanted, put) of words, "" and "as is" for nothing."""
        for wanted, put in marks:
            self.words += 1
            _count(self.marks, wanted, put, "")
        for wanted, put in cases:
            _count(self.cases, wanted, put, CASES[0])

    @property
    def all_marks(self) -> Detections:
        return sum(self.marks.values(), Detections())

    @property
    def all_cases(self) -> Detections:
        return sum(self.cases.values(), Detections())

    def numbers(self) -> dict[str, float]:
        """Flat figures, for logs and files."""
        rows = {f"mark {k}": v for k, v in self.marks.items()} | {
            f"case {k}": v for k, v in self.cases.items()
        }
        rows |= {"marks": self.all_marks, "cases": self.all_cases}
        found: dict[str, float] = {"words": float(self.words)}
        for name, counts in rows.items():
            found |= {
                f"{name} precision": counts.precision,
                f"{name} recall": counts.recall,
                f"{name} f1": counts.f1,
                f"{name} count": float(counts.hits + counts.misses),
            }
        return found


def _count(table: dict[str, Detections], wanted: str, put: str, nothing: str) -> None:
    if wanted == put:
        if wanted != nothing:
            table[wanted] = table.get(wanted, Detections()) + Detections(hits=1)
        return
    if wanted != nothing:
        table[wanted] = table.get(wanted, Detections()) + Detections(misses=1)
    if put != nothing:
        table[put] = table.get(put, Detections()) + Detections(false_alarms=1)


def cased(word: str, case: int, form: str | None = None) -> str:
    """A bare word in a case; "other" needs the form, without one it stays as it is."""
    match CASES[case]:
        case "capital":
            return word[:1].title() + word[1:]
        case "upper":
            return word.upper()
        case "other":
            return word if form is None else form
        case _:
            return word


def labelled(line: str, normalize: Normalizer) -> list[Labelled]:
    """A line of formatted text -> its words. Marks are whatever stands there; ``known_marks`` chooses."""
    words: list[Labelled] = []
    for token in normalizer("formatted")(line).translate(_SAME_APOSTROPHE).split():
        bare = normalize(token).split()
        if not bare:  # a mark with a space before it
            if words and not words[-1].mark and (mark := mark_in(token)):
                words[-1] = words[-1]._replace(mark=mark)
            continue
        stripped = pattern(r"^\p{P}+|\p{P}+$").sub("", token)
        shown = (
            [part for part in pattern(r"[\p{P}]+").split(stripped) if part] if len(bare) > 1 else [stripped]
        )
        shown = shown if len(shown) == len(bare) else bare
        trailing = pattern(r"[\p{P}\p{S}]+$").search(token)
        mark = mark_in(trailing[0]) if trailing else ""
        for number, (word, form) in enumerate(zip(bare, shown, strict=True), start=1):
            words.append(_labelled(word, form, mark if number == len(bare) else ""))
    return words


def _labelled(word: str, form: str, mark: str) -> Labelled:
    for case in range(3):
        if cased(word, case) == form:
            return Labelled(word, case, mark, "")
    if form.casefold() == word.casefold():
        return Labelled(word, 3, mark, form)
    return Labelled(word, 0, mark, "")


def mark_in(text: str) -> str:
    """The first sentence mark among some punctuation, "" if there is none."""
    for letter in text:
        if unicodedata.category(letter) == "Po" and letter not in _NO_SENTENCE_MARKS:
            return letter
    return ""


def known_marks(counts: Mapping[str, int], least: int = LEAST_MARKS) -> tuple[str, ...]:
    """Marks and how often they stand -> those to learn, the commonest first."""
    kept = [(count, mark) for mark, count in counts.items() if mark and count >= least]
    return tuple(mark for _, mark in sorted(kept, key=lambda item: (-item[0], item[1])))


def common_forms(words: Iterable[Labelled]) -> dict[str, str]:
    """How words of case "other" are written most often."""
    counts: Counter[tuple[str, str]] = Counter((w.word, w.form) for w in words if CASES[w.case] == "other")
    forms: dict[str, str] = {}
    for (word, form), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        forms.setdefault(word, form)
    return dict(sorted(forms.items()))


def feature(word: str, normalize: Normalizer) -> str:
    """A word as the model sees it: bare, digits alike ("$5.20" -> "000"); what has no letters, as it is."""
    bare = "".join(normalize(word).split()) or word.casefold()
    return "".join("0" if letter.isdigit() else letter for letter in bare)


def in_windows(count: int, size: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """``count`` words -> (from, to, first kept, after the last kept) of overlapping windows.

    Every word is kept once, ``margin`` words or more from an inner edge; windows have at most ``size``.
    """
    kept = 0
    while kept < count:
        start = max(0, kept - margin)
        end = min(count, start + size)
        last = count if end == count else end - margin
        yield start, end, kept, last
        kept = last


def grams_of(word: str) -> Sequence[str]:
    """The pieces whose embeddings make up a word: itself, and one to four letters of it, ends marked.

    Bojanowski et al., 2017, arXiv:1607.04606, section 3.2, with shorter pieces.
    """
    marked = f"<{word[:40]}>"
    inner = [marked[i : i + n] for n in (2, 3, 4) for i in range(len(marked) - n + 1) if n < len(marked)]
    return [f"={word}", *dict.fromkeys(inner)]
