"""Hours of audio in bounded memory: blocks -> windows of speech -> batches -> tokens of the whole.

    blocks ─> cut_speech ─> windows ─> decode ─> join ─> tokens

Each stretch of speech between two pauses is decoded by itself: a model that was trained on utterances of a
few seconds reads them as such, but a window of many at once badly. Only text grows with the recording. A
stretch too long for the model is cut at quiet places into windows that overlap; these are joined where
their tokens agree (audio/windows.py), so that no word is lost or doubled at a cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import numpy as np

from firstwords.audio.source import Samples
from firstwords.audio.windows import Window, WindowConfig, cut_speech, join
from firstwords.data.manifest import Utterance
from firstwords.errors import UsageError
from firstwords.inference.journal import Journal
from firstwords.inference.transcript import Token
from firstwords.search.hypothesis import Hypothesis

T = TypeVar("T")

SILENT_PEAK = 1e-4  # samples that never exceed it (-80 dB of full scale) hold no speech
_BREAK_SECONDS = 0.2  # between two windows that agree in nothing, such a gap parts words
_MOST_SILENT = 16  # windows of one group: hours of silence are reported as they pass

# Several stretches of samples -> the tokens of each, in seconds from its own first sample.
Decode = Callable[[Sequence[Samples]], list[list[Token]]]
# Batches of stretches of samples -> the readings of each stretch, best first.
ReadBatches = Callable[[Sequence[Sequence[Samples]]], list[list[list[Hypothesis]]]]


def is_silent(samples: Samples) -> bool:
    """True where nothing at all can be heard; no model is asked then."""
    return len(samples) == 0 or float(np.max(np.abs(samples))) <= SILENT_PEAK


def transcribe_blocks(
    blocks: Iterable[Samples],
    sample_rate: int,
    decode: Decode,
    config: WindowConfig,
    *,
    together: float = 0.0,
    grid: int = 1,
    progress: Callable[[float], None] | None = None,
    journal: Journal | None = None,
    told: Callable[[Sequence[Token]], None] | None = None,
) -> tuple[list[Token], float]:
    """Blocks of one recording -> its tokens and its duration in seconds.

    A recording that fits one window is always decoded as a whole, unless it is silent. Of longer ones, only
    the stretches in which the energy shows speech are.

    Args:
        decode: the model; gets stretches of very different lengths at once.
        together: seconds of windows that go into one call of ``decode``, at least one window.
        grid: windows start at multiples of so many samples; with the encoder's hop, token times do not
            depend on where the windows lie.
        progress: called with the seconds of the recording that are done.
        journal: an opened one; its tokens are gone on from, and each group of windows but the last is
            written down. Groups are the same as without it, so the tokens are, too.
        told: gets all tokens so far before each call of ``decode``.
    """
    tokens: list[Token] = journal.tokens if journal is not None else []
    done = journal.until if journal is not None else 0
    duration = done / sample_rate
    windows = cut_speech(blocks, sample_rate, config, grid=grid, after=done)
    for group in in_groups(windows, round(together * sample_rate)):
        keep = len(tokens)
        spoken = [window for window in group if not is_silent(window.samples)]
        if told is not None and spoken:
            told(tokens)
        found = decode([window.samples for window in spoken]) if spoken else []
        for window, read in zip(spoken, found, strict=True):
            heard = _later(read, window.start_sample / sample_rate)
            cut = window.keep_start / sample_rate
            # A stretch that begins after a pause begins at most a step of the grid before what it keeps.
            again = window.start_sample <= window.keep_start - grid
            keep = min(keep, _append(tokens, heard, cut, config.overlap if again else 0.0))
        duration = group[-1].keep_end / sample_rate
        if journal is not None and not group[-1].is_last:
            journal.append(keep, tokens[keep:], group[-1].keep_end)
        if progress is not None:
            progress(duration)
    return tokens, duration


def _later(tokens: list[Token], seconds: float) -> list[Token]:
    if not seconds:
        return tokens
    return [replace(token, start=token.start + seconds, end=token.end + seconds) for token in tokens]


def _append(tokens: list[Token], heard: list[Token], cut: float, overlap: float) -> int:
    """Put the tokens of the next window behind those of the windows so far -> how many of these stay.

    Args:
        overlap: seconds on each side of the cut that both windows heard.
    """
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
        # by the right one, so that neither kept it; and no space is read in the pause between two stretches.
        rest[0] = replace(rest[0], breaks=True)
    tokens += rest
    return tail + how.keep


def in_groups(windows: Iterable[Window], samples: int) -> Iterator[list[Window]]:
    """Windows in lists of at most so many samples (or of one window) and so many windows without any."""
    group: list[Window] = []
    held = silent = 0
    for window in windows:
        size = len(window.samples)
        if group and (held + size > samples or silent == _MOST_SILENT):
            yield group
            group, held, silent = [], 0, 0
        group.append(window)
        held += size
        silent += size == 0
    if group:
        yield group


def utterance_groups(utterances: Iterable[Utterance], seconds: float) -> Iterator[list[Utterance]]:
    """Utterances in order, in groups of about so many seconds of audio that is held at once."""
    return _grouped(utterances, lambda utterance: utterance.duration, seconds)


def _grouped(items: Iterable[T], size: Callable[[T], float], most: float) -> Iterator[list[T]]:
    """Items in order -> lists of them whose sizes come to at most so much, or of one item."""
    group: list[T] = []
    held = 0.0
    for item in items:
        if group and held + size(item) > most:
            yield group
            group, held = [], 0.0
        group.append(item)
        held += size(item)
    if group:
        yield group


def batches_by_length(lengths: Mapping[int, int], most: float) -> Iterator[list[int]]:
    """Lengths in samples by number -> numbers, batched so that padding is little and no batch too big.

    Args:
        most: samples of a batch, padding counted; a longer one is a batch by itself.
    """
    batch: list[int] = []
    for i in sorted(lengths, key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def read_by_length(
    stretches: Sequence[Samples], most: float, read: ReadBatches, *, together: float = 0.0
) -> list[list[Hypothesis]]:
    """Stretches in any order -> the readings of each; none where nothing can be heard, and nobody is asked.

    Args:
        most: samples of a batch, padding counted.
        together: samples of the batches that are given to ``read`` at once; one batch, if they are more.
    """
    readings: list[list[Hypothesis]] = [[] for _ in stretches]
    lengths = {i: len(samples) for i, samples in enumerate(stretches) if not is_silent(samples)}

    def held(batch: list[int]) -> int:
        return sum(lengths[i] for i in batch)

    for batches in _grouped(batches_by_length(lengths, most), held, together):
        found = read([[stretches[i] for i in batch] for batch in batches])
        for i, own in zip(chain.from_iterable(batches), chain.from_iterable(found), strict=True):
            readings[i] = own
    return readings


def window_config(seconds: float, most: float = math.inf) -> WindowConfig:
    """Seconds of a window, as users give them, and what a model can read at once -> how to cut."""
    if seconds < 2.0:
        raise UsageError(f"A window of {seconds} s is too short.", mend="Use 10 to 60 seconds.")
    seconds = min(seconds, most)
    return WindowConfig(seconds=seconds, overlap=min(1.5, seconds / 8))
