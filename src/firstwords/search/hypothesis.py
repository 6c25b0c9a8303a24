"""What every search returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """One reading of one utterance. ``score`` is the weighted sum of ``parts``, natural log.

    ``times`` are the seconds at which each token is spoken (its first frame), ``ends`` the seconds after
    its last frame, ``confidences`` in 0..1; each None where the search does not know them. ``divisor`` is
    what the search has divided its sums by (1: nothing); what is added to the score later is divided, too.
    ``cut``: it has as many tokens as its head can write at all, so more may have been said.
    """

    tokens: tuple[int, ...]
    score: float
    parts: Mapping[str, float]
    times: tuple[float, ...] | None = None
    ends: tuple[float, ...] | None = None
    confidences: tuple[float, ...] | None = None
    divisor: float = 1.0
    cut: bool = False

    @property
    def confidence(self) -> float | None:
        """Mean over the tokens; None without tokens or where the search does not know."""
        return sum(self.confidences) / len(self.confidences) if self.confidences else None
