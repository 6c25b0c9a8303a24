"""A closed vocabulary beside the greedy search of a stream: what becomes final is searched again.

    frames     - s e v - n n - | - v l u m e - -       held since the last final
    final        s e v   n           until here: where the next token begins

Memory grows with what is not final yet. Models use it by ``closed.ClosedStream``, bundles as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from firstwords.search.ctc_common import BLANK
from firstwords.search.hypothesis import Hypothesis

LogProbs = npt.NDArray[np.floating[Any]]


@final
class HeldFrames:
    """Log-probabilities of a stream since its last final reading, and what they are read as again.

    Args:
        fits: whether a reading holds known words alone.
        again: (T, V) natural-log probabilities -> the reading of the slower search.
        frame_seconds: from one frame to the next.
    """

    def __init__(
        self,
        fits: Callable[[Hypothesis], bool],
        again: Callable[[LogProbs], Hypothesis],
        frame_seconds: float,
    ) -> None:
        self._fits, self._again, self._seconds = fits, again, frame_seconds
        self._held: list[LogProbs] = []
        self._first = 0  # frame of the first of them
        self._lead = BLANK  # the last final token, where the frames that are held may still be its own

    def hear(self, log_probs: LogProbs) -> None:
        """The next frames (T, V)."""
        self._held.append(log_probs)

    def mend(self, reading: Hypothesis, until: float, *, is_speech: bool) -> Hypothesis:
        """The next final reading and the second at which the rest of the stream begins -> what to show.

        Args:
            is_speech: what is none is not searched, but its frames are let go.
        """
        if not self._held:
            return reading
        frames = np.concatenate(self._held)
        cut = min(max(round(until / self._seconds) - self._first, 0), len(frames))
        mine, first = frames[:cut], self._first
        if self._lead != BLANK:
            going_on = int(np.cumprod(mine.argmax(axis=1) == self._lead).sum())
            mine, first = mine[going_on:], first + going_on
        # A copy: a view would keep all that was heard.
        self._held, self._first = [frames[cut:].copy()], self._first + cut
        ends_here = bool(reading.ends) and round(reading.ends[-1] / self._seconds) >= self._first
        self._lead = reading.tokens[-1] if ends_here else BLANK
        if not is_speech or not len(mine) or not reading.tokens or self._fits(reading):
            return reading
        again = self._again(mine)
        if again.tokens == reading.tokens or again.times is None or again.ends is None:
            return reading
        return replace(
            again,
            times=tuple(time + first * self._seconds for time in again.times),
            ends=tuple(time + first * self._seconds for time in again.ends),
        )
