"""Annotators' marks: what stands in a transcript beside the words that were said.

    [laughs]  ((cough))  <unk>  {noise}  (unclear)    in brackets
    xxx  ***  #  ??  &=laughs                         signs of their own, by custom of the field

A model learns them as words. Nothing is taken out unless the user names it: the same brackets hold letters
that are said in one project and stage directions in another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from firstwords.errors import UsageError

DRAFT = "firstwords:"  # our own mark: tiers that 'firstwords transcribe' wrote begin so
_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">", "⟨": "⟩", "«": "»"}
_BRACKETED = r"\(\((?:(?!\)\)).)*\)\)|\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|<[^<>]*>|⟨[^⟨⟩]*⟩"
# Whole words: 'xxx' and the like (CHAT), whatever holds an asterisk, '#', '??', '&=laughs'.
_SIGNS = r"(?<!\S)(?:x{3,}|X{3,}|yyy|YYY|www|WWW|#+|\?{2,}|&[=~+-]\w+|[^\s*]*\*\S*)(?=[.,;!?]*(?!\S))"
_MARK = re.compile(f"{_BRACKETED}|{_SIGNS}", re.DOTALL)
EXAMPLE = "[] (()) <> {} xxx"


@dataclass(frozen=True)
class Marks:
    """What is to be taken out: everything between some brackets, and some whole words."""

    brackets: tuple[tuple[str, str], ...] = ()  # opening and closing, longer ones first
    words: frozenset[str] = frozenset()

    def removed(self, text: str) -> tuple[str, list[str]]:
        """A text -> what is left, and the marks that were in it."""
        found: list[str] = []

        def take(match: re.Match[str]) -> str:
            found.append(match[0])
            return " "

        for first, last in self.brackets:
            a, b = re.escape(first), re.escape(last)
            if len(last) > 1:  # of '(dry)))' the last two
                b += f"(?!{re.escape(last[-1])})"
            inner = re.compile(f"{a}(?:(?!{a}|{b}).)*{b}", re.DOTALL)  # brackets in brackets: from the inside
            while (shorter := inner.sub(take, text)) != text:
                text = shorter
        words = text.split()
        gone = {word for word in words if word in self.words or word.rstrip(".,;!?") in self.words}
        found += [word for word in words if word in gone]
        return (" ".join(word for word in words if word not in gone) if found else text), found


def parse_marks(wishes: Sequence[str]) -> Marks:
    """'[] (()) xxx' as the user gives it -> Marks."""
    brackets: list[tuple[str, str]] = []
    words: set[str] = set()
    for wish in " ".join(wishes).split():
        first, last = wish[: len(wish) // 2], wish[len(wish) // 2 :]
        if first and "".join(_PAIRS.get(c, "") for c in reversed(first)) == last:
            brackets.append((first, last))
        elif any(c in _PAIRS or c in _PAIRS.values() for c in wish):
            raise UsageError(
                f"--remove-marks {wish}: is neither a pair of brackets nor a word.",
                mend=f"Give pairs without anything inside, and whole words: --remove-marks '{EXAMPLE}'",
            )
        else:
            words.add(wish)
    return Marks(tuple(sorted(brackets, key=lambda pair: -len(pair[0]))), frozenset(words))


def find_marks(text: str) -> list[str]:
    """Everything in a text that looks like a mark and not like a word."""
    return [" ".join(found.split()) for found in _MARK.findall(text)]
