"""Times, dates, money and marks: what becomes figures and what must stay a word."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.formatting.number_table import load_table
from firstwords.formatting.numbers import Numbers
from firstwords.formatting.stage import Formatter, Word


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


def test_segments_are_read_apart() -> None:
    segments = [[Word("twenty", 0.0, 0.4, 1.0)], [], [Word("one", 3.0, 3.4, 1.0)]]
    found, _ = Formatter([_NUMBERS]).format(segments)
    assert [[w.word for w in words] for words in found] == [["20"], [], ["one"]]
