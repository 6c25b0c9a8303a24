"""Hours of audio in bounded memory: blocks -> windows -> batches of windows -> tokens of the whole.

    blocks ─> cut_windows ─> stretches of speech ─> decode ─> join ─> tokens

Within a window each stretch of speech between two pauses is decoded by itself: a model that was trained on
utterances of a few seconds reads them as such, but a window of many at once badly. Only text grows with the
recording. Windows are cut in pauses and overlap; neighbours are joined where their tokens agree
(audio/windows.py), so that no word is lost or doubled at a cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from firstwords.audio.activity import find_speech
from firstwords.audio.source import Samples
from firstwords.audio.windows import Window, WindowConfig, cut_windows, join
from firstwords.inference.journal import Journal
from firstwords.inference.transcript import Token

T = TypeVar("T")

SILENT_PEAK = 1e-4  # samples that never exceed it (-80 dB of full scale) hold no speech
_BREAK_SECONDS = 0.2  # between two windows that agree in nothing, such a gap parts words

# Several stretches of samples -> the tokens of each, in seconds from its own first sample.
Decode = Callable[[Sequence[Samples]], list[list[Token]]]


def is_silent(samples: Samples) -> bool:
    """True where nothing at all can be heard; no model is asked then."""
    return len(samples) == 0 or float(np.max(np.abs(samples))) <= SILENT_PEAK


def transcribe_blocks(
    blocks: Iterable[Samples],
    sample_rate: int,
    decode: Decode,
    config: WindowConfig,
    *,
    together: int = 1,
    grid: int = 1,
    progress: Callable[[float], None] | None = None,
    journal: Journal | None = None,
) -> tuple[list[Token], float]:
    """Blocks of one recording -> its tokens and its duration in seconds.

    A recording that fits one window is always decoded as a whole, unless it is silent. Of longer ones, only
    the stretches in which the energy shows speech are.

    Args:
        decode: the model; gets stretches of very different lengths at once.
        together: windows whose stretches go into one call of ``decode``.
        grid: windows start at multiples of so many samples; with the encoder's hop, token times do not
            depend on where the windows lie.
        progress: called with the seconds of the recording that are done.
        journal: an opened one; its tokens are gone on from, and each group of windows but the last is
            written down. Groups are the same as without it, so the tokens are, too.
    """
    tokens: list[Token] = journal.tokens if journal is not None else []
    done = journal.until if journal is not None else 0
    duration = done / sample_rate
    for windows in in_groups(cut_windows(blocks, sample_rate, config, grid=grid, after=done), together):
        keep = len(tokens)
        spoken = [(window, *part) for window in windows for part in _speech(window, sample_rate, grid)]
        found = decode([w.samples[first:last] for w, first, last in spoken]) if spoken else []
        for window in windows:
            heard = [
                replace(token, start=token.start + offset, end=token.end + offset)
                for (owner, first, _), read in zip(spoken, found, strict=True)
                if owner is window
                for offset in [(window.start_sample + first) / sample_rate]
                for token in read
            ]
            keep = min(keep, _append(tokens, heard, window.keep_start / sample_rate, config.overlap))
            duration = window.keep_end / sample_rate
        if journal is not None and not windows[-1].is_last:
            journal.append(keep, tokens[keep:], windows[-1].keep_end)
        if progress is not None:
            progress(duration)
    return tokens, duration


def _speech(window: Window, sample_rate: int, grid: int) -> list[tuple[int, int]]:
    """Stretches of speech that reach into the kept part, in samples of the window, starting on the grid."""
    if is_silent(window.samples):
        return []
    if window.is_last and window.keep_start == 0:
        return [(0, len(window.samples))]
    stretches: list[tuple[int, int]] = []
    for start, end in find_speech(window.samples, sample_rate):
        first, last = round(start * sample_rate) // grid * grid, round(end * sample_rate)
        if window.start_sample + first < window.keep_end and window.start_sample + last > window.keep_start:
            stretches.append((first, last))
    return stretches


def _append(tokens: list[Token], heard: list[Token], cut: float, overlap: float) -> int:
    """Put the tokens of the next window behind those of the windows so far -> how many of these stay."""
    tail = len(tokens)
    while tail and tokens[tail - 1].start >= cut - overlap - 1:
        tail -= 1
    how = join(
        tokens[tail:], heard, cut, overlap, time=lambda token: token.start, same=lambda token: token.id
    )
    del tokens[tail + how.keep :]
    rest = heard[how.start :]
    if tokens and rest and not how.agreed and rest[0].start - tokens[-1].end > _BREAK_SECONDS:
        # The space between two words may have been read right of the cut by the left window and left of it
        # by the right one, so that neither kept it.
        rest[0] = replace(rest[0], breaks=True)
    tokens += rest
    return tail + how.keep


def in_groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of ``size``, the last one shorter."""
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
