"""What makes figures of spoken numbers, in two languages."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from firstwords.formatting.number_table import load_table
from firstwords.formatting.numbers import Numbers
from firstwords.formatting.stage import Formatter


@pytest.fixture(scope="module")
def en() -> Callable[[str], str]:
    return Formatter([Numbers(load_table("en"))]).text


@pytest.fixture(scope="module")
def de() -> Callable[[str], str]:
    return Formatter([Numbers(load_table("de-AT"))]).text
