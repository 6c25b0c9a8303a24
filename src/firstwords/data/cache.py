"""Decoded audio kept as 16-bit samples, so that only the first epoch pays for decoding.

One block of memory of a size fixed at the start: an array of this process, or a file that loader
processes map together (a file and not shared memory, whose room is 64 MB in many containers). Each
utterance has its place from the start; what does not fit is simply decoded again. A checksum tells a
finished entry from one that another process is just writing.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from firstwords.files import written_aside

_SPARE: Final = 0.1  # seconds: manifests round durations
_BLOCK: Final = 1 << 22


def quantize(samples: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] -> int16."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def restore(samples: np.ndarray) -> np.ndarray:
    """int16 -> float32 in [-1, 1)."""
    return samples.astype(np.float32) * np.float32(1 / 32768)


class AudioCache:
    """Samples by utterance index.

    Args:
        durations: seconds of every utterance; earlier ones get their place first.
        limit_bytes: of the whole cache.
        path: a file to share with other processes; None: memory of this process.
    """

    def __init__(
        self, durations: Sequence[float], *, sample_rate: int, limit_bytes: float, path: Path | None = None
    ) -> None:
        places = [math.ceil((seconds + _SPARE) * sample_rate) for seconds in durations]
        ends = np.cumsum(places)
        self.held = int(np.searchsorted(ends, limit_bytes // 2, side="right"))
        self._starts = np.concatenate([[0], ends[: self.held]]).astype(np.int64)
        self._path = path
        total = int(self._starts[-1])
        if path is None:
            self._entries = np.full((self.held, 2), -1, dtype=np.int64)  # length, checksum
            self._samples = np.zeros(total, dtype=np.int16)
        else:
            _allocate(path, self.held * 16, total * 2)
            self._map()

    def get(self, index: int) -> np.ndarray | None:
        """The int16 samples of an utterance, if they are here."""
        if index >= self.held:
            return None
        length, checksum = (int(x) for x in self._entries[index])
        if length < 0:
            return None
        start = int(self._starts[index])
        samples = np.array(self._samples[start : start + length])
        return samples if zlib.crc32(samples.tobytes()) == checksum else None

    def put(self, index: int, samples: np.ndarray) -> None:
        """Keep int16 samples if the utterance has a place and they fit into it."""
        if index >= self.held or len(samples) > self._starts[index + 1] - self._starts[index]:
            return
        start = int(self._starts[index])
        self._samples[start : start + len(samples)] = samples
        self._entries[index] = (len(samples), zlib.crc32(samples.tobytes()))

    def _map(self) -> None:
        if self._path is None or self.held == 0:
            self._entries = np.full((0, 2), -1, dtype=np.int64)
            self._samples = np.zeros(0, dtype=np.int16)
            return
        head = self.held * 16
        self._entries = np.memmap(self._path, np.int64, "r+", 0, (self.held, 2))
        self._samples = np.memmap(self._path, np.int16, "r+", head, (int(self._starts[-1]),))

    def __getstate__(self) -> dict[str, object]:
        """What a loader process gets: where the file is, never the samples."""
        return {"held": self.held, "_starts": self._starts, "_path": self._path}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if self._path is None:  # memory of another process: this one starts without
            self.held = 0
        self._map()


def _allocate(path: Path, head: int, body: int) -> None:
    """Write the whole file: a full disk is met here, not as a crash in the middle of an epoch."""
    with written_aside(path) as new, new.open("wb") as file:
        file.write(b"\xff" * head)
        for start in range(0, body, _BLOCK):
            file.write(bytes(min(_BLOCK, body - start)))
