"""Cut long audio into windows a recogniser can take, at the quietest places, in bounded memory.

Every window is decoded with some audio of its neighbours around it, but answers only for the part it keeps:

    audio      |-----------------------------------------------------|
    window 0   [============================|~~~]                            = kept, ~ only heard
    window 1                            [~~~|=================|~~~]
    window 2                                              [~~~|======]
                                            ^ cut in a pause where there is one

The kept parts tile the audio: every sample belongs to exactly one window. ``join`` puts the tokens of two
neighbours together so that none is lost or doubled even when a cut had to go through a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeVar

import numpy as np
from pydantic import model_validator

from firstwords.audio.source import Samples
from firstwords.config import Config

T = TypeVar("T")

_FRAME_SECONDS = 0.01
_LATER_DB = 6.0  # how much quieter an early place must be than the latest one: fewer, longer windows


class WindowConfig(Config):
    """Seconds."""

    seconds: float = 30.0  # the longest window, overlaps included
    overlap: float = 1.5  # heard on each side of a cut
    pause: float = 0.4  # the stretch whose energy is compared when a place to cut is looked for

    @model_validator(mode="after")
    def _leaves_something_to_keep(self) -> WindowConfig:
        if not 0 <= 4 * self.overlap <= self.seconds or self.pause <= 0:
            raise ValueError(f"windows of {self.seconds} s are too short for {self.overlap} s of overlap.")
        return self


_DEFAULT = WindowConfig()


@dataclass(frozen=True)
class Window:
    """Samples [start_sample, end_sample) of the audio, answering for [keep_start, keep_end)."""

    start_sample: int
    end_sample: int
    keep_start: int
    keep_end: int
    samples: Samples
    is_last: bool


def cut_windows(
    blocks: Iterable[Samples], sample_rate: int, config: WindowConfig = _DEFAULT
) -> Iterator[Window]:
    """Blocks of one recording -> its windows, in order; holds one window and one block at a time.

    Law: the windows do not depend on the lengths of the blocks, and their kept parts tile the recording.
    """
    longest, overlap = round(config.seconds * sample_rate), round(config.overlap * sample_rate)
    buffer: Samples = np.zeros(0, np.float32)
    origin = 0  # sample number of buffer[0]
    kept = 0  # everything before is answered for
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        # More than a whole window beyond the cut must be there: only then is this one not the last.
        while origin + len(buffer) - max(0, kept - overlap) > longest:
            start = max(0, kept - overlap)
            latest = start + longest - overlap
            cut = _quietest(buffer, kept - origin, latest - origin, sample_rate, config.pause) + origin
            end = cut + overlap
            yield Window(start, end, kept, cut, buffer[start - origin : end - origin], False)
            kept = cut
            forget = max(0, kept - overlap) - origin
            buffer, origin = buffer[forget:].copy(), origin + forget
    total = origin + len(buffer)
    if total > kept:
        start = max(0, kept - overlap)
        yield Window(start, total, kept, total, buffer[start - origin :], True)


def _quietest(samples: Samples, kept: int, latest: int, rate: int, pause: float) -> int:
    """Where to cut: the middle of the quietest ``pause`` in the second half of [kept, latest]."""
    frame = max(1, round(_FRAME_SECONDS * rate))
    width = max(1, round(pause * rate / frame))
    earliest = kept + (latest - kept) // 2
    first = max(0, earliest - width * frame // 2)
    count = (min(len(samples), latest + width * frame // 2) - first) // frame
    if count <= width:
        return latest
    power = np.mean(
        samples[first : first + count * frame].astype(np.float64).reshape(count, frame) ** 2, axis=1
    )
    sums = np.cumsum(np.concatenate([[0.0], power]))
    level = 10 * np.log10(np.maximum((sums[width:] - sums[:-width]) / width, 1e-10))
    level -= np.linspace(0, _LATER_DB, len(level))
    best = len(level) - 1 - int(np.argmin(level[::-1]))  # of equals the latest
    middle = first + best * frame + width * frame // 2
    return min(max(middle, earliest), latest)


def join(
    left: Sequence[T],
    right: Sequence[T],
    cut: float,
    overlap: float,
    *,
    time: Callable[[T], float],
    same: Callable[[T], object],
) -> tuple[int, int]:
    """Items heard left and right of a cut -> (how many of ``left`` to keep, where ``right`` goes on).

    Within the overlap both windows heard the same sound. Where both read the same run of items there, the
    change-over lies inside the run nearest to the cut, so the text is that of either; only where they agree
    in nothing does the time decide.

    Args:
        left, right: items in order of time, at least those within ``overlap`` seconds of the cut.
        cut: seconds.
        time: seconds of an item; ``same``: what must be equal for two items to be one (a token, a word).
    """
    first = next((i for i, item in enumerate(left) if time(item) >= cut - overlap), len(left))
    last = next((i for i, item in enumerate(right) if time(item) > cut + overlap), len(right))
    matcher = SequenceMatcher(
        None, [same(item) for item in left[first:]], [same(item) for item in right[:last]], autojunk=False
    )
    best: tuple[float, int, int] | None = None
    for at_left, at_right, size in matcher.get_matching_blocks():
        for step in range(size):
            one, other = left[first + at_left + step], right[at_right + step]
            apart = abs(time(one) - time(other))
            if apart > 0.5:  # the same token, but another place: a word that is said twice
                continue
            # Inside long agreeing runs, near the cut, at nearly the same time.
            worth = abs((time(one) + time(other)) / 2 - cut) + apart - 0.2 * min(size, 5)
            if best is None or worth < best[0]:
                best = (worth, first + at_left + step + 1, at_right + step + 1)
    if best is not None:
        return best[1], best[2]
    by_time = next((i for i, item in enumerate(left) if time(item) >= cut), len(left))
    return by_time, next((i for i, item in enumerate(right) if time(item) >= cut), len(right))
