"""Assignments on the command line."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from firstwords.config import override, parse_config, read_toml
from firstwords.errors import ConfigError
from firstwords.model.recipe import Recipe


@pytest.mark.parametrize(
    "given", tuple(permutations(("search.kind=ctc_beam", "search.beam=3", "search.language_model.bonus=0.5")))
)
def test_a_kind_keeps_what_was_said_before_it(given: tuple[str, ...]) -> None:
    values = {"search": {"kind": "greedy", "width": 1}}
    wanted = {"search": {"kind": "ctc_beam", "beam": 3, "language_model": {"bonus": 0.5}}}
    assert override(values, given) == wanted


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes('\ufeffname = "ọ̀"\n'.encode())
    assert read_toml(tmp_path / "a.toml") == {"name": "ọ̀"}
    with pytest.raises(ConfigError, match="does not exist"):
        read_toml(tmp_path / "b.toml")


def test_the_last_one_counts() -> None:
    values = {"search": {"kind": "greedy"}}
    twice = ("search.kind=ctc_beam", "search.beam=3", "search.kind=rescoring", "search.beam=4")
    assert override(values, twice) == {"search": {"kind": "rescoring", "beam": 4}}
    table = ('search={kind="ctc_beam", beam=2}', "search.kind=rescoring")
    assert override(values, table) == {"search": {"kind": "rescoring"}}
    assert override({}, ("seed=1", "seed=2", "kind=3")) == {"seed": 2, "kind": 3}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("search.kind=ctc_beam", "search.beam=3", "search.kind=greedy"), {"kind": "greedy"}),
        (("search.beam=3", "search.kind=ctc_beam", "search.kind=greedy"), {"kind": "greedy"}),
        (("search.kind=ctc_beam", "search.beam=3", "search.kind=ctc_beam"), {"kind": "ctc_beam", "beam": 3}),
        (
            ("search.kind=ctc_beam", "search.beam=3", "search.kind=greedy", "search.width=2"),
            {"kind": "greedy", "width": 2},
        ),
        (
            ("search.kind=ctc_beam", "search.beam=3", "search.kind=greedy", "search.kind=ctc_beam"),
            {"kind": "ctc_beam"},
        ),
        (('search={kind="ctc_beam", beam=2}', "search.n_best=1", "search.kind=greedy"), {"kind": "greedy"}),
        (("search={beam=3}", "search.kind=ctc_beam"), {"kind": "ctc_beam", "beam": 3}),
        (
            ("search.kind=ctc_beam", "search.lm.kind=a", "search.lm.b=1", "search.kind=greedy"),
            {"kind": "greedy"},
        ),
    ],
)
def test_another_kind_keeps_nothing_of_the_one_before(
    given: tuple[str, ...], wanted: dict[str, object]
) -> None:
    assert override({"search": {"kind": "attention_beam", "coverage": 1.0}}, given) == {"search": wanted}


def test_kinds_of_other_sections_are_left_alone() -> None:
    given = ("a.kind=x", "a.b.kind=y", "a.b.c=1", "a.b.kind=z", "ab.kind=v", "ab.c=2", "a.d=3")
    wanted = {"a": {"kind": "x", "b": {"kind": "z"}, "d": 3}, "ab": {"kind": "v", "c": 2}}
    assert override({}, given) == wanted


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("encoder.downsampling=4", r"recipe\.encoder\.downsampling: .*\(got 4\)"),
        ("features.shift_ms=inf", r"recipe\.features\.shift_ms: .*finite number"),
        (f"features.sample_rate=1{'0' * 400}", r"recipe\.features\.sample_rate: "),
        ("features.window_ms=nan", r"recipe\.features\.window_ms: "),
    ],
)
def test_what_a_fuzz_found_is_named_by_its_key(assignment: str, said: str) -> None:
    kinds = {"encoder": {"kind": "zipformer"}, "features": {"kind": "fbank"}}
    values = kinds | {"heads": {"ctc": {"kind": "ctc"}}}
    with pytest.raises(ConfigError, match=said):
        parse_config(override(values, [assignment]), Recipe, name="recipe", source="--set")
