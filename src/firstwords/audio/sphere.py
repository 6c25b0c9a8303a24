"""NIST sphere (.sph) -> a Source.

Source: NIST SPHERE 2.x header: "NIST_1A", the header size, then ``name -type value`` lines until
``end_head``. Samples are PCM or mu-law; sphere's own compression ("embedded-shorten") is refused, since
decoding it needs NIST's sph2pipe.
"""

from __future__ import annotations

from pathlib import Path

from firstwords.audio.pcm import WIDTHS, Encoding, SampleLayout, read_chunks
from firstwords.audio.source import Source, check_format, seconds
from firstwords.errors import AudioError

_MAX_HEADER = 65_536
_SLACK = 4096  # bytes behind the samples that are taken for padding rather than for lost ones


def open_sphere(path: Path) -> Source:
    """Sphere file -> Source."""
    fields, offset = _read_header(path)
    rate, channels = _number(path, fields, "sample_rate"), _number(path, fields, "channel_count", 1)
    check_format(path, rate, channels)
    coding = fields.get("sample_coding", "pcm").lower()
    base, *embedded = coding.split(",")
    if embedded:
        raise AudioError(
            f"'{path}': sphere compression '{embedded[0].strip()}' is not read.",
            mend=f"Decompress it once with NIST's sph2pipe: sph2pipe -f wav {path.name} {path.stem}.wav",
        )
    width = _number(path, fields, "sample_n_bytes", 1 if base in ("ulaw", "mu-law", "alaw") else 2)
    encoding = _encoding(path, base, width)
    repairs: list[str] = []
    order = fields.get("sample_byte_format", "")
    if encoding in ("s16", "s24", "s32") and order[:2] not in ("01", "10"):
        repairs.append("the header names no byte order; little-endian assumed")
    frame = WIDTHS[encoding] * channels
    available = (path.stat().st_size - offset) // frame
    declared = _number(path, fields, "sample_count", available)
    if declared > available:
        repairs.append(
            f"cut short: the header promises {seconds(declared, rate)}, {seconds(available, rate)} are there"
        )
    elif declared == 0 and available > 0:
        repairs.append(
            f"the header gives the length as 0; read to the end of the file ({seconds(available, rate)})"
        )
        declared = available
    elif (available - declared) * frame > _SLACK:
        repairs.append(
            f"the header gives {seconds(declared, rate)} but samples follow; "
            f"read to the end of the file ({seconds(available, rate)})"
        )
        declared = available
    layout = SampleLayout(encoding, order.startswith("10"), channels, offset, min(declared, available))
    return Source(
        path=path,
        sample_rate=rate,
        channels=channels,
        frames=layout.frames,
        container="sphere",
        codec=encoding,
        chunks=lambda first: read_chunks(path, layout, first),
        repairs=repairs,
    )


def _read_header(path: Path) -> tuple[dict[str, str], int]:
    """Sphere file -> header fields and the offset of the samples in bytes."""
    with path.open("rb") as file:
        first = file.read(16)
        digits = first[8:16].strip()
        size = int(digits) if digits.isdigit() else 0
        if not 16 < size <= _MAX_HEADER:
            raise AudioError(f"'{path}': the sphere header gives no size.", mend="Copy the file again.")
        head = first + file.read(size - 16)
    if len(head) < size or b"end_head" not in head:
        raise AudioError(f"'{path}': the sphere header is cut short.", mend="Copy the file again.")
    fields: dict[str, str] = {}
    for line in head.decode("latin-1").split("end_head")[0].splitlines()[2:]:
        name, _, rest = line.strip().partition(" ")
        kind, _, value = rest.strip().partition(" ")
        if name and kind.startswith("-"):
            fields[name] = value.strip()
    return fields, size


def _number(path: Path, fields: dict[str, str], name: str, default: int | None = None) -> int:
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if value is None or not (value.isascii() and value.isdecimal() and len(value) < 19):
        raise AudioError(
            f"'{path}': the sphere header field '{name}' is {value!r}, expected a number.",
            mend="The header is damaged: copy the file again.",
        )
    return int(value)


def _encoding(path: Path, coding: str, width: int) -> Encoding:
    known: dict[tuple[str, int], Encoding] = {
        ("pcm", 1): "s8", ("pcm", 2): "s16", ("pcm", 3): "s24", ("pcm", 4): "s32",
        ("ulaw", 1): "ulaw", ("mu-law", 1): "ulaw", ("alaw", 1): "alaw",
    }  # fmt: skip
    if (coding, width) not in known:
        raise AudioError(
            f"'{path}': sphere coding '{coding}' with {width} bytes per sample is not known.",
            mend="Convert it with NIST's sph2pipe.",
        )
    return known[coding, width]
