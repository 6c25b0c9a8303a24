"""How a language says numbers, as one TOML table; adding a language is adding such a file.

    language        BCP 47
    cardinals       word -> value, 0 to 99: words that are numbers on their own. A word of several words
                    ("quatre vingts") stands with its spaces
    order           how tens and units make 21 to 99: "tens first" (twenty one), "units first"
                    (einundzwanzig), "listed" (all of them stand in cardinals)
    tens_joiner     between them, "" where nothing is said; must be said where it is given
    compound        numbers are written as one word; it is taken apart into words of this table
    scales          words, value, most (the largest multiplier), alone (may stand without a multiplier)
    ones            words that count one before a scale: "a" in "a hundred and five"
    scale_joiners   may stand between a scale and what is below a hundred: "two hundred and five"
    zeros           words for 0 in sequences of digits alone: "oh"
    point, point_is_noun_after, decimal_sign, minus, group, group_from
                    group stands between thousands, from group_from on
    smallest        whole numbers below stay words where nothing but the number is said ("one of them")
    leave_before    words before which numbers stay words where no pattern takes them (nineteen "sixties")
    sequence        so many digits one after the other are a sequence ("five five five")
    year_pairs      [from, to] of the first of two pairs that make a year (nineteen eighty four); [] for none
    ordinals        stems: word -> value;  endings of a stem;  write: "{n}{suffix}";  suffixes: by the value
                    itself, then its last two digits, then its last digit;  suffix: of all others;
                    ambiguous: words that end no ordinal of several words ("twenty second")
    slots           name -> least, most, width (digits, filled with zeros) of a slot in patterns
    patterns        say: texts with slots, write: what is written. {n} takes any number, decimals too;
                    before another slot whole numbers from 0 only ("two dollars and twenty cents")

A slot in ``write`` may say ``{hour-1}``: one less, the largest after the least. What the words of a pattern
are written with may have spaces: they make several words.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from firstwords.config import Config, parse_config, read_toml
from firstwords.errors import ConfigError

SLOT = re.compile(r"\{([a-z]+)(-1)?\}")
_TABLES = Path(__file__).with_name("languages")


class Scale(Config):
    """A number that others multiply: hundred, thousand, million."""

    words: tuple[str, ...] = Field(min_length=1)
    value: int = Field(ge=10)
    most: int = Field(ge=1)
    alone: bool = False

    @model_validator(mode="after")
    def multipliers_are_smaller(self) -> Self:
        if self.most >= self.value:
            raise ValueError(f"most = {self.most} must be below value = {self.value}")
        return self


class Ordinals(Config):
    """First, second, third."""

    stems: dict[str, int] = Field(default={})
    endings: tuple[str, ...] = ("",)
    write: str = "{n}{suffix}"
    suffix: str = ""
    suffixes: dict[str, str] = Field(default={})
    ambiguous: tuple[str, ...] = ()

    def written(self, value: int) -> str:
        """21 -> 21st."""
        number = str(value)
        keys = (number, number[-2:], number[-1:])
        suffix = next((self.suffixes[key] for key in keys if key in self.suffixes), self.suffix)
        return self.write.replace("{n}", number).replace("{suffix}", suffix)


class Slot(Config):
    """Which whole numbers may stand in a slot of a pattern."""

    least: int = Field(ge=0)
    most: int = Field(ge=0)
    width: int = Field(default=0, ge=0, le=9)

    @model_validator(mode="after")
    def least_is_least(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least = {self.least} is above most = {self.most}")
        return self


class Pattern(Config):
    """Words around numbers, and how the whole is written."""

    say: tuple[str, ...] = Field(min_length=1)
    write: str = Field(min_length=1)

    @model_validator(mode="after")
    def slots_are_said(self) -> Self:
        for text in self.say:
            words = text.split()
            slots = [SLOT.fullmatch(word) for word in words if "{" in word or "}" in word]
            if not words or not slots:
                raise ValueError(f"say = '{text}': give at least one slot, such as {{n}}")
            if not all(slot and not slot[2] for slot in slots):
                raise ValueError(f"say = '{text}': a slot is a word of its own, such as {{n}}")
            names = [slot[1] for slot in slots if slot]
            if len(set(names)) != len(names):
                raise ValueError(f"say = '{text}': a slot stands twice")
            missing = {found[1] for found in SLOT.finditer(self.write)} - set(names)
            if missing:
                raise ValueError(f"write = '{self.write}': {{{min(missing)}}} is not in say = '{text}'")
        if "{" in SLOT.sub("", self.write) or not self.write.strip():
            raise ValueError(f"write = '{self.write}': a brace that is no slot, or nothing at all")
        return self


class NumberTable(Config):
    """All that is to be known about the numbers of a language; fields at the head of this file."""

    language: str
    cardinals: dict[str, int]
    order: Literal["tens first", "units first", "listed"] = "tens first"
    tens_joiner: str = ""
    compound: bool = False
    scales: tuple[Scale, ...] = ()
    ones: tuple[str, ...] = ()
    scale_joiners: tuple[str, ...] = ()
    zeros: tuple[str, ...] = ()
    point: tuple[str, ...] = ()
    point_is_noun_after: tuple[str, ...] = ()
    decimal_sign: str = "."
    minus: tuple[str, ...] = ()
    group: str = ","
    group_from: int = Field(default=10_000, ge=1000)
    smallest: int = Field(default=10, ge=0)
    leave_before: tuple[str, ...] = ()
    sequence: int = Field(default=3, ge=2)
    year_pairs: tuple[int, ...] = ()
    ordinals: Ordinals = Ordinals()
    slots: dict[str, Slot] = Field(default={})
    patterns: tuple[Pattern, ...] = ()

    @model_validator(mode="after")
    def words_are_words(self) -> Self:
        if not self.cardinals:
            raise ValueError("cardinals is empty: a table says at least the digits")
        words = [*self.cardinals, *self.ordinals.stems, *(w for scale in self.scales for w in scale.words)]
        words += [*self.ones, *self.scale_joiners, *self.zeros, *self.point, *self.minus]
        for word in words:
            if word != " ".join(word.split()) or not word:
                raise ValueError(f"'{word}' is no word: it is empty or has spaces too many")
        for word, value in self.cardinals.items():
            if not 0 <= value < 100:
                raise ValueError(f"cardinals.{word} = {value}: 0 to 99; more belongs to scales")
        single = [*self.ones, *self.scale_joiners, *self.zeros, *self.point, *self.minus]
        single += [w for scale in self.scales for w in scale.words]
        if spaced := [w for w in single if " " in w]:
            raise ValueError(f"'{spaced[0]}' has a space; only cardinals and ordinals may")
        return self

    @model_validator(mode="after")
    def parts_fit_together(self) -> Self:
        values = [scale.value for scale in self.scales]
        if values != sorted(set(values)):
            raise ValueError("scales: smallest first, each value once")
        known = {*self.cardinals.values(), *values}
        for word, value in self.ordinals.stems.items():
            if value not in known:
                raise ValueError(f"ordinals.stems.{word} = {value}: no cardinal or scale has this value")
        if self.year_pairs and (len(self.year_pairs) != 2 or not 10 <= min(self.year_pairs) < 100):
            raise ValueError(f"year_pairs = {list(self.year_pairs)}: two numbers of two digits, or none")
        for pattern in self.patterns:
            for found in SLOT.finditer(" ".join((*pattern.say, pattern.write))):
                if found[1] != "n" and found[1] not in self.slots:
                    raise ValueError(f"patterns: {{{found[1]}}} is no slot; slots.{found[1]} is missing")
                if found[1] == "n" and found[2]:
                    raise ValueError("patterns: {n-1} is not possible, {n} may be any number")
        return self


def shipped_languages() -> tuple[str, ...]:
    """Languages whose table comes with the package."""
    return tuple(sorted(path.stem for path in _TABLES.glob("*.toml")))


def load_table(language: str, path: Path | None = None) -> NumberTable:
    """The table in a file, or the one that comes with the package for a BCP 47 language."""
    if path is None:
        primary = language.replace("_", "-").split("-")[0].lower()
        known = shipped_languages()
        if primary not in known:
            raise ConfigError(
                f"Stage 'numbers' has no table for language '{language}'. Shipped: {', '.join(known)}.",
                mend="Leave the stage out, name the language that is spoken (--post numbers=en, or "
                '[post.numbers] language = "en" in the recipe; the recipe\'s own language must stay, as its '
                "weights are bound to it), or write a table (docs/formatting.md) and name it: --post "
                "numbers=FILE.toml.",
            )
        path = _TABLES / f"{primary}.toml"
    return parse_config(read_toml(path), NumberTable, name="table", source=str(path))
