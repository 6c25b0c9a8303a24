"""Ogg (Vorbis, Opus, FLAC) -> a Source, after a walk over its pages.

libsndfile takes the length from the last page it finds and drops pages with a wrong checksum: a cut file is
shortened in silence, a damaged one loses time in the middle, and of joined files only the first is heard. The
walk reads page headers and checksums, no samples.

Source: RFC 3533 (page layout, checksum polynomial 0x04c11db7, no reflection, start 0).
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from pathlib import Path

from firstwords.audio.libsndfile import open_with_libsndfile
from firstwords.audio.source import Source, seconds
from firstwords.errors import AudioError

_FIRST, _LAST = 2, 4  # header type bits
_CODECS = ((b"OpusHead", "opus"), (b"\x01vorbis", "vorbis"), (b"\x7fFLAC", "flac"), (b"Speex   ", "speex"))
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class OggWalk:
    """The pages of a file."""

    codec: str
    streams: int  # parallel logical streams (more than one: video beside audio)
    links: int  # streams one after the other
    damaged: int  # pages whose checksum is wrong, or bytes that are no page
    ended: bool  # the last page carries the end mark and is whole


def open_ogg(path: Path) -> Source:
    """Ogg file -> Source."""
    stat = path.stat()
    walk = walk_pages(path, stat.st_size, stat.st_mtime_ns)
    convert = f"Convert it once: ffmpeg -i {path.name} {path.stem}.flac"
    if walk.damaged:
        raise AudioError(
            f"'{path}': {walk.damaged} Ogg pages are damaged, so sound is missing in the middle.",
            mend="Get the original again; " + convert[0].lower() + convert[1:] + " saves what is left.",
        )
    if walk.links > 1:
        raise AudioError(f"'{path}' is {walk.links} Ogg recordings joined in one file.", mend=convert)
    if walk.streams > 1 or walk.codec == "speex":
        what = f"{walk.streams} parallel streams" if walk.streams > 1 else "Speex"
        raise AudioError(f"'{path}': Ogg with {what} is not read.", mend=convert)
    source = open_with_libsndfile(path, "ogg")
    source.codec = walk.codec
    if not walk.ended:
        length = seconds(source.frames or 0, source.sample_rate)
        source.note(f"cut short: the stream has no end mark; the {length} that are there are read")
    return source


@functools.lru_cache(maxsize=1024)
def walk_pages(path: Path, size: int, modified: int) -> OggWalk:
    """Read every page header and checksum (size and time of change are there for the cache)."""
    codec, starts, together, damaged, ended = "unknown", 0, 0, 0, False
    beginning = True  # the first pages of all parallel streams stand before anything else
    with path.open("rb") as file:
        at = 0
        while at < size:
            file.seek(at)
            head = file.read(27)
            table = file.read(head[26]) if len(head) == 27 else b""
            if len(head) < 27 or not head.startswith(b"OggS") or len(table) < head[26]:
                ended = False
                damaged += not (b"OggS".startswith(head[:4]) or head.startswith(b"OggS"))
                break
            body = file.read(sum(table))
            if len(body) < sum(table):
                ended = False
                break
            checksum = int.from_bytes(head[22:26], "little")
            damaged += _crc(head[:22] + b"\0\0\0\0" + head[26:] + table + body) != checksum
            if head[5] & _FIRST:
                starts += 1
                together += beginning
                codec = next((name for mark, name in _CODECS if body.startswith(mark)), codec)
            else:
                beginning = False
            ended = bool(head[5] & _LAST)
            at += 27 + len(table) + len(body)
    links = starts // max(1, together)
    return OggWalk(codec, together, links, damaged, ended)


def _crc(data: bytes) -> int:
    """Ogg's checksum by zlib's reflected one: bits reversed going in and coming out."""
    reflected = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(reflected.to_bytes(4, "little").translate(_REVERSED), "big")
