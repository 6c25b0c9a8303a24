"""Where words begin and end in a sequence of tokens, as a tokenizer's pieces show it.

    letters     a n n a ▁ c o m e s        ▁ alone parts two words and belongs to neither
    pieces      ▁an na ▁come s             a piece that begins with ▁ begins a word

The first token of a sentence begins a word, the end of the sentence ends one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstwords.text.pieces import SPACE

END = 0  # column of scores of next tokens, and the token that starts a sentence
NEVER = float("-inf")


@dataclass(frozen=True)
class WordBoundaries:
    """For every id of a tokenizer whether it parts words, and whether it begins one."""

    parts: NDArray[np.bool_]  # (V,)
    begins: NDArray[np.bool_]  # (V,)

    @classmethod
    def of(cls, pieces: Sequence[str]) -> WordBoundaries:
        """A tokenizer's pieces -> what they say of words."""
        return cls(
            parts=np.array([piece == SPACE for piece in pieces]),
            begins=np.array([len(piece) > 1 and piece.startswith(SPACE) for piece in pieces]),
        )

    @property
    def vocabulary(self) -> int:
        return len(self.parts)
