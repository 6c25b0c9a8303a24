"""A text that is known, laid along the frames of its recording: the time of every token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from firstwords.errors import SearchError
from firstwords.inference.transcript import Token
from firstwords.search.align import align

_MOST_CELLS = 500_000_000  # frames x states, a byte each


def aligned_tokens(
    log_probs: npt.NDArray[np.float32], ids: Sequence[int], *, frame_seconds: float, name: str
) -> list[Token]:
    """(T, V) log-probabilities and the ids that were said -> the tokens with their times."""
    if len(log_probs) * (2 * len(ids) + 1) > _MOST_CELLS:
        minutes = len(log_probs) * frame_seconds / 60
        raise SearchError(
            f"{name}: {minutes:.0f} min with {len(ids)} tokens are too long to align at once.",
            mend="Align it in pieces of about ten minutes: give start, duration and the text between.",
        )
    found = align(log_probs, ids, name=name)
    return [
        Token(id_, first * frame_seconds, (last + 1) * frame_seconds, sure)
        for id_, first, last, sure in zip(
            found.tokens, found.first, found.last, found.confidences, strict=True
        )
    ]
