"""Assignments on the command line."""

from __future__ import annotations

from itertools import permutations

import pytest

from firstwords.config import override


@pytest.mark.parametrize(
    "given", tuple(permutations(("search.kind=ctc_beam", "search.beam=3", "search.language_model.bonus=0.5")))
)
def test_a_kind_keeps_what_was_said_before_it(given: tuple[str, ...]) -> None:
    values = {"search": {"kind": "greedy", "width": 1}}
    wanted = {"search": {"kind": "ctc_beam", "beam": 3, "language_model": {"bonus": 0.5}}}
    assert override(values, given) == wanted


def test_the_last_one_counts() -> None:
    values = {"search": {"kind": "greedy"}}
    twice = ("search.kind=ctc_beam", "search.beam=3", "search.kind=rescoring", "search.beam=4")
    assert override(values, twice) == {"search": {"kind": "rescoring", "beam": 4}}
    table = ('search={kind="ctc_beam", beam=2}', "search.kind=rescoring")
    assert override(values, table) == {"search": {"kind": "rescoring"}}
    assert override({}, ("seed=1", "seed=2", "kind=3")) == {"seed": 2, "kind": 3}
