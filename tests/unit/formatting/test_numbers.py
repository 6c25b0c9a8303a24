"""Spoken numbers as figures: round trips against spellers written apart, patterns, what must stay a word."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.errors import ConfigError
from firstwords.formatting.number_table import load_table, shipped_languages
from firstwords.formatting.numbers import Numbers
from firstwords.formatting.stage import Formatter, Word

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


def written(n: int, group: str, smallest: int, spoken: str) -> str:
    if n < smallest:
        return spoken
    return f"{n:,}".replace(",", group) if n >= 10_000 else str(n)


@pytest.fixture(scope="module")
def en() -> Callable[[str], str]:
    return Formatter([Numbers(load_table("en"))]).text


@pytest.fixture(scope="module")
def de() -> Callable[[str], str]:
    return Formatter([Numbers(load_table("de-AT"))]).text


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


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [
        ("it costs five dollars and twenty cents", "it costs $5.20"),
        ("five dollars five cents", "$5.05"),
        ("two point five million dollars", "$2.5 million"),
        ("at this point five percent", "at this point 5%"),
        ("at that point two point five percent", "at that point 2.5%"),
        ("a hundred dollars", "$100"),
        ("one hundred and two hundred dollars", "100 and $200"),
        ("three euros", "€3"),
        ("five per cent of two hundred", "5% of 200"),
        ("three point one four one five", "3.1415"),
        ("minus five degrees celsius", "-5 °C"),
        ("five minus three", "five minus three"),
        ("twenty minus fifteen", "20 minus 15"),
        ("nineteen eighty four", "1984"),
        ("in twenty oh five or twenty twenty", "in 2005 or 2020"),
        ("nineteen hundred", "1900"),
        ("two thousand and five", "2005"),
        ("a hundred and five", "105"),
        ("five o'clock", "5:00"),
        ("three thirty p m", "3:30 p.m."),
        ("at seven oh five am", "at 7:05 a.m."),
        ("half past three", "3:30"),
        ("quarter to one", "12:45"),
        ("a quarter past eleven", "11:15"),
        ("room one oh two", "room 102"),
        ("agent oh seven", "agent 07"),
        ("five five five one two", "55512"),
        ("twenty kilometers per hour", "20 km/h"),
        ("twenty kilometers", "20 km"),
        ("twenty-one", "21"),
        ("Twenty One", "21"),
        ("twenty and thirty", "20 and 30"),
        ("one hundred and two hundred", "100 and 200"),
        ("two point five dollars and twenty cents", "$2.5 and 20 cents"),
        ("two thousand dollars and twenty cents", "$2000.20"),
        ("a hundred dollars and five cents", "$100.05"),
        ("minus five dollars", "-$5"),
        ("minus a hundred dollars", "-$100"),
        ("minus two point five million euros", "-€2.5 million"),
        ("minus five dollars and twenty cents", "-$5 and 20 cents"),
        ("minus twenty percent", "-20%"),
        ("one oh five dollars", "105 dollars"),
        ("nineteen oh five dollars", "1905 dollars"),
        ("twenty oh five percent", "2005 percent"),
        ("one oh oh five dollars", "1005 dollars"),
        ("oh five dollars", "oh $5"),
        ("five thousand and one hundred and two dollars", "5000 and $102"),
        ("one hundred and two hundred and three", "100 and 203"),
        ("three million two hundred thousand", "3,200,000"),
        ("twenty first", "21st"),
        ("the tenth of may", "the 10th of may"),
    ],
)  # fmt: skip
def test_english_patterns(en: Callable[[str], str], spoken: str, expected: str) -> None:
    assert en(spoken) == expected
    assert en(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "one of them",
        "no one",
        "the first time",
        "two or three days",
        "wait a second",
        "on the twenty second",
        "a hundred times",
        "hundreds of people",
        "one twenty",
        "twenty five five",
        "oh one more thing",
        "at this point two of them left",
        "to be or not to be",
        "and a point",
        "hundred",
        "minus",
        "one hundred two hundred",
        "half past",
        "five hour",
        "the nineteen sixties",
        "twenty thirds",
        "point five percent",
        "it rose point five percent",
        "oh point five percent",
        "hundred and one dollars",
    ],
)
def test_what_stays_a_word_in_english(en: Callable[[str], str], text: str) -> None:
    assert en(text) == text


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [
        ("fünf euro zwanzig", "5,20 €"),
        ("fünf euro", "5 €"),
        ("ein euro und fünf cent", "1,05 €"),
        ("fünf euro zwanzig prozent", "5 € 20 %"),
        ("drei komma eins euro zwanzig", "3,1 € 20"),
        ("minus fünf euro", "-5 €"),
        ("drei komma eins vier", "3,14"),
        ("drei komma vierzehn", "3,14"),
        ("minus zwanzig grad celsius", "-20 °C"),
        ("um drei uhr zwanzig", "um 3:20 Uhr"),
        ("um ein uhr", "um 1 Uhr"),
        ("halb eins", "12:30 Uhr"),
        ("viertel vor drei", "2:45 Uhr"),
        ("neunzehnhundertvierundachtzig", "1984"),
        ("zweitausendvierundzwanzig", "2024"),
        ("null acht neun", "089"),
        ("Einundzwanzig", "21"),
        ("am vierzehnten mai", "am 14. mai"),
        ("zwei millionen dreihunderttausend", "2.300.000"),
        ("hundert und zwanzig", "100 und 20"),
        ("zehn kilometer", "10 km"),
    ],
)
def test_german_patterns(de: Callable[[str], str], spoken: str, expected: str) -> None:
    assert de(spoken) == expected
    assert de(expected) == expected


@pytest.mark.parametrize(
    "text",
    ["einer von ihnen", "eine uhr", "das ist ein haus", "und", "achtung", "die erste", "zwei oder drei",
     "eine million", "elf freunde", "wir achten darauf", "millionen", "drei und"],
)  # fmt: skip
def test_what_stays_a_word_in_german(de: Callable[[str], str], text: str) -> None:
    assert de(text) == text


_VOCABULARY = [
    *[
        "zero",
        "one",
        "two",
        "three",
        "ten",
        "twenty",
        "ninety",
        "hundred",
        "thousand",
        "and",
        "a",
        "oh",
        "point",
        "minus",
        "first",
        "second",
    ],
    *["dollars", "cents", "percent", "o'clock", "p", "m", "half", "past", "house"],
]


@given(st.lists(st.sampled_from(_VOCABULARY), max_size=12))
def test_laws_of_times(words: list[str]) -> None:
    """Whatever is said: no crash, no word without time, times in order, what is written stays written."""
    formatter = Formatter([_NUMBERS])
    spoken = [Word(w, n * 0.5, n * 0.5 + 0.4, 0.1 * (n % 10)) for n, w in enumerate(words)]
    (found,), changes = formatter.format([spoken])
    assert bool(found) == bool(spoken)
    for before, after in pairwise(found):
        assert before.start <= before.end <= after.start
    if spoken:
        assert (found[0].start, found[-1].end) == (spoken[0].start, spoken[-1].end)
        low, high = min(w.confidence for w in spoken), max(w.confidence for w in spoken)
        assert all(low - 1e-4 <= w.confidence <= high + 1e-4 for w in found)
    text = " ".join(w.word for w in found)
    assert formatter.text(text) == text
    for change in changes:
        assert change.before != change.after
    house = [w for w in found if w.word == "house"]
    assert house == [w for w in spoken if w.word == "house"]


_NUMBERS = Numbers(load_table("en"))


def test_a_number_spans_its_words() -> None:
    words = [
        Word(w, s, s + 0.3, c) for w, s, c in [("in", 0.0, 0.9), ("two", 1.0, 0.5), ("hundred", 1.5, 0.7)]
    ]
    (found,), (change,) = Formatter([_NUMBERS]).format([words])
    assert found == [words[0], Word("200", 1.0, 1.8, 0.6)]
    assert (change.stage, change.before, change.after, change.start) == ("numbers", "two hundred", "200", 1.0)


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [
        ("twenty one.", "21."),
        ("it is twenty one, or thirty two!", "it is 21, or 32!"),
        ("twenty, one hundred", "20, 100"),
        ("five dollars and one cent.", "$5.01."),
        ("at ten p.m., five percent.", "at 10 p.m., 5%."),
        ("nineteen eighty four; hundred.", "1984; hundred."),
        ("... twenty one ...", "... 21 ..."),
        ("(twenty one)", "(twenty one)"),
        ('"one hundred twenty five"', '"one hundred twenty five"'),
        ('twenty "five"', 'twenty "five"'),
    ],
)
def test_a_number_ends_at_a_mark_and_keeps_it(en: Callable[[str], str], spoken: str, expected: str) -> None:
    assert en(spoken) == expected


def test_a_mark_is_not_written_twice(de: Callable[[str], str]) -> None:
    assert de("am einundzwanzigsten. um drei uhr.") == "am 21. um 3 Uhr."


def test_times_of_numbers_with_a_mark() -> None:
    words = [Word(w, float(n), n + 0.5, 1.0) for n, w in enumerate(["so", "twenty", "one.", "thirty", "two"])]
    (found,), changes = Formatter([_NUMBERS]).format([words])
    assert [(w.word, w.start, w.end) for w in found] == [
        ("so", 0.0, 0.5),
        ("21.", 1.0, 2.5),
        ("32", 3.0, 4.5),
    ]
    assert [change.before for change in changes] == ["twenty one.", "thirty two"]


@pytest.mark.parametrize(
    "text", ["vier und zwanzig", "zwischen vier und zwanzig prozent", "hundertvier und zwanzigtausend"]
)
def test_what_may_be_one_number_spelled_apart_stays(de: Callable[[str], str], text: str) -> None:
    assert de(text) == text
    assert de("zwanzig und dreißig") == "20 und 30"


def test_numbers_above_a_billion(en: Callable[[str], str], de: Callable[[str], str]) -> None:
    assert en("two trillion three billion and one") == "2,003,000,000,001"
    assert en("one point five trillion dollars") == "$1.5 trillion"
    assert de("zwei billionen drei milliarden") == "2.003.000.000.000"


def test_segments_are_read_apart() -> None:
    segments = [[Word("twenty", 0.0, 0.4, 1.0)], [], [Word("one", 3.0, 3.4, 1.0)]]
    found, _ = Formatter([_NUMBERS]).format(segments)
    assert [[w.word for w in words] for words in found] == [["20"], [], ["one"]]


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
