"""What every stage may rely on: times, confidences, changes, the order of stages; and how they are named."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.config import parse_config
from firstwords.errors import ConfigError, TextError, UsageError
from firstwords.formatting.build import (
    build_formatter,
    hotword_phrases,
    named_stages,
    read_phrases,
    recipe_formatter,
)
from firstwords.formatting.settings import HotwordsConfig, NumbersConfig, PostConfig, StageName
from firstwords.formatting.stage import Formatter, Rewrite, Stage, Word, Words, rewritten


class Says(Stage):
    """Rewrites the first segment as told."""

    def __init__(self, *rewrites: Rewrite, name: str = "says") -> None:
        self.told, self._name = list(rewrites), name

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return f"{self._name} {self.told}"

    def rewrites(self, segments: Sequence[Words]) -> list[list[Rewrite]]:
        return [self.told if n == 0 else [] for n in range(len(segments))]


WORDS = [Word(w, float(n), n + 0.5, 0.2 * n) for n, w in enumerate("abcd")]


def test_words_share_the_time_of_those_they_replace() -> None:
    found, changes = rewritten(WORDS, [Rewrite(1, 3, ("xxx", "y", "z"))], "s")
    assert found == [
        WORDS[0],
        Word("xxx", 1.0, 1.9, 0.3),
        Word("y", 1.9, 2.2, 0.3),
        Word("z", 2.2, 2.5, 0.3),
        WORDS[3],
    ]
    assert [(c.before, c.after, c.start, c.end) for c in changes] == [("b c", "xxx y z", 1.0, 2.5)]


def test_word_by_word_each_keeps_its_own() -> None:
    found, changes = rewritten(WORDS, [Rewrite(0, 2, ("A", "b"))], "s")
    assert found[:2] == [Word("A", 0.0, 0.5, 0.0), Word("b", 1.0, 1.5, 0.2)]
    assert len(changes) == 1
    assert rewritten(WORDS, [Rewrite(0, 1, ("a",))], "s") == (WORDS, [])  # the same is no change


@pytest.mark.parametrize(
    "rewrites",
    [
        [Rewrite(0, 0, ("x",))],
        [Rewrite(0, 1, ())],
        [Rewrite(0, 1, ("",))],
        [Rewrite(0, 2, ("x",)), Rewrite(1, 3, ("y",))],
        [Rewrite(3, 5, ("x",))],
        [Rewrite(2, 3, ("x",)), Rewrite(0, 1, ("y",))],
        [Rewrite(-1, 1, ("x",))],
    ],
)
def test_a_stage_that_would_lose_words_is_stopped(rewrites: list[Rewrite]) -> None:
    with pytest.raises(ValueError, match="s:"):
        rewritten(WORDS, rewrites, "s")


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=6))
def test_times_never_go_back_and_nothing_is_lost(parts: list[tuple[int, int]]) -> None:
    """Any rewrites: (words taken, words given; 0 = left alone)."""
    words: list[Word] = []
    rewrites: list[Rewrite] = []
    for taken, given_ in parts:
        first = len(words)
        words += [Word("w", n + 0.1, n + 0.9, 0.5) for n in range(first, first + taken)]
        if given_:
            rewrites.append(Rewrite(first, first + taken, tuple("x" * (n + 1) for n in range(given_))))
    found, changes = rewritten(words, rewrites, "s")
    assert len(found) == sum(given_ or taken for taken, given_ in parts)
    assert len(changes) == len(rewrites)
    assert all(a.start <= a.end <= b.start for a, b in pairwise(found))
    if words:
        assert (found[0].start, found[-1].end) == (words[0].start, words[-1].end)


def test_stages_run_in_order_and_changes_say_whose_they_are() -> None:
    first = Says(Rewrite(0, 2, ("ab",)), name="one")
    second = Says(Rewrite(0, 1, ("AB",)), name="two")
    formatter = Formatter([first, second])
    (found, empty), changes = formatter.format([WORDS, []])
    assert [w.word for w in found] == ["AB", "c", "d"]
    assert empty == []
    assert [(c.stage, c.before, c.after) for c in changes] == [("one", "a b", "ab"), ("two", "ab", "AB")]
    assert formatter.names == ("one", "two")
    assert Formatter([]).format([WORDS]) == ([WORDS], [])
    assert Formatter([]).text("  a  b ") == "a b"


def parse(text: dict[str, object]) -> PostConfig:
    return parse_config(text, PostConfig, name="post", source="recipe.toml")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stages": ["numbers", "numbers"]}, "twice"),
        ({"stages": ["spelling"]}, "stages"),
        ({"stages": ["punctuation"]}, "needs a model"),
        ({"stages": ["hotwords"]}, "phrases"),
        ({"stage": ["numbers"]}, "Did you mean 'stages'"),
        ({"numbers": {"tabel": "x"}}, "Did you mean 'table'"),
        ({"hotwords": {"unsure": 2}}, "unsure"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(values)


def test_no_section_no_stage(tmp_path: Path) -> None:
    assert recipe_formatter(None, language="en", folder=tmp_path) is None
    assert recipe_formatter(PostConfig(), language="en", folder=tmp_path) is None


def test_stages_are_built_in_the_order_named(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffOuagadougou\n\n  New   York \n", encoding="utf-8")
    config = PostConfig(
        stages=("hotwords", "numbers"),
        hotwords=HotwordsConfig(file="names.txt", phrases=("New York", "Accra")),
    )
    formatter = build_formatter(config, language="en", folder=tmp_path)
    assert formatter.names == ("hotwords", "numbers")
    assert hotword_phrases(config.hotwords, tmp_path) == ("New York", "Accra", "Ouagadougou")
    with pytest.raises(ConfigError, match="'und'"):
        build_formatter(PostConfig(stages=("numbers",)), language="und", folder=tmp_path)
    german = PostConfig(stages=("numbers",), numbers=NumbersConfig(language="de"))
    assert build_formatter(german, language="und", folder=tmp_path).text("zwanzig") == "20"


def test_phrases_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    for name, said in [("none.txt", "cannot be read"), ("empty.txt", "no phrases"), ("bytes.txt", "UTF-8")]:
        with pytest.raises(TextError, match=said):
            read_phrases(tmp_path / name)
    (tmp_path / "boosts.txt").write_text(
        "Ouagadougou\t2.5\n\nBobo-Dioulasso\n", encoding="utf-8"
    )  # as --phrases
    assert read_phrases(tmp_path / "boosts.txt") == ["Ouagadougou", "Bobo-Dioulasso"]


def test_the_command_line_names_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = PostConfig(
        stages=("numbers",),
        hotwords=HotwordsConfig(phrases=("a",), unsure=0.5),
        numbers=NumbersConfig(table="t"),
    )
    found = named_stages("hotwords=names.txt, numbers", recipe)
    assert found.stages == ("hotwords", "numbers")
    assert found.hotwords == HotwordsConfig(file=str(tmp_path / "names.txt"), unsure=0.5)
    assert found.numbers.table == "t"
    assert named_stages("hotwords", recipe).hotwords.phrases == ("a",)
    assert named_stages("none", recipe).stages == ()
    for given_, wanted in (
        ("numbers=en", NumbersConfig(language="en")),
        ("numbers=de-AT", NumbersConfig(language="de-AT")),
        ("numbers=own.toml", NumbersConfig(table=str(tmp_path / "own.toml"))),
        ("numbers=./en", NumbersConfig(table=str(tmp_path / "en"))),
    ):
        assert named_stages(given_, None).numbers == wanted
    assert named_stages("numbers=en", recipe).numbers == NumbersConfig(language="en")  # in place of its table
    (tmp_path / "en").mkdir()  # such as that of a corpus
    assert named_stages("numbers=en", None).numbers.language == "en"
    (tmp_path / "en").rmdir()
    (tmp_path / "en").write_text("", encoding="utf-8")
    assert named_stages("numbers=en", None).numbers == NumbersConfig(table=str(tmp_path / "en"))
    assert named_stages("numbers", None) == PostConfig(stages=("numbers",))


@pytest.mark.parametrize(
    "given_",
    ["", "spelling", "numbers,numbers", "numbers,", "none,numbers", "punctuation", "hotwords", "numbers="],
)
def test_stages_that_cannot_be_are_refused(given_: str) -> None:
    with pytest.raises(UsageError, match="--post"):
        named_stages(given_, None)


def test_the_identity_of_stages_is_all_that_decides_what_they_write(tmp_path: Path) -> None:
    table = tmp_path / "own.toml"
    phrases = tmp_path / "names.txt"

    def identity(*stages: StageName, number: int = 1, phrase: str = "Accra", unsure: float = 0.8) -> str:
        table.write_text(f'language = "xx"\n[cardinals]\nun = {number}\n', encoding="utf-8")
        phrases.write_text(f"{phrase}\nof\n", encoding="utf-8")
        config = PostConfig(
            stages=stages,
            numbers=NumbersConfig(table=table.name),
            hotwords=HotwordsConfig(file=phrases.name, unsure=unsure),
        )
        return build_formatter(config, language="xx", folder=tmp_path).identity

    both: tuple[StageName, StageName] = ("numbers", "hotwords")
    same = identity(*both)
    assert identity(*both) == same
    others = [
        identity(*both, number=2),
        identity(*both, phrase="Lagos"),
        identity(*both, unsure=0.7),
        identity("hotwords", "numbers"),
        identity("numbers"),
        identity(),
    ]
    assert len({same, *others}) == 1 + len(others)
    assert others[-1] == ""
