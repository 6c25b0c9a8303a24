"""What a tokenizer promises, and how long its tokens take.

Law: ``decode(encode(t)) == t`` for every normalized ``t``. Id 0 is always the blank (and the padding of
target batches); there is no unknown piece: what is not in the vocabulary falls back to code points, then
bytes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

BLANK = "<blank>"


class Tokenizer(ABC):
    """Text <-> piece ids."""

    pieces: tuple[str, ...]  # id -> piece; id 0 is always <blank>

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Normalized text -> ids, none of them 0."""

    @abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """Ids -> text; blanks are skipped, bytes that form no character become U+FFFD."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write ``pieces.txt`` (and what else is needed to load) into ``folder``."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote."""

    @property
    def silent(self) -> tuple[int, ...]:
        """Ids beside the blank that are no text (``<unk>`` of a foreign list): ``decode`` skips them."""
        return ()

    @property
    def scores(self) -> tuple[float, ...]:
        """Log-probability of each piece, where the most probable pieces are chosen; else empty."""
        return ()

    @property
    def piece_hash(self) -> str:
        """Changes whenever any piece or its place changes: an old head is never reused in silence."""
        return hashlib.sha256("\n".join(self.pieces).encode()).hexdigest()


def fewest_frames(tokens: Sequence[object]) -> int:
    """Tokens -> fewest frames in which CTC can write them: one each, and a blank between equal neighbours.

    "a a b" takes four, a - a b. Of a batch of tensors: ``frames_needed`` in heads/ctc.py.
    """
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))
