"""Hours of audio in bounded memory: blocks -> windows -> batches of windows -> tokens of the whole.

    blocks ─> cut_windows ─> (windows without speech are skipped) ─> decode ─> join ─> tokens

Only text grows with the recording. Windows are cut in pauses and overlap; neighbours are joined where their
tokens agree (audio/windows.py), so that no word is lost or doubled at a cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from firstwords.audio.activity import find_speech
from firstwords.audio.source import Samples
from firstwords.audio.windows import Window, WindowConfig, cut_windows, join
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
) -> tuple[list[Token], float]:
    """Blocks of one recording -> its tokens and its duration in seconds.

    A recording that fits one window is always decoded, unless it is silent. Of longer ones, windows in which
    the energy shows no speech are skipped.

    Args:
        decode: the model.
        together: windows per call of ``decode``.
        grid: windows start at multiples of so many samples; with the encoder's hop, token times do not
            depend on where the windows lie.
        progress: called with the seconds of the recording that are done.
    """
    tokens: list[Token] = []
    duration = 0.0
    for windows in in_groups(cut_windows(blocks, sample_rate, config, grid=grid), together):
        spoken = [window for window in windows if _has_speech(window, sample_rate)]
        found = dict(zip(map(id, spoken), decode([w.samples for w in spoken]) if spoken else [], strict=True))
        for window in windows:
            offset = window.start_sample / sample_rate
            heard = [
                replace(token, start=token.start + offset, end=token.end + offset)
                for token in found.get(id(window), [])
            ]
            _append(tokens, heard, window.keep_start / sample_rate, config.overlap)
            duration = window.keep_end / sample_rate
        if progress is not None:
            progress(duration)
    return tokens, duration


def _has_speech(window: Window, sample_rate: int) -> bool:
    if is_silent(window.samples):
        return False
    alone = window.is_last and window.keep_start == 0
    return alone or bool(find_speech(window.samples, sample_rate))


def _append(tokens: list[Token], heard: list[Token], cut: float, overlap: float) -> None:
    """Put the tokens of the next window behind those of the windows so far."""
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
