"""Shared fixtures. ``shared`` is the one way a test reaches numbers and corpora outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The same commit gets the same verdict: 'make test' draws the same examples each time, make test-all others.
settings.register_profile("same", derandomize=True)
settings.register_profile("others", derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("FIRSTWORDS_EXAMPLES", "same"))

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden numbers and corpora: FIRSTWORDS_SHARED, else ../shared beside the repository."""
    folder = Path(os.environ.get("FIRSTWORDS_SHARED", REPOSITORY.parent / "shared"))
    if folder.is_dir():
        return folder
    message = f"{folder} is absent: set FIRSTWORDS_SHARED to the folder with golden/ and corpora/"
    if os.environ.get("FIRSTWORDS_REQUIRE_SHARED"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Reference numbers (see its README)."""
    return shared / "golden"


@pytest.fixture(scope="session")
def corpora(shared: Path) -> Path:
    """Small real corpora."""
    return shared / "corpora"
