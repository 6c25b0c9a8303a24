"""How many threads compute: as many as the user wishes, else as there are cores for this process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from firstwords.cores import available_cores, wished_threads
from firstwords.device import set_threads


@pytest.mark.parametrize(
    ("wish", "threads"),
    [
        (None, None),
        ("", None),
        ("3", 3),
        (" 2 ", 2),
        ("4,2", 4),  # for each level of nesting
        ("0", None),
        ("-1", None),
        ("many", None),
        ("٣", None),
        ("99999999999999", None),
    ],
)
def test_what_the_environment_wishes(
    wish: str | None, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wish is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
    assert wished_threads() == threads


def test_no_more_cores_than_the_machine_has() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.fixture
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("as_before")
def test_the_wish_holds_for_torch_unless_the_call_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert set_threads() == 3
    assert set_threads(2) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    assert set_threads() == available_cores()
