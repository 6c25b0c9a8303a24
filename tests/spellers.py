"""Numbers as English and German words, written apart from the tables that are tested with them."""

from __future__ import annotations

_EN = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]


_EN_TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


_EN_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip


def english(n: int, *, joiner: str = "") -> str:
    if n < 20:
        return _EN[n]
    if n < 100:
        return _EN_TENS[n // 10] + (f" {_EN[n % 10]}" if n % 10 else "")
    size, name = (100, "hundred") if n < 1000 else (1000, "thousand")
    head, rest = divmod(n, size)
    inner = joiner if rest and rest < 100 else ""
    return f"{english(head, joiner=joiner)} {name}" + (
        f"{inner} {english(rest, joiner=joiner)}" if rest else ""
    )


def english_ordinal(n: int) -> str:
    *front, last = english(n).split()
    if last in _EN_ORDINALS:
        last = _EN_ORDINALS[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return " ".join([*front, last])


_DE = [
    "null",
    "ein",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
]


_DE_TENS = ["-", "-", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]


def german(n: int, *, ends: bool = True) -> str:
    if n == 1:
        return "eins" if ends else "ein"
    if n < 20:
        return _DE[n]
    if n < 100:
        return (f"{_DE[n % 10]}und" if n % 10 else "") + _DE_TENS[n // 10]
    size, name = (100, "hundert") if n < 1000 else (1000, "tausend")
    head, rest = divmod(n, size)
    return german(head, ends=False) + name + (german(rest) if rest else "")


def german_ordinal(n: int) -> str:
    stems = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}
    low = n % 100
    if low in stems:
        front = german(n - low, ends=False) if n > low else ""
        return front + stems[low] + "e"
    return german(n) + ("te" if 0 < low < 20 else "ste")
