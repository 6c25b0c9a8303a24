"""MPEG audio (MP3) -> a Source, after a walk over its frame headers.

The decoder trusts the Xing/LAME tag in the first frame: a file cut in half is announced at full length, and
of two files joined the second is never heard. So the frames are counted (headers only, no decoding) and
compared with the tag.

Sources: ISO/IEC 11172-3 section 2.4.1.3 and 13818-3 (header bits, bit rates, frame sizes), the Xing VBR and
LAME tag layouts as written by LAME.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from firstwords.audio.libsndfile import open_with_libsndfile
from firstwords.audio.source import Source, seconds
from firstwords.errors import AudioError

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # version bits
# kbit/s by (MPEG-1?, layer); index 0 is "free", 15 is forbidden.
_BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_DECODER_DELAY = 529  # samples every Layer III decoder adds (LAME documentation)
_TAGS_AT_END = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")
_WINDOW = 1 << 20


@dataclass(frozen=True)
class FrameHeader:
    """What the four bytes before every frame say."""

    sample_rate: int
    channels: int
    samples: int  # per channel
    size: int  # bytes, header included
    mpeg1: bool
    layer: int


@dataclass(frozen=True)
class Mp3Walk:
    """The frames of a file, counted; ``skipped`` are bytes between frames that belong to none."""

    first: int  # byte offset of the first frame
    header: FrameHeader
    frames: int  # without the tag frame
    declared: int | None  # frames according to the tag
    tag_size: int  # bytes of the tag frame, 0 without one
    delay: int  # samples of encoder delay
    skipped: int
    cut: bool  # the last frame is incomplete


def parse_header(head: bytes) -> FrameHeader | None:
    """Four bytes -> FrameHeader, or None where they are no MPEG audio header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = (head[1] >> 3) & 3, 4 - ((head[1] >> 1) & 3)
    bitrate, rate = head[2] >> 4, (head[2] >> 2) & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    mpeg1 = version == 3
    hertz = _RATES[version][rate]
    bits = _BITRATES[mpeg1, layer][bitrate] * 1000
    padding = (head[2] >> 1) & 1
    if layer == 1:
        samples, size = 384, (12 * bits // hertz + padding) * 4
    else:
        samples = 1152 if mpeg1 or layer == 2 else 576
        size = samples // 8 * bits // hertz + padding
    return FrameHeader(hertz, 1 if head[3] >> 6 == 3 else 2, samples, size, mpeg1, layer)


def open_mp3(path: Path) -> Source:
    """MP3 -> Source; a wrong length tag is noted and not believed."""
    stat = path.stat()
    walk = walk_frames(path, stat.st_size, stat.st_mtime_ns)
    rate, per_frame = walk.header.sample_rate, walk.header.samples
    repairs: list[str] = []
    if walk.skipped:
        repairs.append(f"{walk.skipped} bytes between the MP3 frames are damaged; left out")
    declared, frames = walk.declared, walk.frames * per_frame
    if declared is not None and walk.frames > declared + 1:
        # Joined or appended files: the decoder would stop where the first tag says.
        repairs.append(
            f"the length tag says {seconds(declared * per_frame, rate)}, the frames make "
            f"{seconds(frames, rate)}; all frames read"
        )
        source = _open_retagged(path, walk, skip=walk.delay)
    elif declared is None:
        source = open_with_libsndfile(path, "mp3", exact_seek=not repairs)
        if source.frames is None or abs(source.frames - frames) > per_frame:
            # Variable bit rate without a tag: the decoder guesses a length from the first frame's rate, and
            # stops there. Measured with libsndfile 1.2.2: half of a file is lost in silence.
            source = _open_retagged(path, walk, skip=0)
    else:
        source = open_with_libsndfile(path, "mp3", exact_seek=not repairs and not walk.cut)
        if walk.frames < declared - 1 and not repairs:
            repairs.append(
                f"cut short: the length tag promises {seconds(declared * per_frame, rate)}, "
                f"{seconds(frames, rate)} are there"
            )
    if walk.cut and not repairs:
        repairs.append("cut short: the last frame is incomplete")
    if repairs or declared is None:
        source.frames = None  # only decoding tells
    source.repairs += repairs
    return source


def _open_retagged(path: Path, walk: Mp3Walk, skip: int) -> Source:
    """The same frames behind a tag that counts them right; the file itself stays as it is."""
    with path.open("rb") as file:
        file.seek(walk.first + walk.tag_size)
        head = file.read(4)
    header = parse_header(head) or walk.header
    body = bytearray(header.size)
    body[:4] = bytes([head[0], head[1] | 1, *head[2:]])  # bit 1: no checksum follows
    at = 4 + _side_bytes(header)
    body[at : at + 12] = b"Xing" + (1).to_bytes(4, "big") + walk.frames.to_bytes(4, "big")
    opened = _Retagged(path, bytes(body), walk.first + walk.tag_size)
    return open_with_libsndfile(path, "mp3", opened=opened, exact_seek=False, skip=skip)


@functools.lru_cache(maxsize=1024)
def walk_frames(path: Path, size: int, modified: int) -> Mp3Walk:
    """Count the frames of a file (size and time of change are there for the cache: one walk per file)."""
    with path.open("rb") as file:
        at = _skip_id3(file)
        found = _find_frame(file, at, size)
        if found is None:
            raise AudioError(
                f"'{path}' holds no MP3 frames.", mend="Only its tags are left: copy the file again."
            )
        first, header = found
        declared, delay = _read_tag(file, first, header)
        tag_size = header.size if declared is not None else 0
        frames, skipped, at = 0, 0, first + tag_size
        cut, base, window = False, -1, b""
        while at + 4 <= size:
            if not base <= at <= base + len(window) - 4 or base < 0:
                file.seek(at)
                base, window = at, file.read(_WINDOW)
            here = parse_header(window[at - base : at - base + 4])
            if here is not None and here.sample_rate == header.sample_rate and here.layer == header.layer:
                cut = at + here.size > size
                frames += not cut
                at += here.size
                continue
            if _is_trailer(file, at, size):
                break
            again = _find_frame(file, at + 1, size)
            skipped += (again[0] if again else size) - at
            if again is None:
                break
            at = again[0]
    return Mp3Walk(first, header, frames, declared, tag_size, delay, skipped, cut)


def _skip_id3(file: BinaryIO) -> int:
    """Byte offset behind the ID3v2 tags at the beginning (sizes are 4 x 7 bits)."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return at
        length = 0
        for byte in head[6:10]:
            length = length << 7 | byte & 0x7F
        at += 10 + length + (10 if head[5] & 0x10 else 0)


def _find_frame(file: BinaryIO, at: int, size: int) -> tuple[int, FrameHeader] | None:
    """The next place where a frame header is followed by another one (or by the end)."""
    while at + 4 <= size:
        file.seek(at)
        window = file.read(_WINDOW)
        place = window.find(b"\xff")
        while 0 <= place <= len(window) - 4:
            header = parse_header(window[place : place + 4])
            if header is not None:
                follows = at + place + header.size
                file.seek(follows)
                second = parse_header(file.read(4))
                if follows >= size or (second is not None and second.sample_rate == header.sample_rate):
                    return at + place, header
            place = window.find(b"\xff", place + 1)
        at += max(1, len(window) - 3)
    return None


def _read_tag(file: BinaryIO, first: int, header: FrameHeader) -> tuple[int | None, int]:
    """Frames declared by a Xing/Info tag (None without one) and the encoder delay in samples."""
    if header.layer != 3:
        return None, 0
    file.seek(first)
    body = file.read(header.size)[4 + _side_bytes(header) :]
    if body[:4] not in (b"Xing", b"Info"):
        return None, 0
    flags = int.from_bytes(body[4:8], "big")
    if not flags & 1:
        return None, 0
    declared = int.from_bytes(body[8:12], "big")
    at = 12 + (4 if flags & 2 else 0) + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    gap = body[at + 21 : at + 24]  # LAME: 12 bits delay, 12 bits padding
    delay = (
        (gap[0] << 4 | gap[1] >> 4) + _DECODER_DELAY
        if len(gap) == 3 and body[at : at + 4].strip(b"\0")
        else 0
    )
    return declared, delay


def _is_trailer(file: BinaryIO, at: int, size: int) -> bool:
    """True where only tags or zero padding follow."""
    file.seek(at)
    head = file.read(4096)
    return head.startswith(_TAGS_AT_END) or not head.strip(b"\0")


def _side_bytes(header: FrameHeader) -> int:
    """Bytes of side information between a frame's header and the place of the tag."""
    if header.mpeg1:
        return 32 if header.channels == 2 else 17
    return 17 if header.channels == 2 else 9


class _Retagged(io.RawIOBase):
    """A file with its first ``offset`` bytes replaced by others."""

    def __init__(self, path: Path, head: bytes, offset: int) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._head = head
        self._shift = offset - len(head)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == 2:
            offset += self._file.seek(0, 2) - self._shift
        self._at = max(0, offset + (self._at if whence == 1 else 0))
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        data = self._head[self._at :] if size < 0 else self._head[self._at : self._at + size]
        if size < 0 or len(data) < size:
            self._file.seek(self._at + len(data) + self._shift)
            data += self._file.read(size if size < 0 else size - len(data))
        self._at += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
