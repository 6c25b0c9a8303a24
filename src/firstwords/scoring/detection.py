"""How well things are found that may be there or not: phrases that are listened for, marks behind words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Detections:
    """How often something was rightly found, missed, found wrongly; ``Detections()`` is the zero of ``+``."""

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0

    def __add__(self, other: Detections) -> Detections:
        return Detections(
            self.hits + other.hits, self.misses + other.misses, self.false_alarms + other.false_alarms
        )

    @property
    def recall(self) -> float:
        """Share of what was there that was found; 1 where nothing was there."""
        there = self.hits + self.misses
        return self.hits / there if there else 1.0

    @property
    def precision(self) -> float:
        """Share of what was found that was there; 1 where nothing was found."""
        found = self.hits + self.false_alarms
        return self.hits / found if found else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 1 where there is nothing to find and nothing was found."""
        total = 2 * self.hits + self.misses + self.false_alarms
        return 2 * self.hits / total if total else 1.0
