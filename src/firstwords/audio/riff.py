"""WAV, RF64, BW64 and RIFX -> a Source.

Sources: Microsoft/IBM "Multimedia Programming Interface and Data Specifications 1.0" (RIFF, WAVE) with
WAVE_FORMAT_EXTENSIBLE, EBU Tech 3306 (RF64), ITU-R BS.2088 (BW64).

A header is believed only as far as the file agrees with it:

    data size      file                                 what happens
    0, 0xFFFFFFFF  bytes follow that are no chunk        read to the end, stated (streams, crashes)
    too large      ends earlier                          what is there is read, stated
    too small      more than 4096 bytes follow, no chunk read to the end, stated (wrapped at 4 GiB)
    not a multiple of a frame                            the incomplete frame is left out, stated
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from firstwords.audio.libsndfile import open_with_libsndfile
from firstwords.audio.pcm import WIDTHS, Encoding, SampleLayout, read_chunks
from firstwords.audio.source import Source, check_format, seconds
from firstwords.errors import AudioError

_UNKNOWN_SIZE = (0, 0xFFFFFFFF)
_EXTENSIBLE = 0xFFFE
# Format tags; all others (ADPCM, GSM, MP3 in WAV) are handed to libsndfile.
_PCM, _FLOAT, _ALAW, _ULAW = 1, 3, 6, 7
_SLACK = 4096  # bytes of unknown trailer that are taken for padding rather than for lost samples


@dataclass(frozen=True)
class _Format:
    tag: int
    channels: int
    sample_rate: int
    block: int  # bytes per frame as declared
    bits: int  # bits per sample as declared


@dataclass(frozen=True)
class _Data:
    offset: int
    declared: int
    exact: bool  # the size came from a ds64 chunk


def open_riff(path: Path) -> Source:
    """WAV-like file -> Source; repairs are noted, what cannot be mended is an AudioError."""
    total = path.stat().st_size
    with path.open("rb") as file:
        order = ">" if file.read(4) == b"RIFX" else "<"
        format_, data = _find_chunks(path, file, order, total)
        if data is None:
            raise AudioError(
                f"'{path}': a WAV header without a data chunk.",
                mend="The recording was cut off before any sound was written: record or export it again.",
            )
        if format_ is None:
            raise AudioError(
                f"'{path}': the WAV header lacks its fmt chunk, so rate and width are unknown.",
                mend="Export the file again.",
            )
        check_format(path, format_.sample_rate, format_.channels)
        repairs: list[str] = []
        size = _data_size(path, file, order, data, total, format_, repairs)
    encoding = _encoding(path, format_, repairs)
    container = "rf64" if data.exact else "wav"
    if encoding is None:
        if repairs:
            raise AudioError(
                f"'{path}': {repairs[0]}, and its coding (tag {format_.tag:#x}) cannot be repaired.",
                mend="Export the file again as 16-bit PCM WAV or FLAC.",
            )
        return open_with_libsndfile(path, container)
    frame = WIDTHS[encoding] * format_.channels
    frames, rest = divmod(size, frame)
    if rest and not repairs:
        repairs.append(f"the last {rest} bytes are no whole frame; left out")
    layout = SampleLayout(encoding, order == ">", format_.channels, data.offset, frames)
    return Source(
        path=path,
        sample_rate=format_.sample_rate,
        channels=format_.channels,
        frames=frames,
        container=container,
        codec=encoding,
        chunks=lambda first: read_chunks(path, layout, first),
        repairs=repairs,
    )


def _find_chunks(path: Path, file: BinaryIO, order: str, total: int) -> tuple[_Format | None, _Data | None]:
    """Walk the chunks; stops at the data chunk once the format is known."""
    at, format_, data, data_64 = 12, None, None, None
    while at + 8 <= total:
        file.seek(at)
        name, size = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"ds64":
            body = file.read(min(size, 28))
            if len(body) >= 16:
                data_64 = struct.unpack(f"{order}Q", body[8:16])[0]
        elif name == b"fmt ":
            format_ = _read_format(path, file.read(min(size, 40)), order)
        elif name == b"data":
            exact = data_64 is not None and size == 0xFFFFFFFF
            data = _Data(at + 8, int(data_64) if exact and data_64 is not None else size, exact)
            if format_ is not None:
                break
        at += 8 + size
        if size % 2:  # chunks start at even places, but some writers forget the pad byte
            file.seek(at)
            if not _is_chunk_name(file.read(4)):
                at += 1
    return format_, data


def _read_format(path: Path, body: bytes, order: str) -> _Format:
    if len(body) < 14:
        raise AudioError(f"'{path}': the fmt chunk is cut short.", mend="Export the file again.")
    tag, channels, rate, _, block = struct.unpack(f"{order}HHIIH", body[:14])
    bits = struct.unpack(f"{order}H", body[14:16])[0] if len(body) >= 16 else 8
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = struct.unpack(f"{order}H", body[24:26])[0]
    return _Format(tag, channels, rate, block, bits)


def _is_chunk_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _data_size(
    path: Path, file: BinaryIO, order: str, data: _Data, total: int, format_: _Format, repairs: list[str]
) -> int:
    """Bytes of samples that are really there, with the repair in words when the header says otherwise."""
    available, declared = total - data.offset, data.declared
    rate, frame = format_.sample_rate, max(1, format_.block)
    if declared in _UNKNOWN_SIZE and not (declared == 0 and _chunks_follow(file, order, data.offset, total)):
        if available > 0:
            shown = "0" if declared == 0 else "unknown"
            repairs.append(
                f"the header gives the length as {shown}; read to the end of the file "
                f"({seconds(available // frame, rate)})"
            )
        return available
    if declared > available:
        repairs.append(
            f"cut short: the header promises {seconds(declared // frame, rate)}, "
            f"{seconds(available // frame, rate)} are there"
        )
        return available
    end = data.offset + declared
    behind = total - end
    if behind > _SLACK and not any(
        _chunks_follow(file, order, end + pad, total) for pad in (0, declared % 2)
    ):
        repairs.append(
            f"the header gives {seconds(declared // frame, rate)} but samples follow; "
            f"read to the end of the file ({seconds(available // frame, rate)})"
        )
        return available
    return declared


def _chunks_follow(file: BinaryIO, order: str, at: int, total: int) -> bool:
    """True where a chunk that fits into the file starts at byte ``at``."""
    file.seek(at)
    head = file.read(8)
    if len(head) < 8 or not _is_chunk_name(head[:4]):
        return False
    return at + 8 + struct.unpack(f"{order}I", head[4:])[0] <= total + 1


def _encoding(path: Path, format_: _Format, repairs: list[str]) -> Encoding | None:
    """Declared format -> sample encoding; None for codings that libsndfile must decode."""
    if format_.tag not in (_PCM, _FLOAT, _ALAW, _ULAW):
        return None
    width, rest = divmod(format_.block, format_.channels)
    from_bits = (format_.bits + 7) // 8
    if rest or width == 0:  # block align is nonsense: the bits decide
        repairs.append(f"block align {format_.block} contradicts {format_.channels} channels; bits believed")
        width = from_bits
    if format_.bits > 8 * width or format_.bits == 0:
        raise AudioError(
            f"'{path}': {format_.bits} bits in {width} bytes per sample contradict each other.",
            mend="The header is damaged: export the file again.",
        )
    if format_.tag == _PCM:
        if format_.bits % 8:
            repairs.append(f"{format_.bits}-bit samples, read as {8 * width}-bit (left-justified)")
        known: dict[int, Encoding] = {1: "u8", 2: "s16", 3: "s24", 4: "s32"}
    elif format_.tag == _FLOAT:
        known = {4: "f32", 8: "f64"}
    else:
        known = {1: "alaw" if format_.tag == _ALAW else "ulaw"}
    if width not in known:
        raise AudioError(
            f"'{path}': WAV with {format_.bits}-bit samples of tag {format_.tag} is not known.",
            mend="Export the file again as 16-bit PCM WAV or FLAC.",
        )
    return known[width]
