"""What every container reader hands on: a description of the recording and its samples in chunks.

A source never holds more than one chunk. Repairs are sentences a user can read ("header gives 0 bytes; read
to the end of the file"); some are only known when the last chunk has been decoded, so ``repairs`` grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firstwords.errors import AudioError

Samples = npt.NDArray[np.float32]

MIN_RATE, MAX_RATE = 1_000, 384_000  # hertz; a header outside says nonsense, not speech
MAX_CHANNELS = 32


def _no_repairs() -> list[str]:
    return []


@dataclass
class Source:
    """One opened recording.

    Args:
        frames: samples per channel as far as the container tells; None where only decoding can tell.
        chunks: first frame -> float32 arrays (frames, channels) from there to the end.
        repairs: sentences about what was mended; the chunks may add to it.
    """

    path: Path
    sample_rate: int
    channels: int
    frames: int | None
    container: str
    codec: str
    chunks: Callable[[int], Iterator[Samples]]
    repairs: list[str] = field(default_factory=_no_repairs)

    def note(self, repair: str) -> None:
        """Keep one sentence, once."""
        if repair not in self.repairs:
            self.repairs.append(repair)


def chunk_frames(channels: int) -> int:
    """Frames per chunk: about half a megabyte of float32 whatever the channel count."""
    return max(4096, 131_072 // max(1, channels))


def check_format(path: Path, sample_rate: int, channels: int) -> None:
    """Refuse rates and channel counts that no recording of speech has."""
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise AudioError(
            f"'{path}': its header says {sample_rate} Hz; {MIN_RATE} to {MAX_RATE} Hz are believable.",
            mend="The header is damaged, or this is not a recording: export the file again.",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"'{path}': its header says {channels} channels; 1 to {MAX_CHANNELS} are believable.",
            mend="The header is damaged: export the file again with one or two channels.",
        )


def seconds(frames: int, sample_rate: int) -> str:
    """Frames -> '1.50 s' for messages."""
    return f"{frames / sample_rate:.2f} s"
