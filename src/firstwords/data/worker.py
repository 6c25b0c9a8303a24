"""What runs in a loader process: no torch, started by spawn, gone when its parent is.

One source per process, set by ``start_worker``; each call loads the utterances of one batch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait

from firstwords.data.examples import ExampleSource, LoadedExample, Unreadable


def load_all(
    source: ExampleSource, epoch: int, indices: Sequence[int], speeds: Sequence[float] | None = None
) -> list[LoadedExample | Unreadable]:
    """The utterances of one batch, in this process; noises that proved unreadable stand after them."""
    played = speeds if speeds is not None else [1.0] * len(indices)
    examples = [source.load(epoch, index, speed) for index, speed in zip(indices, played, strict=True)]
    return examples + source.unreadable_noises()


_source: list[ExampleSource] = []  # of a loader process: set once by start_worker


def start_worker(source: ExampleSource) -> None:
    """Receive the source once, and end when the training process does."""
    # A signal to the whole group is for the training process, which saves; then this one ends with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _source[:] = [source]
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Nobody else would end us after a kill -9 of the training process."""
    wait([sentinel])
    os._exit(1)


def load_in_worker(
    epoch: int, indices: Sequence[int], speeds: Sequence[float]
) -> list[LoadedExample | Unreadable]:
    """The utterances of one batch, from this process's source."""
    return load_all(_source[0], epoch, indices, speeds)
