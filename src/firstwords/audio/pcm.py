"""Plain samples in a file -> float32 chunks: what WAV, RF64 and NIST sphere hold after their headers.

Read by our own few lines rather than by libsndfile, because a wrong size in such a header is common (an
interrupted recorder, a stream) and libsndfile believes it: 0 bytes declared means 0 frames read, in silence.
Integers are scaled by 2**(bits-1), so the results equal libsndfile's bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from firstwords.audio.source import Samples, chunk_frames
from firstwords.errors import AudioError

Encoding = Literal["u8", "s8", "s16", "s24", "s32", "f32", "f64", "alaw", "ulaw"]
WIDTHS: dict[Encoding, int] = {
    "u8": 1, "s8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8, "alaw": 1, "ulaw": 1,
}  # fmt: skip


@dataclass(frozen=True)
class SampleLayout:
    """Where the samples lie and what they are; ``offset`` in bytes, ``frames`` per channel."""

    encoding: Encoding
    big_endian: bool
    channels: int
    offset: int
    frames: int

    @property
    def frame_bytes(self) -> int:
        return WIDTHS[self.encoding] * self.channels


def read_chunks(path: Path, layout: SampleLayout, first: int) -> Iterator[Samples]:
    """Layout -> float32 (frames, channels) chunks from frame ``first`` on."""
    left = layout.frames - first
    size = chunk_frames(layout.channels)
    with path.open("rb") as file:
        file.seek(layout.offset + first * layout.frame_bytes)
        while left > 0:
            data = file.read(min(size, left) * layout.frame_bytes)
            frames = len(data) // layout.frame_bytes
            if frames == 0:
                raise AudioError(
                    f"'{path}' became shorter while it was read.",
                    mend="Wait until the recording or the copy is finished.",
                )
            left -= frames
            yield decode(data[: frames * layout.frame_bytes], layout)


def decode(data: bytes, layout: SampleLayout) -> Samples:
    """Bytes of whole frames -> float32 (frames, channels) in [-1, 1)."""
    order = ">" if layout.big_endian else "<"
    match layout.encoding:
        case "u8":
            flat = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
        case "s8":
            flat = np.frombuffer(data, np.int8).astype(np.float32) / 128
        case "s16":
            flat = np.frombuffer(data, f"{order}i2").astype(np.float32) / 32768
        case "s24":
            flat = _widen(data, layout.big_endian).astype(np.float32) / np.float32(2**23)
        case "s32":
            flat = (np.frombuffer(data, f"{order}i4") / 2.0**31).astype(np.float32)
        case "f32":
            flat = np.frombuffer(data, f"{order}f4").astype(np.float32)
        case "f64":
            with np.errstate(over="ignore"):  # beyond float32: becomes Inf and is caught with the others
                flat = np.frombuffer(data, f"{order}f8").astype(np.float32)
        case "alaw":
            flat = _ALAW[np.frombuffer(data, np.uint8)]
        case "ulaw":
            flat = _ULAW[np.frombuffer(data, np.uint8)]
    return flat.reshape(-1, layout.channels)


def _widen(data: bytes, big_endian: bool) -> npt.NDArray[np.int32]:
    """24-bit integers -> int32: the three bytes fill the upper part of four, then an arithmetic shift."""
    three = np.frombuffer(data, np.uint8).reshape(-1, 3)
    four = np.zeros((len(three), 4), np.uint8)
    four[:, 1:] = three[:, ::-1] if big_endian else three
    return four.view("<i4")[:, 0] >> 8


def _ulaw_table() -> Samples:
    """ITU-T G.711 mu-law: all bits inverted, then sign, 3-bit segment, 4-bit step, bias 33 (here x4)."""
    code = ~np.arange(256, dtype=np.uint8)
    segment, step = ((code >> 4) & 7).astype(np.int32), (code & 15).astype(np.int32)
    size = (((step << 3) + 132) << segment) - 132
    return (np.where(code & 0x80, -size, size) / 32768).astype(np.float32)


def _alaw_table() -> Samples:
    """ITU-T G.711 A-law: every other bit inverted (0x55); segments above 0 have a hidden one."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment, step = ((code >> 4) & 7).astype(np.int32), (code & 15).astype(np.int32)
    size = np.where(segment == 0, (step << 4) + 8, ((step << 4) + 264) << np.maximum(segment - 1, 0))
    return (np.where(code & 0x80, size, -size) / 32768).astype(np.float32)


_ULAW, _ALAW = _ulaw_table(), _alaw_table()
