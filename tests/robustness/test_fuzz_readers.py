"""Mutated and arbitrary bytes through every reader: a result or one of our errors, soon, in little memory.

A small sample of what ``benchmarks/fuzz_readers.py`` does for hours; hypothesis draws the edits and shrinks
what fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fuzzed_corpora
import fuzzed_models
from fuzzing import Edit, Reader, apply, try_one

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="alarm signals")

READERS = (*fuzzed_corpora.READERS, *fuzzed_models.READERS)
EDITS = st.lists(
    st.builds(
        Edit,
        kind=st.integers(0, 99),
        at=st.floats(0, 1, exclude_max=True),
        size=st.integers(1, 199),
        value=st.integers(0, 2**32 - 1),
    ),
    max_size=4,
)
EDITED, ARBITRARY, SLOW = 4, 2, 1  # inputs for a reader; the long run has thousands


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_result_or_our_error(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    reader.prepare(folder)
    seeds = reader.seeds()
    for seed in seeds:  # each seed is read as it is: otherwise edits would only find one early refusal
        if reader.name not in ("audio foreign", "model weights", "model info weights"):
            tried = try_one(reader, seed, folder)
            assert not tried.fault, tried.fault
            assert not tried.refused, f"{reader.name}: the seed itself is refused"
    sampled(reader, seeds, folder)()


def sampled(reader: Reader, seeds: list[bytes], folder: Path) -> Callable[[], None]:
    calm: dict[str, Any] = {
        "deadline": None,
        "derandomize": True,
        "database": None,
        "suppress_health_check": list(HealthCheck),
        "phases": (Phase.generate, Phase.shrink),
    }

    @settings(max_examples=SLOW if reader.slow else EDITED, **calm)
    @given(st.sampled_from(seeds), EDITS)
    def edited(seed: bytes, edits: list[Edit]) -> None:
        tried = try_one(reader, apply(seed, edits, seeds), folder)
        assert not tried.fault, tried.fault

    @settings(max_examples=SLOW if reader.slow else ARBITRARY, **calm)
    @given(st.binary(max_size=400))
    def arbitrary(data: bytes) -> None:
        tried = try_one(reader, data, folder)
        assert not tried.fault, tried.fault

    def both() -> None:
        edited()
        arbitrary()

    return both


def test_a_reader_that_hangs_or_grows_or_breaks_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge itself."""
    import fuzzing

    def breaks(_: Path) -> None:
        raise KeyError("x")

    def grows(_: Path) -> None:
        assert len(b"x" * (400 * 2**20))

    def hangs(_: Path) -> None:
        while True:
            pass

    for read, words, seconds in (
        (breaks, "KeyError", 10.0),
        (grows, "memory grew", 10.0),
        (hangs, "longer than", 0.2),
    ):
        monkeypatch.setattr(fuzzing, "SLOWEST", seconds)
        tried = try_one(Reader("x", lambda: [b""], "x", read), b"", tmp_path)
        assert words in tried.fault


def test_edits_are_the_same_every_time() -> None:
    edits = [Edit(k, 0.37, 50, 12345 + k) for k in range(14)]
    first = apply(b"one two 3 four\nfive 6.5", edits, [b"x" * 100])
    assert first == apply(b"one two 3 four\nfive 6.5", edits, [b"x" * 100])
    changed = [apply(b"abc 12\n" * 9, [e]) != b"abc 12\n" * 9 for e in edits]
    assert sum(changed) >= 12
