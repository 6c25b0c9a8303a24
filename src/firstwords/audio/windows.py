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
from typing import NamedTuple, TypeVar

import numpy as np
from pydantic import model_validator

from firstwords.audio.source import Samples
from firstwords.config import Config

T = TypeVar("T")

_FRAME_SECONDS = 0.01
_SAME_SECONDS = 0.3  # two windows hear one token at most this far apart; a token said again comes later
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
    blocks: Iterable[Samples],
    sample_rate: int,
    config: WindowConfig = _DEFAULT,
    *,
    grid: int = 1,
    after: int = 0,
) -> Iterator[Window]:
    """Blocks of one recording -> its windows, in order; holds one window and one block at a time.

    Law: the windows do not depend on the lengths of the blocks, and their kept parts tile the recording.
    With the end of any window's kept part as ``after``, the windows that follow it come, and are the same.

    Args:
        grid: windows start and are cut at multiples of so many samples; with the hop of the encoder, the
            frames of all windows lie on one grid and can be put side by side.
        after: so many samples at the beginning are answered for already; blocks there are only counted.
    """
    longest = round(config.seconds * sample_rate)
    overlap = round(config.overlap * sample_rate) // grid * grid
    buffer: Samples = np.zeros(0, np.float32)
    origin = 0  # sample number of buffer[0]
    kept = after  # everything before is answered for
    for block in blocks:
        if len(buffer) == 0 and origin + len(block) <= kept - overlap:
            origin += len(block)
            continue
        buffer = np.concatenate([buffer, block])
        # More than a whole window beyond the cut must be there: only then is this one not the last.
        while origin + len(buffer) - max(0, kept - overlap) > longest:
            start = max(0, kept - overlap)
            latest = start + longest - overlap
            cut = _quietest(buffer, kept - origin, latest - origin, sample_rate, config.pause) + origin
            cut = max(kept + grid, cut // grid * grid)
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


class Join(NamedTuple):
    """Keep the first ``keep`` items of the left, go on with item ``start`` of the right."""

    keep: int
    start: int
    agreed: bool  # False: nothing in common near the cut, so the time decided


def join(
    left: Sequence[T],
    right: Sequence[T],
    cut: float,
    overlap: float,
    *,
    time: Callable[[T], float],
    same: Callable[[T], object],
) -> Join:
    """Items heard left and right of a cut -> how to put them together.

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
    ones, others = [(same(x), time(x)) for x in left[first:]], [(same(x), time(x)) for x in right[:last]]
    pairs = _agreement(ones, others)
    if not pairs:
        by_time = next((i for i, item in enumerate(left) if time(item) >= cut), len(left))
        start = next((i for i, item in enumerate(right) if time(item) >= cut), len(right))
        return Join(by_time, start, False)
    agreed = set(pairs)

    def doubt(pair: tuple[int, int]) -> float:
        """Small inside a run of agreeing items, near the cut, heard at nearly the same time."""
        i, j = pair
        around = sum((i + step, j + step) in agreed for step in (-2, -1, 1, 2))
        one, other = ones[i][1], others[j][1]
        return abs((one + other) / 2 - cut) + abs(one - other) - 0.25 * around

    i, j = min(pairs, key=doubt)
    return Join(first + i + 1, j + 1, True)


def _agreement(
    left: Sequence[tuple[object, float]], right: Sequence[tuple[object, float]]
) -> list[tuple[int, int]]:
    """The best common subsequence of (item, time): equal items, each pair worth more the closer in time."""
    worth = np.zeros((len(left) + 1, len(right) + 1))
    gain = np.full((len(left), len(right)), -1.0)
    for i, (one, at) in enumerate(left):
        for j, (other, then) in enumerate(right):
            if one == other and abs(at - then) < _SAME_SECONDS:
                gain[i, j] = 1 - abs(at - then) / _SAME_SECONDS
            worth[i + 1, j + 1] = max(worth[i, j] + gain[i, j], worth[i, j + 1], worth[i + 1, j])
    pairs: list[tuple[int, int]] = []
    i, j = len(left), len(right)
    while i and j:
        if gain[i - 1, j - 1] > 0 and worth[i, j] == worth[i - 1, j - 1] + gain[i - 1, j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif worth[i, j] == worth[i - 1, j]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
