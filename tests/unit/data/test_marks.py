"""Annotators' marks: found, and taken out only where somebody names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.data.corpora import Imported
from firstwords.data.manifest import Utterance
from firstwords.data.marks import find_marks, parse_marks
from firstwords.data.rules import Evidence
from firstwords.data.rules_text import text_markup
from firstwords.errors import UsageError

Tree = Callable[..., Path]
Take = Callable[..., Imported]


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("habari [laughs] ya leo", ["[laughs]"]),
        ("((cough)) (sema) <unk>", ["((cough))", "(sema)", "<unk>"]),
        ("{door  slams} xxx, *", ["{door slams}", "xxx", "*"]),
        ("ha*ri &=laughs # ??", ["ha*ri", "&=laughs", "#", "??"]),
        ('nini? ng\'ombe, mama-yake "ndiyo" exxxa «sawa»', []),
        ("R&B a/b 5 < 6", []),
    ],
)
def test_marks_are_told_from_words(text: str, marks: list[str]) -> None:
    assert find_marks(text) == marks


@pytest.mark.parametrize(
    ("wish", "text", "left"),
    [
        ("[]", "[laughs] habari [noise]  ya", "habari ya"),
        ("[]", "habari <unk> ((cough))", "habari <unk> ((cough))"),
        ("(())", "((cough)) (sema)", "(sema)"),
        ("() (())", "a ((cough (dry))) b", "a b"),
        ("(())", "a ((cough (dry))) b", "a b"),
        ("[]", "[one [two] three] b", "b"),
        ("[]", "left [open", "left [open"),
        ("xxx *", "xxx, habari * xxxl", "habari xxxl"),
        ("[]", "spaces  stay   as they are", "spaces  stay   as they are"),
    ],
)
def test_only_what_is_named_is_taken_out(wish: str, text: str, left: str) -> None:
    assert parse_marks([wish]).removed(text)[0] == left


@pytest.mark.parametrize("wish", ["[", "[x]", "(]", "][", "<unk>"])
def test_what_is_no_pair_and_no_word_is_refused(wish: str) -> None:
    with pytest.raises(UsageError, match="neither a pair of brackets nor a word"):
        parse_marks([wish])


@given(st.text(alphabet="ab []()<>{}*x#?&=\n", max_size=60))
def test_any_text_ends(text: str) -> None:
    left, found = parse_marks(["[] (()) () <> {} xxx"]).removed(text)
    assert len(left) <= len(text)
    assert not found or left != text
    find_marks(text)


def test_the_check_counts_each_mark_and_names_others() -> None:
    texts = ["[laughs] habari", "habari [laughs]", "habari xxx", "habari"]
    utterances = tuple(
        Utterance(id=str(n), audio=Path("a.wav"), start=n, duration=1.0, text=text)
        for n, text in enumerate(texts)
    )
    hits = dict(text_markup(Evidence(utterances, {}, decoded=False)))
    assert set(hits) == {"0", "1", "2"}
    assert hits["0"] == "'[laughs]' (2 times in the corpus); others are 'xxx' (1)"
    assert hits["2"] == "'xxx' (once in the corpus); others are '[laughs]' (2)"


def test_an_import_takes_out_what_is_named_and_says_how_much(tree: Tree, take: Take) -> None:
    files = {"a.wav": 1.0, "a.txt": "[laughs] habari  ya\nleo", "b.wav": 1.0, "b.txt": "[noise]"}
    files |= {"c.wav": 1.0, "c.txt": "sawa <unk>"}
    root = tree(files)
    plain = take(root, "folder")
    assert [u.text for u in plain.utterances] == ["[laughs] habari ya leo", "[noise]", "sawa <unk>"]
    assert not any("marks" in note for note in plain.notes)
    imported = take(root, "folder", remove_marks=("[]",))
    assert [u.text for u in imported.utterances] == ["habari ya leo", "", "sawa <unk>"]
    (note,) = [n for n in imported.notes if "marks" in n]
    assert note.startswith("2 marks were taken out of 2 transcripts (--remove-marks): '[laughs]' (1)")
    assert note.endswith("1 of them hold nothing else.")
    dropped = take(root, "folder", remove_marks=("[]",), drop_empty=True)
    assert [u.id for u in dropped.utterances] == ["a", "c"]
