"""Recordings as they must not be: makers of bytes, and named cases with what is to become of each.

Used by the tests of the reader, of the commands and of the fuzzer.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soundfile

RATE = 16000
SOUND = (
    0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)
    + 0.02 * np.random.default_rng(0).standard_normal(3 * RATE)
).astype(np.float32)


def encoded(
    container: str, subtype: str, samples: np.ndarray = SOUND, rate: int = RATE, **more: str
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype, **more)
    return file.getvalue()


def wav(
    data: bytes,
    *,
    tag: int = 1,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    block: int | None = None,
    size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    magic: bytes = b"RIFF",
) -> bytes:
    block = channels * bits // 8 if block is None else block
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(fmt)) + fmt
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data + after
    return magic + struct.pack("<I", len(body)) + body


def s16(samples: np.ndarray = SOUND) -> bytes:
    return np.round(samples * 32767).astype("<i2").tobytes()


def sphere(data: bytes, **fields: str) -> bytes:
    known = {
        "sample_count": f"-i {len(data) // 2}",
        "sample_rate": "-i 16000",
        "channel_count": "-i 1",
        "sample_n_bytes": "-i 2",
        "sample_byte_format": "-s2 01",
        "sample_coding": "-s3 pcm",
    } | fields
    lines = "".join(f"{k} {v}\n" for k, v in known.items() if v)
    return f"NIST_1A\n   1024\n{lines}end_head\n".encode("latin-1").ljust(1024) + data


def changed(data: bytes, at: float, count: int = 60) -> bytes:
    """Some bytes in the middle turned over."""
    first = int(len(data) * at)
    return data[:first] + bytes(b ^ 0x5A for b in data[first : first + count]) + data[first + count :]


def without_tag(data: bytes) -> bytes:
    """An MP3 without its first (tag) frame."""
    return data[data.index(b"\xff\xf3", 4) :]


def open_length(data: bytes, frames: int = 0) -> bytes:
    """A FLAC whose header gives another length (0: unknown, as streams have it)."""
    value = int.from_bytes(data[18:26], "big") >> 36 << 36 | frames
    return data[:18] + value.to_bytes(8, "big") + data[26:]


def floats(*bad: float, count: int = 1) -> bytes:
    samples = SOUND.copy()
    samples[1000 : 1000 + count] = bad[0]
    return encoded("WAV", "FLOAT", samples)


@dataclass(frozen=True)
class Case:
    """What lies on the disk, and either the length and the words of the repair, or those of the error."""

    name: str
    data: Callable[[], bytes]
    frames: int | None = None  # None: refused
    says: str = ""
    close: int = 0  # how far the number of frames may be off


FULL = len(SOUND)
CASES = [
    Case("wav with length 0", lambda: wav(s16(), size=0), FULL, "length as 0"),
    Case("wav with length unknown", lambda: wav(s16(), size=0xFFFFFFFF), FULL, "length as unknown"),
    Case("wav promising too much", lambda: wav(s16(), size=200_000), FULL, "promises 6.25 s, 3.00 s"),
    Case("wav cut in the middle", lambda: wav(s16())[:48_044], 24_000, "cut short"),
    Case("wav promising too little", lambda: wav(s16(), size=32_000), FULL, "samples follow"),
    Case("wav with half a frame at its end", lambda: wav(s16() + b"\x01"), FULL, "no whole frame"),
    Case(
        "wav with metadata behind",
        lambda: wav(s16(), after=b"LIST" + struct.pack("<I", 6000) + bytes(6000)),
        FULL,
    ),
    Case("wav with odd chunk unpadded", lambda: wav(s16(), before=b"note\x03\0\0\0abc"), FULL),
    Case("wav with odd chunk padded", lambda: wav(s16(), before=b"note\x03\0\0\0abc\0"), FULL),
    Case("wav of no samples", lambda: wav(b""), None, "no samples"),
    Case(
        "wav of no samples with metadata", lambda: wav(b"", after=b"LIST\x04\0\0\0INFO"), None, "no samples"
    ),
    Case("wav header only, cut", lambda: wav(s16())[:30], None, "cut short"),
    Case("wav of four bytes", lambda: b"RIFF", None, "data chunk"),
    Case("wav without fmt", lambda: b"RIFF\x24\0\0\0WAVEdata\x04\0\0\0abcd", None, "fmt"),
    Case("wav at 1 Hz", lambda: wav(s16(), rate=1), None, "1 Hz"),
    Case("wav at 0 Hz", lambda: wav(s16(), rate=0), None, "0 Hz"),
    Case("wav at 655350 Hz", lambda: wav(s16(), rate=655_350), None, "655350 Hz"),
    Case("wav with 0 channels", lambda: wav(s16(), channels=0), None, "0 channels"),
    Case("wav with 1024 channels", lambda: wav(s16(), channels=1024), None, "1024 channels"),
    Case("wav with 12 bits", lambda: wav(s16(), bits=12, block=2), FULL, "12-bit"),
    Case("wav with 0 bits", lambda: wav(s16(), bits=0, block=2), None, "0 bits"),
    Case("wav with 16 bits in 1 byte", lambda: wav(s16(), bits=16, block=1), None, "contradict"),
    Case("wav with block align 0", lambda: wav(s16(), block=0), FULL, "block align 0"),
    Case("wav of unknown coding", lambda: wav(s16(), tag=0x7777), None, "cannot be opened"),
    Case("wav big-endian", lambda: _rifx(), FULL),
    Case("riff that is a film", lambda: b"RIFF\x10\0\0\0AVI LIST" + bytes(100), None, "AVI"),
    Case("float wav with one NaN", lambda: floats(np.nan), FULL, "1 frames with NaN"),
    Case("float wav with infinity", lambda: floats(-np.inf, count=3), FULL, "3 frames"),
    Case("float wav full of NaN", lambda: floats(np.nan, count=9000), None, "9000 of 48000"),
    Case("float wav with 16-bit levels", lambda: encoded("WAV", "FLOAT", SOUND * 32768), None, "32768"),
    Case(
        "double wav beyond float",
        lambda: encoded("WAV", "DOUBLE", np.r_[SOUND.astype(float), 1e300]),
        FULL + 1,
        "infinite",
    ),
    Case("sphere promising too much", lambda: sphere(s16(), sample_count="-i 96000"), FULL, "6.00 s"),
    Case("sphere promising too little", lambda: sphere(s16(), sample_count="-i 100"), FULL, "samples follow"),
    Case("sphere with length 0", lambda: sphere(s16(), sample_count="-i 0"), FULL, "length as 0"),
    Case("sphere without byte order", lambda: sphere(s16(), sample_byte_format=""), FULL, "little-endian"),
    Case(
        "sphere shortened",
        lambda: sphere(s16(), sample_coding="-s26 pcm,embedded-shorten-v2.00"),
        None,
        "sph2pipe",
    ),
    Case("sphere cut in its header", lambda: sphere(s16())[:200], None, "cut short"),
    Case("sphere without rate", lambda: sphere(s16(), sample_rate=""), None, "sample_rate"),
    Case(
        "sphere with digits of another kind",
        lambda: sphere(s16(), sample_rate="-i 16\u00b3"),
        None,
        "a number",
    ),
    Case(
        "sphere with a number of 500 digits",
        lambda: sphere(s16(), channel_count="-i " + "9" * 500),
        None,
        "number",
    ),
    Case("flac cut", lambda: encoded("FLAC", "PCM_16")[:30_000], None, "damaged"),
    Case("flac with turned bytes", lambda: changed(encoded("FLAC", "PCM_16"), 0.5), None, "damaged"),
    Case("flac of open length", lambda: open_length(encoded("FLAC", "PCM_16")), FULL),
    Case(
        "flac promising too much",
        lambda: open_length(encoded("FLAC", "PCM_16"), 3 * FULL),
        FULL,
        "9.00 s promised",
    ),
    Case(
        "flac behind an ID3 tag",
        lambda: b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + encoded("FLAC", "PCM_16"),
        FULL,
    ),
    Case("mp3 cut", lambda: encoded("MP3", "MPEG_LAYER_III")[:6000], 22_000, "cut short", 2000),
    Case(
        "mp3 with turned bytes",
        lambda: changed(encoded("MP3", "MPEG_LAYER_III"), 0.5, 300),
        FULL,
        "damaged",
        2000,
    ),
    Case("mp3 twice", lambda: 2 * encoded("MP3", "MPEG_LAYER_III"), 2 * FULL, "all frames read", 3000),
    Case("mp3 without length tag", lambda: without_tag(encoded("MP3", "MPEG_LAYER_III")), FULL, "", 2000),
    Case(
        "mp3 with tags around",
        lambda: b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + encoded("MP3", "MPEG_LAYER_III") + b"TAG" + bytes(125),
        FULL,
    ),
    Case("mp3 of a tag only", lambda: b"ID3\x04\0\0\0\0\0\x0a" + bytes(10), None, "no MP3 frames"),
    Case("opus cut", lambda: encoded("OGG", "OPUS")[:8000], 24_000, "no end mark", 12_000),
    Case("vorbis cut", lambda: encoded("OGG", "VORBIS")[:12_000], 24_000, "no end mark", 12_000),
    Case("opus with turned bytes", lambda: changed(encoded("OGG", "OPUS"), 0.5), None, "damaged"),
    Case("vorbis with turned bytes", lambda: changed(encoded("OGG", "VORBIS"), 0.6), None, "damaged"),
    Case("opus twice", lambda: 2 * encoded("OGG", "OPUS"), None, "joined"),
    Case("ogg of one page", lambda: encoded("OGG", "OPUS")[:47], None, "opened"),
    Case("empty file", lambda: b"", None, "empty file"),
    Case("one byte", lambda: b"\xff", None, "no recording"),
    Case("zeros", lambda: bytes(5000), None, "zero bytes"),
    Case("text", lambda: b"dear diary, today I recorded", None, "text, starting with 'dear diary"),
    Case("noise", lambda: np.random.default_rng(5).bytes(5000), None, "unknown data"),
    Case("zip", lambda: b"PK\x03\x04" + bytes(100), None, "ZIP"),
    Case("lfs pointer", lambda: b"version https://git-lfs.github.com/spec/v1\n", None, "git lfs pull"),
]


def _rifx() -> bytes:
    fmt = struct.pack(">HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    data = np.round(SOUND * 32767).astype(">i2").tobytes()
    body = b"WAVEfmt " + struct.pack(">I", 16) + fmt + b"data" + struct.pack(">I", len(data)) + data
    return b"RIFX" + struct.pack(">I", len(body)) + body
