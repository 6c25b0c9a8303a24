"""Cut long audio into windows a recogniser can take, in bounded memory.

``cut_speech`` gives windows of speech: each stretch between two pauses is one by itself, and only a stretch
too long for one window is cut, at its quietest places. ``cut_windows`` covers everything, pauses too. Where
speech is cut, each window is decoded with some audio of its neighbour, but answers only for what it keeps:

    audio      ___~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~_______~~~~~~~~____
    window 0   [==[=================|---]                            = kept, - only heard
    window 1                    [---|==============]
    window 2                                       [=====[=======]   heard from the second bracket on
                                    ^ cut in a short pause where there is one

The kept parts tile the audio: every sample belongs to exactly one window. ``join`` puts the tokens of two
neighbours together so that none is lost or doubled even when a cut had to go through a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from pydantic import model_validator

from firstwords.audio.activity import ActivityDetector, Stretch
from firstwords.audio.source import Samples
from firstwords.config import Config

T = TypeVar("T")

_FRAME_SECONDS = 0.01
_SAME_SECONDS = 0.3  # two windows hear one token at most this far apart; a token said again comes later
_LATER_DB = 6.0  # how much quieter an early place must be than the latest one: fewer, longer windows


class WindowConfig(Config):
    """Seconds."""

    seconds: float = 30.0  # the longest window, overlaps included; a recording that fits is one
    piece: float = 15.0  # of longer recordings, the longest window of speech: text does not depend on seconds
    overlap: float = 1.5  # heard on each side of a cut
    pause: float = 0.4  # the stretch whose energy is compared when a place to cut is looked for

    @model_validator(mode="after")
    def _leaves_something_to_keep(self) -> WindowConfig:
        shortest = min(self.seconds, self.piece)
        if not 0 <= 4 * self.overlap <= shortest or self.pause <= 0:
            raise ValueError(f"windows of {shortest} s are too short for {self.overlap} s of overlap.")
        return self


_DEFAULT = WindowConfig()


@dataclass(frozen=True)
class Window:
    """Samples [start_sample, end_sample) of the audio, answering for [keep_start, keep_end).

    Of ``cut_speech``: silence before a stretch belongs to its kept part but not to its samples; long silence
    is a window without samples.
    """

    start_sample: int
    end_sample: int
    keep_start: int
    keep_end: int
    samples: Samples
    is_last: bool


def cut_windows(
    blocks: Iterable[Samples], sample_rate: int, config: WindowConfig = _DEFAULT, *, grid: int = 1
) -> Iterator[Window]:
    """Blocks of one recording -> its windows, in order; holds two windows and one block at a time.

    Law: the windows do not depend on the lengths of the blocks, and their kept parts tile the recording.

    Args:
        grid: windows start and are cut at multiples of so many samples; with the hop of the encoder, the
            frames of all windows lie on one grid and can be put side by side.
    """
    return _with_last_marked(_windows(blocks, _Cutter(sample_rate, config, grid)))


def cut_speech(
    blocks: Iterable[Samples],
    sample_rate: int,
    config: WindowConfig = _DEFAULT,
    *,
    grid: int = 1,
    after: int = 0,
) -> Iterator[Window]:
    """Blocks of one recording -> windows of its speech, in order; holds three windows and one block at most.

    A recording that fits one window is one, whatever is heard in it. Otherwise each stretch in which the
    energy shows speech (activity.py) is a window, or several where it is longer than ``config.piece``; so
    the windows of long recordings are the same for all ``config.seconds`` above that. Long silence gives
    windows without samples.

    Laws: those of ``cut_windows``. With the end of any window's kept part as ``after``, the windows that
    follow it come, and are the same.
    """
    whole = round(config.seconds * sample_rate)
    config = config.model_copy(update={"seconds": min(config.seconds, config.piece)})
    windows = _speech(blocks, sample_rate, _Cutter(sample_rate, config, grid), whole)
    return (window for window in _with_last_marked(windows) if window.keep_end > after)


def _windows(blocks: Iterable[Samples], cutter: _Cutter) -> Iterator[Window]:
    for block in blocks:
        cutter.push(block)
        yield from cutter.cut(0, cutter.total)
        cutter.forget(0)
    if cutter.total > cutter.kept:
        yield cutter.rest(0, cutter.total)


def _speech(blocks: Iterable[Samples], rate: int, cutter: _Cutter, whole: int) -> Iterator[Window]:
    """Windows of speech; of a recording of at most ``whole`` samples all that is in it."""
    detector = ActivityDetector(rate)
    waiting: list[Samples] = []  # for the detector: a recording of one window does not need it
    for block in blocks:
        cutter.push(block)
        waiting.append(block)
        if cutter.total <= whole:
            continue
        over = [_in_samples(stretch, rate) for part in waiting for stretch in detector.push(part)]
        waiting.clear()
        for start, end in over:
            yield from cutter.stretch(start, end)
        settled = round(detector.settled * rate)
        yield from cutter.silence(settled)
        if detector.open_stretch is not None:
            yield from cutter.cut(*_in_samples(detector.open_stretch, rate))
        cutter.forget(settled)
    if 0 < cutter.total <= whole:
        yield cutter.rest(0, cutter.total)
        return
    for stretch in detector.finish():
        yield from cutter.stretch(*_in_samples(stretch, rate))
    yield from cutter.silence(cutter.total)
    if cutter.total > cutter.kept:
        yield cutter.window(cutter.total, cutter.total, cutter.total)


def _in_samples(stretch: Stretch, rate: int) -> tuple[int, int]:
    return round(stretch[0] * rate), round(stretch[1] * rate)


def _with_last_marked(windows: Iterable[Window]) -> Iterator[Window]:
    before: Window | None = None
    for window in windows:
        if before is not None:
            yield before
        before = window
    if before is not None:
        yield replace(before, is_last=True)


class _Cutter:
    """The samples that are still needed, and how far the recording is answered for."""

    def __init__(self, rate: int, config: WindowConfig, grid: int) -> None:
        self._rate, self._grid, self._pause = rate, grid, config.pause
        self._overlap = round(config.overlap * rate) // grid * grid
        self._buffer: Samples = np.zeros(0, np.float32)
        self._origin = 0  # sample number of buffer[0]
        self.longest = round(config.seconds * rate)
        self.total = 0
        self.kept = 0  # everything before is answered for

    def push(self, block: Samples) -> None:
        self._buffer = np.concatenate([self._buffer, block])
        self.total += len(block)

    def stretch(self, start: int, end: int) -> Iterator[Window]:
        """The silence before [start, end), and what is not yet answered for of the stretch itself."""
        yield from self.silence(start)
        yield from self.cut(start, end)
        yield self.rest(start, end)

    def cut(self, start: int, end: int) -> Iterator[Window]:
        """Windows of a stretch that reaches to ``end`` or farther, as long as that is too far for one."""
        while end - (first := self._first(start)) > self.longest:
            kept, latest = max(first, self.kept), first + self.longest - self._overlap
            cut = self._origin + _quietest(
                self._buffer, kept - self._origin, latest - self._origin, self._rate, self._pause
            )
            cut = max(kept + self._grid, cut // self._grid * self._grid)
            yield self.window(first, cut + self._overlap, cut)

    def rest(self, start: int, end: int) -> Window:
        """The last or only window of the stretch [start, end)."""
        return self.window(self._first(start), end, end)

    def silence(self, until: int) -> Iterator[Window]:
        """Windows without samples as long as ``until`` is a whole one or more away."""
        while until - self.kept >= self.longest:
            quiet = self.kept + self.longest
            yield self.window(quiet, quiet, quiet)

    def window(self, first: int, end: int, keep_end: int) -> Window:
        samples = self._buffer[first - self._origin : end - self._origin].copy()
        window = Window(first, end, self.kept, keep_end, samples, False)
        self.kept = keep_end
        return window

    def forget(self, settled: int) -> None:
        """Nothing before ``settled`` is needed any more but the overlap with what is answered for."""
        gone = self._first(settled) - self._origin
        if gone > 0:
            self._buffer, self._origin = self._buffer[gone:].copy(), self._origin + gone

    def _first(self, start: int) -> int:
        """Where a window begins: with its stretch, or so much before the cut."""
        return max(start // self._grid * self._grid, self.kept - self._overlap)


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
