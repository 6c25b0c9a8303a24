"""Named normalizers on hand-made examples of many scripts."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from firstwords.errors import TextError
from firstwords.text.normalize import NORMALIZERS, normalizer, normalizers_for, writes_spaces


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none", " A\u0301 \u202e!", " A\u0301 \u202e!"),
        ("nfc", "e\u0301 ,  A", "\u00e9 ,  A"),
        ("formatted", "\ufeffHello,\u00a0 World!\n", "Hello, World!"),
        ("default", "Hello, World!", "hello world"),
        ("default", "word—word and/or U.S.A…", "word word and or u s a"),
        (
            "default",
            "It’s the dogs’ well\u2010known rock ’n’ roll",
            "it's the dogs' well-known rock 'n' roll",
        ),
        ("default", "he said ‘Don’t go’ -- twice -", "he said don't go twice"),
        ("default", "''bold'' ' - a -b c-", "bold a b c"),
        ("default", "„Ja“, »nein« ‚doch‘.", "ja nein doch"),
        ("default", "STRASSE Straße", "strasse straße"),
        ("default", "ΟΔΟΣ", "οδος"),
        ("default", "Ọlọ́run ń Bọ̀!", "ọlọ́run ń bọ̀"),
        ("default", "Col·legi · fi", "col·legi fi"),
        ("default", "צה״ל אמר: «שלום»", "צה״ל אמר שלום"),
        ("default", "می‌خواهم", "می‌خواهم"),
        ("default", "क्‍ष है।", "क्‍ष है"),
        ("default", "今日は、いい天気。", "今日は いい天気"),
        ("default", "a\u200bb so\u00adft \u202bאב\u202c", "ab soft אב"),
        ("default", "cʼas ʻokina", "cʼas ʻokina"),
        ("default", "bo‘lsa O‘zbek", "bo'lsa o'zbek"),
        ("default", "3,5 km_h 50%", "3 5 km h 50"),
        ("default", "x\ud800y", "xy"),
        ("keep_case", "It’s Me!", "It's Me"),
        ("turkic", "IŞIK, İstanbul", "ışık istanbul"),
        ("score_default", "Straße 25, It’s “ok”", "strasse 25 it's ok"),
        ("score_default", "cʼas Col·legi צה״ל", "c'as collegi צהל"),
        ("score_default", "ΟΔΟΣ οδος", "οδοσ οδοσ"),
        ("score_turkic", "IŞIK ışık", "ışık ışık"),
        ("strip_diacritics", "Ọlọ́run ń Bọ̀ é", "olorun n bo e"),
        ("strip_diacritics", "مُحَمَّد مـرحبا", "محمد مرحبا"),
        ("strip_diacritics", "हिन्दी が ไทยที่", "हिन्दी が ไทยที่"),
        ("strip_diacritics", "안녕 מַיִם й", "안녕 מים и"),
    ],
)
def test_examples(name: str, text: str, expected: str) -> None:
    assert normalizer(name)(text) == expected


@pytest.mark.parametrize("name", list(NORMALIZERS))
def test_every_code_point_between_letters_is_stable(name: str) -> None:
    """One exhaustive pass over Unicode: idempotent, and what training reads holds no invisible control."""
    normalize = normalizer(name)
    letters = [
        chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cn", "Co", "Lo")
    ]
    for start in range(0, len(letters), 64):
        text = " ".join(f"a{c}b {c}a" for c in letters[start : start + 64])
        once = normalize(text)
        assert normalize(once) == once, name
        if name not in ("none", "nfc"):
            assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in once)
            assert not set("\u202a\u202e\u2066\u2069\u200e\u061c\ufeff\u200b") & set(once)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(TextError, match="Did you mean 'score_default'"):
        normalizer("score_defualt")
    with pytest.raises(TextError, match="Known: none, nfc"):
        normalizer("zzz")


@pytest.mark.parametrize(
    ("language", "names"),
    [
        ("tr", ("turkic", "score_turkic")),
        ("az-Latn-AZ", ("turkic", "score_turkic")),
        ("yo", ("default", "score_default")),
        ("trv", ("default", "score_default")),
        (None, ("default", "score_default")),
    ],
)
def test_language_chooses_the_names(language: str | None, names: tuple[str, str]) -> None:
    assert normalizers_for(language) == names


@pytest.mark.parametrize(
    ("texts", "spaced"),
    [
        (["seven", "two"], True),  # single words of a script that writes spaces
        (["one two"], True),
        (["zero", "你好"], False),
        (["你好 吗"], True),
        (["สวัสดี"], False),
        (["àbá"], True),
        ([], True),
    ],
)
def test_spaces_are_told_by_the_texts_or_the_script(texts: list[str], spaced: bool) -> None:
    assert writes_spaces(texts) is spaced
