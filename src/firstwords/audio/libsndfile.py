"""FLAC, Ogg (Vorbis, Opus), MP3 and the rarer containers of libsndfile -> a Source.

libsndfile believes headers, shortens damaged files in silence and seeks inexactly in lossy streams. So the
number of frames it decodes is compared with the number declared, and Ogg is entered a second early, so that
a piece read from the middle equals the same piece of the whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import IOBase
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile

from firstwords.audio.source import Samples, Source, check_format, chunk_frames, seconds
from firstwords.errors import AudioError

_ROLL_SECONDS = 1.0  # a decoder entering a lossy stream needs some packets before its output is exact
_UNKNOWN_FRAMES = 2**62  # libsndfile says 2**63 - 1 for a FLAC whose header leaves the length open


class _Forward(soundfile.SoundFile):  # pyright: ignore[reportUntypedBaseClass]
    """A SoundFile that only goes forward: its parent seeks after every read, which fails in FLAC streams."""

    def seekable(self) -> bool:
        return False


def open_with_libsndfile(
    path: Path, container: str, *, opened: IOBase | None = None, exact_seek: bool = True, skip: int = 0
) -> Source:
    """Any file libsndfile reads -> Source.

    Args:
        opened: read these bytes instead of the file's own (an MP3 without its wrong length tag).
        exact_seek: False where seeking cannot be trusted; then the start is reached by decoding.
        skip: frames at the beginning that are encoder delay, not sound.
    """
    with _open(path, opened) as file:
        rate, channels, frames = int(file.samplerate), int(file.channels), int(file.frames)
        codec = str(file.subtype).lower()
    check_format(path, rate, channels)
    known = None if frames >= _UNKNOWN_FRAMES or opened is not None else frames - skip
    source = Source(path, rate, channels, known, container, codec, chunks=lambda first: iter(()))

    def chunks(first: int) -> Iterator[Samples]:
        return _decode(source, opened, first + skip, exact_seek and known is not None)

    source.chunks = chunks
    return source


def _open(path: Path, opened: IOBase | None) -> Any:
    try:
        if opened is not None:
            opened.seek(0)
            return _Forward(cast("Any", opened))
        # As bytes where names are bytes: one that is no UTF-8 is a name like any other.
        return _Forward(cast("Any", os.fsencode(path) if os.name == "posix" else str(path)))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"'{path}' cannot be opened: {error.error_string}",
            mend="It is damaged or of an unknown kind: open it in another program and export it as FLAC.",
        ) from None


def _decode(source: Source, opened: IOBase | None, first: int, seek: bool) -> Iterator[Samples]:
    """Frames from ``first`` on, with the count checked at the end."""
    path, rate = source.path, source.sample_rate
    size = chunk_frames(source.channels)
    with _open(path, opened) as file:
        at = 0
        if seek and first > 0:
            roll = round(_ROLL_SECONDS * rate) if source.container == "ogg" else 0
            at = max(0, first - roll)
            if at:
                _guard(source, at, lambda: file.seek(at))
        while True:
            here = at
            chunk = cast("Samples", _guard(source, here, lambda: file.read(size, "float32", always_2d=True)))
            at += len(chunk)
            if at > first:
                yield np.ascontiguousarray(chunk[max(0, first - here) :])
            if len(chunk) == 0:
                break
    if source.frames is not None and at < source.frames:
        source.note(
            f"cut short or damaged: {seconds(source.frames, rate)} promised, {seconds(at, rate)} decoded"
        )


def _guard(source: Source, at: int, step: Any) -> Any:
    try:
        return step()
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"'{source.path}' is damaged after {seconds(at, source.sample_rate)}: {error.error_string}",
            mend="Get the original again, or save what is left: ffmpeg -i FILE NEW.flac",
        ) from None
