"""Miniature corpora: a function that writes a folder from a description; one with nothing wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from clean_corpus import make_clean_corpus
from firstwords.data.corpora import LAYOUTS, Imported, Options, detect_layout
from firstwords.data.manifest import Corpus, load_corpus

RATE = 8000
Tree = Callable[[Mapping[str, str | bytes | float]], Path]


def tone(seconds: float, pitch: float = 200.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """{'a/x.wav': 1.5, 'a/x.txt': 'text'} -> folder; a number is a recording of so many seconds."""

    def write(files: Mapping[str, str | bytes | float]) -> Path:
        root = tmp_path / "source"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            match content:
                case bytes():
                    path.write_bytes(content)
                case str():
                    path.write_text(content, encoding="utf-8", newline="")
                case _:
                    soundfile.write(path, tone(content), RATE)
        return root

    return write


Take = Callable[..., Imported]


@pytest.fixture
def take() -> Take:
    """Detect the layout of a source, which must be the expected one, and read it."""

    def read(path: Path, expected: str, **options: Any) -> Imported:
        assert detect_layout(path).name == expected
        return LAYOUTS[expected].read(path, Options(**options))

    return read


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Nothing wrong; never changed by a test."""
    return load_corpus(make_clean_corpus(tmp_path_factory.mktemp("clean")))
