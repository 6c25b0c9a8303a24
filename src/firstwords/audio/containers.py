"""File -> container by its first bytes (never by its name), and the reader for it."""

from __future__ import annotations

import stat
from pathlib import Path

from firstwords.audio.ffmpeg import DEMUXERS, open_with_ffmpeg
from firstwords.audio.libsndfile import open_with_libsndfile
from firstwords.audio.mp3 import open_mp3, parse_header
from firstwords.audio.ogg import open_ogg
from firstwords.audio.riff import open_riff
from firstwords.audio.source import Source
from firstwords.audio.sphere import open_sphere
from firstwords.errors import AudioError

# (offset, bytes) -> container
_MARKS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"NIST_1A", "sphere"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"\x1aE\xdf\xa3", "webm"),
    (4, b"ftyp", "mp4"),
    (0, b"#!AMR", "amr"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "asf"),
    (0, b"caff", "caf"),
    (0, b".snd", "au"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (0, b"Creative Voice File", "voc"),
)
# What people hand in by mistake, named so that the message helps.
_NOT_AUDIO: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive (or office document): unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"MZ", "a program"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a Git LFS pointer: run 'git lfs pull'"),
)


def sniff(path: Path) -> str:
    """Path -> container name; what is no audio is an AudioError that says what it is instead."""
    if path.is_dir():
        raise AudioError(f"'{path}' is a folder, not a recording.", mend="Name the files in it.")
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # to open a pipe would wait for its writer for ever
            raise AudioError(f"'{path}' is a pipe or device, not a file.", mend="Save its sound to a file.")
        size = facts.st_size
        with path.open("rb") as file:
            head = file.read(4096)
            if head.startswith(b"ID3") and len(head) >= 10:
                return _behind_id3(head, path)
    except FileNotFoundError:
        raise AudioError(
            f"'{path}' does not exist.", mend="Check the path (and upper and lower case)."
        ) from None
    except (OSError, ValueError) as error:
        raise AudioError(f"'{path}' cannot be opened: {error}.", mend="Check its name and rights.") from None
    if size == 0:
        raise AudioError(f"'{path}' is an empty file.", mend="Copy or record it again.")
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        if head[8:12] == b"WAVE" or len(head) < 12:
            return "wav"
        kind = head[8:12].decode("latin-1")
        kind = kind if kind.isprintable() else head[8:12].hex(" ")
        raise AudioError(
            f"'{path}' is a RIFF file of kind '{kind}', not WAVE.", mend="Export its sound as WAV."
        )
    for offset, mark, container in _MARKS:
        if head[offset : offset + len(mark)] == mark:
            return container
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[0] == 0xFF and len(head) > 1 and head[1] & 0xF6 == 0xF0:
        return "aac"  # ADTS: layer bits 00
    if parse_header(head[:4]) is not None or _mp3_after_zeros(head):
        return "mp3"
    raise AudioError(
        f"'{path}' is no recording: it looks like {_guess(head)}.", mend="Check what the file is."
    )


def _behind_id3(head: bytes, path: Path) -> str:
    """ID3 tags stand before MP3, and now and then before FLAC."""
    length = 0
    for byte in head[6:10]:
        length = length << 7 | byte & 0x7F
    with path.open("rb") as file:
        file.seek(10 + length)
        return "flac" if file.read(4) == b"fLaC" else "mp3"


def _mp3_after_zeros(head: bytes) -> bool:
    rest = head.lstrip(b"\0")
    return len(rest) < len(head) and parse_header(rest[:4]) is not None


def _guess(head: bytes) -> str:
    for mark, name in _NOT_AUDIO:
        if head.startswith(mark):
            return name
    if not head.strip(b"\0"):
        return "nothing but zero bytes (an interrupted copy?)"
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else ""
    if text and sum(c.isprintable() or c.isspace() for c in text) > 0.95 * len(text):
        return f"text, starting with '{' '.join(text.split())[:40]}'"
    return f"unknown data, starting with the bytes {head[:8].hex(' ')}"


def open_source(path: Path) -> Source:
    """Path -> Source, by content."""
    container = sniff(path)
    if container == "wav":
        return open_riff(path)
    if container == "sphere":
        return open_sphere(path)
    if container == "mp3":
        return open_mp3(path)
    if container == "ogg":
        return open_ogg(path)
    if container in DEMUXERS:
        return open_with_ffmpeg(path, container)
    return open_with_libsndfile(path, container)
