"""How many utterances side by side, and how far they are filled up, so that few shapes of batches occur.

On a processor with bfloat16 every new shape of a matrix product costs about a third of a millisecond and
half a megabyte of freshly made machine code, and a step has hundreds of products: with a new length in every
batch that is more than the arithmetic (LOG.md, 2026-11-21). So a batch is a rectangle of one of very few
*areas*, rows times length, in units of eight frames (0.16 s: the coarsest stack of a Zipformer divides them):

    area 12    1 x 12   2 x 6   3 x 4   4 x 3   6 x 2   12 x 1
    area 10    1 x 10   2 x 5   5 x 2   10 x 1

All frame-wise layers then see one shape for each area; only attention and convolution along time see as many
as there are divisors. Areas are numbers with many divisors; the largest alone would fill up three rows of 64
units to 80, a second and a third one leave less than half of that empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

UNIT_SECONDS = 0.16  # eight frames of 20 ms
CONTEXT_SECONDS = 0.07  # of features that the convolutions of the front end use up: not part of any unit
# fmt: off
_AREAS = (
    6, 12, 18, 24, 30, 36, 40, 48, 54, 60, 72, 84, 90, 96, 108, 120, 144, 168, 180, 216, 240, 288, 300, 336,
    360, 420, 432, 480, 504, 540, 600, 630, 720, 756, 840, 960, 1080, 1260, 1440, 1680, 1890, 2160, 2520,
    3360, 4200, 5040, 7560, 10080, 15120, 20160, 25200,
)
# fmt: on
_FEW = 3  # areas of a run
_LEAST = 0.7  # of the largest area: smaller batches would be steps of another kind
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

    @cached_property
    def areas(self) -> tuple[int, ...]:
        """Units of full batches, the largest first."""
        most = self.batch_seconds / UNIT_SECONDS + 1e-9
        fitting = [area for area in _AREAS if area <= most][-_FEW:] or [_AREAS[0]]
        return tuple(area for area in reversed(fitting) if area >= _LEAST * fitting[-1])

    def rows(self, seconds: float) -> int:
        """How many utterances of at most ``seconds`` make a batch; always a divisor of an area.

        The area is the one that they fill best; of equals the largest.
        """
        units = max(1, units_of(seconds))
        candidates = [
            (rows * units / area, rows)
            for area in self.areas
            for rows in range(1, min(area // units, self.max_utterances) + 1)
            if area % rows == 0
        ]
        return max(candidates, default=(0.0, 1))[1]

    def padded_seconds(self, rows: int, longest: float) -> float:
        """To which length a batch is filled up whose longest utterance has ``longest`` seconds."""
        needed = max(1, units_of(longest))
        lengths = [
            area // rows for area in self.areas if rows and area % rows == 0 and area // rows >= needed
        ]
        units = min(lengths, default=needed)
        if needed < _WORTH_FILLING * units:
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
