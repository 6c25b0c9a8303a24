"""Is the model still answering every frame with the blank, and what is done about it.

A CTC model first learns that the blank is nearly always right, and stays on that plateau for 15 to 35 % of
a short run (the reference Zipformer on 50 minutes of speech: 5 to 11 of 32 minutes). Some never leave it. The
reason is that almost all of the alignment's weight lies on blanks, so hardly any gradient tells one letter
from another (Zeyer et al., 2021, arXiv:2105.14849). Dividing the posteriors by the model's own label
frequencies inside the loss gives the letters that weight back (label priors: Huang et al., 2024,
arXiv:2406.02560); it is switched on here when the plateau lasts longer than that, and off again once letters
appear, so that the finished model is an ordinary CTC model. When instead the loss grows, steps are too large:
the rate is halved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

STUCK_BLANK = 0.97  # share of frames whose best symbol is the blank
FREE_BLANK = 0.90  # letters have appeared: in speech at 25 frames a second 50 to 85 % are blanks
# Of the run, before anything is done. From 0.10 on it hurt: a Conformer that would have left the plateau by
# itself (26.8 % CER after three quarters of the run) stayed at 70.9 (LOG.md, 2026-11-23).
STUCK_PROGRESS = 0.35
STUCK_STEPS = 100
PRIOR_WEIGHT = 0.3  # of the label priors, as in the paper
DIVERGED = 1.5  # times the lowest smoothed loss
SMALL = 0.5  # nats: losses below are the noise of single batches to each other


@dataclass
class BlankMonitor:
    """Watches training batches; all of it is part of a checkpoint."""

    blank: float = 0.0  # smoothed share of blank frames
    loss: float = 0.0  # smoothed
    lowest: float = float("inf")
    seen: int = 0
    compared: int = 0  # losses of one kind
    prior_weight: float = 0.0  # what the task should use now
    helped: bool = False
    lowered: int = 0  # step of the last lowering of the rate

    def update(self, progress: float, *, blank: float, loss: float) -> str | None:
        """Shares and loss of one step -> what to tell the user, if anything was decided."""
        self.seen += 1
        keep = min(0.98, 1 - 1 / self.seen)
        self.blank = keep * self.blank + (1 - keep) * blank
        self.compared += 1
        keep = min(0.98, 1 - 1 / self.compared)
        self.loss = keep * self.loss + (1 - keep) * loss
        if self.compared >= STUCK_STEPS:
            self.lowest = min(self.lowest, self.loss)
        if self.prior_weight and self.blank < FREE_BLANK:
            self.prior_weight = 0.0
            self._begin_anew()
            return f"Letters have appeared ({self.blank:.0%} blanks): back to the ordinary loss."
        if not self.helped and self.stuck and progress >= STUCK_PROGRESS and self.seen >= STUCK_STEPS:
            self.helped, self.prior_weight = True, PRIOR_WEIGHT
            self._begin_anew()
            return (
                f"After {progress:.0%} of the run the model still answers {self.blank:.0%} of the audio with "
                "silence (the blank). From here the loss weighs letters by their rarity until they appear."
            )
        return None

    def _begin_anew(self) -> None:
        """Forget the losses so far: from here on another one is measured, maybe half as large."""
        self.lowest, self.compared = float("inf"), 0

    @property
    def stuck(self) -> bool:
        """True while nearly every frame is a blank."""
        return self.blank > STUCK_BLANK

    def asks_for_half_rate(self, step: int) -> bool:
        """True where the loss has grown by half since its lowest, unless small; not again for a while."""
        if self.loss > DIVERGED * max(self.lowest, SMALL) and step - self.lowered > 2 * STUCK_STEPS:
            self.lowered, self.lowest = step, self.loss
            return True
        return False

    def to_record(self) -> dict[str, Any]:
        """State -> plain values."""
        return asdict(self)

    def load(self, record: Mapping[str, Any]) -> None:
        """Go on from a saved state; those of before do not know ``compared``."""
        for name, value in ({"compared": record.get("seen", 0)} | dict(record)).items():
            setattr(self, name, value)
