"""How many utterances side by side, and how far they are filled up, so that few shapes of batches occur.

On a processor with bfloat16 every new shape of a matrix product costs about a third of a millisecond and
half a megabyte of freshly made machine code, and a step has hundreds of products: with a new length in every
batch that is more than the arithmetic (LOG.md, 2026-11-21). So a batch is a rectangle of constant *area*,
rows times length, in units of eight frames (0.16 s: the coarsest stack of a Zipformer divides them):

    area 12    1 x 12   2 x 6   3 x 4   4 x 3   6 x 2   12 x 1

All frame-wise layers then see one shape whatever the batch; only attention and convolution along time see as
many as there are divisors. Areas are numbers with many divisors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

UNIT_SECONDS = 0.16  # eight frames of 20 ms
CONTEXT_SECONDS = 0.07  # of features that the convolutions of the front end use up: not part of any unit
# fmt: off
_AREAS = (
    6, 12, 18, 24, 30, 36, 48, 60, 72, 84, 96, 120, 144, 168, 180, 240, 300, 360, 420, 480, 540, 600, 720,
    840, 1080, 1260, 1440, 1680, 2160, 2520, 3360, 4200, 5040, 7560, 10080, 15120, 20160, 25200,
)
# fmt: on
_WORTH_FILLING = 0.6  # of a row; emptier ones (many short utterances) keep a length of their own


@dataclass(frozen=True)
class Shapes:
    """The rectangles of one run.

    Args:
        batch_seconds: most seconds of a batch, padding counted; a single longer utterance is a batch.
        max_utterances: most rows.
    """

    batch_seconds: float
    max_utterances: int

    @property
    def area(self) -> int:
        """Units of a full batch."""
        most = self.batch_seconds / UNIT_SECONDS
        return max((area for area in _AREAS if area <= most + 1e-9), default=_AREAS[0])

    def rows(self, seconds: float) -> int:
        """How many utterances of at most ``seconds`` make a batch; always a divisor of the area."""
        fitting = self.area // max(1, units_of(seconds))
        most = min(fitting, self.max_utterances)
        return max((n for n in range(1, most + 1) if self.area % n == 0), default=1)

    def padded_seconds(self, rows: int, longest: float) -> float:
        """To which length a batch is filled up whose longest utterance has ``longest`` seconds."""
        needed = max(1, units_of(longest))
        units = self.area // rows if rows and self.area % rows == 0 else 0
        if not needed <= units or needed < _WORTH_FILLING * units:
            units = needed
        return units * UNIT_SECONDS + CONTEXT_SECONDS


def units_of(seconds: float) -> int:
    """Seconds -> units that hold them."""
    return math.ceil(seconds / UNIT_SECONDS - 1e-9)


def pack(durations: Sequence[float], shapes: Shapes) -> list[list[int]]:
    """Every utterance once, from long to short, in full batches; the last one takes what is left."""
    order = sorted(range(len(durations)), key=lambda n: (-durations[n], n))
    batches: list[list[int]] = []
    place = 0
    while place < len(order):
        rows = shapes.rows(durations[order[place]])
        batches.append(order[place : place + rows])
        place += rows
    return batches
