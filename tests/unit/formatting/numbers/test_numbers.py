"""Spoken numbers as figures: round trips against spellers written apart, malformed tables."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from firstwords.errors import ConfigError
from firstwords.formatting.number_table import load_table, shipped_languages
from firstwords.formatting.numbers import Numbers
from firstwords.formatting.stage import Formatter
from spellers import english, english_ordinal, german, german_ordinal


def written(n: int, group: str, smallest: int, spoken: str) -> str:
    if n < smallest:
        return spoken
    return f"{n:,}".replace(",", group) if n >= 10_000 else str(n)


def sample(most: int, count: int) -> list[int]:
    return random.Random(1).sample(range(most), count)


def test_every_english_number_to_9999(en: Callable[[str], str]) -> None:
    for n in [*range(1000), *range(1000, 10_000, 31)]:
        assert en(english(n)) == written(n, ",", 10, english(n)), n


@pytest.mark.slow
def test_all_numbers_to_9999_in_both_languages(en: Callable[[str], str], de: Callable[[str], str]) -> None:
    for n in range(10_000):
        for joiner in ("", " and"):
            spoken = english(n, joiner=joiner)
            assert en(spoken) == written(n, ",", 10, spoken), n
        assert de(german(n)) == written(n, ".", 13, german(n)), n


def test_english_numbers_to_a_million(en: Callable[[str], str]) -> None:
    for n in sample(1_000_000, 250):
        for joiner in ("", " and"):
            assert en(english(n, joiner=joiner)) == written(n, ",", 10, english(n)), n


def test_german_numbers(de: Callable[[str], str]) -> None:
    for n in [*range(1000), *range(1000, 10_000, 31), *sample(1_000_000, 400)]:
        assert de(german(n)) == written(n, ".", 13, german(n)), n


def test_english_ordinals(en: Callable[[str], str]) -> None:
    for n in [*range(1, 130), *sample(10_000, 200)]:
        spoken = english_ordinal(n)
        if n == 0 or (n % 10 == 2 and n % 100 != 12 and n != 2):  # twenty second
            continue
        suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
        assert en(spoken) == (spoken if n < 10 else f"{n}{suffix}"), n


def test_german_ordinals(de: Callable[[str], str]) -> None:
    for n in [*range(1, 130), *sample(1000, 200)]:
        if n == 0:
            continue
        for ending in ("", "n", "r", "s"):
            spoken = german_ordinal(n) + ending
            assert de(spoken) == (spoken if n < 13 else f"{n}."), spoken


def test_against_another_library(en: Callable[[str], str], de: Callable[[str], str]) -> None:
    num2words = pytest.importorskip("num2words").num2words
    for n in sample(1_000_000, 300):
        spoken = num2words(n, lang="en").replace(",", "")
        assert en(spoken) == written(n, ",", 10, spoken), spoken
        spoken = num2words(n, lang="de")
        assert de(spoken) == written(n, ".", 13, spoken), spoken


def test_numbers_above_a_billion(en: Callable[[str], str], de: Callable[[str], str]) -> None:
    assert en("two trillion three billion and one") == "2,003,000,000,001"
    assert en("one point five trillion dollars") == "$1.5 trillion"
    assert de("zwei billionen drei milliarden") == "2.003.000.000.000"


def test_a_long_row_of_numbers_is_read_in_time(en: Callable[[str], str]) -> None:
    assert en(" ".join(["five"] * 40)) == "5" * 40
    text = " ".join(["twenty"] * 300)  # no number: stays
    assert en(text) == text


def test_an_unknown_language_is_named_with_those_there_are() -> None:
    assert shipped_languages() == ("de", "en")
    for language in ("und", "xx-YY", "../en"):
        with pytest.raises(ConfigError, match="de, en") as refused:
            load_table(language)
        assert "--post numbers=en" in refused.value.mend


BASE = 'language = "xx"\n[cardinals]\nun = 1\ndos = 2\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("language = 3\n", "cardinals"),
        ('language = "xx"\n[cardinals]\n', "cardinals is empty"),
        ('language = "xx"\n[cardinals]\nun = 100\n', "0 to 99"),
        ('language = "xx"\n[cardinals]\n" un" = 1\n', "spaces"),
        (BASE + "[cardinal]\nun = 1\n", "Did you mean 'cardinals'"),
        (BASE + '[[scales]]\nwords = ["cent"]\nvalue = 100\nmost = 100\n', "must be below value"),
        (BASE + "[ordinals.stems]\nquint = 5\n", "no cardinal or scale"),
        (BASE + '[[patterns]]\nsay = ["euro"]\nwrite = "x"\n', "at least one slot"),
        (BASE + '[[patterns]]\nsay = ["{n} euro"]\nwrite = "{m}"\n', "is not in say"),
        (BASE + '[[patterns]]\nsay = ["{hour} uhr"]\nwrite = "{hour}"\n', "slots.hour is missing"),
        (BASE + '[[patterns]]\nsay = ["{n}euro"]\nwrite = "{n}"\n', "a word of its own"),
        (BASE + '[[patterns]]\nsay = ["{n} {n}"]\nwrite = "{n}"\n', "stands twice"),
        (BASE + '[[patterns]]\nsay = ["{n} euro"]\nwrite = "{N}"\n', "brace"),
        (BASE + "[slots]\nhour = { least = 5, most = 1 }\n", "above most"),
        ("language = \n", "is not TOML"),
    ],
)
def test_malformed_tables_are_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "xx.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load_table("xx", path)


def test_a_language_is_added_by_a_table(tmp_path: Path) -> None:
    """French counts from 61 on in another way: listed, with words of several words."""
    path = tmp_path / "fr.toml"
    path.write_text(
        'language = "fr"\norder = "listed"\ngroup = " "\n[cardinals]\ndeux = 2\ntrois = 3\n'
        '"soixante dix" = 70\n"quatre vingts" = 80\n"quatre vingt dix sept" = 97\n'
        '[[scales]]\nwords = ["cent", "cents"]\nvalue = 100\nmost = 9\nalone = true\n'
        '[[scales]]\nwords = ["mille"]\nvalue = 1000\nmost = 999\nalone = true\n',
        encoding="utf-8",
    )
    french = Formatter([Numbers(load_table("fr", path))]).text
    assert french("quatre vingt dix sept") == "97"
    assert french("quatre-vingt-dix-sept") == "97"
    assert french("trois cent soixante dix") == "370"
    assert french("mille deux cents") == "1200"
    assert french("quatre vingts mille trois") == "80 003"
    assert french("quatre") == "quatre"
