"""Transcript -> ELAN .eaf (EAF 3.0): a new file, or one more tier in an existing one.

Adding a tier inserts bytes and changes none: whatever a linguist's file holds (controlled vocabularies,
lexicon links, comments, line ends, another encoding) stays byte for byte. The places to insert come from the
XML parser's own byte positions.

Source: "EAF - ELAN Annotation Format, schema version 3.0" (Max Planck Institute for Psycholinguistics). The
order of children is HEADER, TIME_ORDER, TIER*, LINGUISTIC_TYPE*, ...; time slots stand in order of time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from firstwords.data.marks import DRAFT
from firstwords.errors import CorpusError
from firstwords.inference.transcript import Segment, Transcript

_TYPE = "firstwords"  # our linguistic type, where the file has none that is aligned to time


@dataclass
class _Places:
    """What is known of an .eaf after one pass; places are byte offsets."""

    names: set[str] = field(default_factory=lambda: set[str]())  # TIER_ID
    ids: set[str] = field(default_factory=lambda: set[str]())  # slots and annotations
    slots: list[tuple[int, int]] = field(default_factory=lambda: list[tuple[int, int]]())  # place, ms
    free_type: str | None = None  # time-alignable, without constraints
    types: set[str] = field(default_factory=lambda: set[str]())
    time_order_end: int = -1  # start of '</TIME_ORDER>', or behind '<TIME_ORDER/>'
    time_order_is_closed: bool = False  # the latter
    after_tiers: int = -1  # behind the last TIER or, without any, behind TIME_ORDER
    after_types: int = -1
    encoding: str = "utf-8"


def new_eaf(transcript: Transcript, audio: Path, model: str) -> str:
    """Transcript -> an .eaf with one tier ``firstwords:MODEL`` (UTF-8)."""
    slots, tier = _tier(transcript.shown.segments, DRAFT + model, _TYPE, set())
    mime = {".wav": "audio/x-wav", ".mp3": "audio/mpeg", ".mp4": "video/mp4"}.get(
        audio.suffix.lower(), "audio/*"
    )
    date = datetime.now(UTC).isoformat(timespec="seconds")
    order = "".join(slot for _, slot in slots)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<ANNOTATION_DOCUMENT AUTHOR="firstwords" DATE="{date}" FORMAT="3.0" VERSION="3.0" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">\n'
        '    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">\n'
        f"        <MEDIA_DESCRIPTOR MEDIA_URL={quoteattr(audio.absolute().as_uri())} "
        f"MIME_TYPE={quoteattr(mime)} RELATIVE_MEDIA_URL={quoteattr('./' + _url_name(audio))}/>\n"
        "    </HEADER>\n"
        f"    <TIME_ORDER>\n{order}    </TIME_ORDER>\n"
        f"{tier}{_linguistic_type(_TYPE)}"
        "</ANNOTATION_DOCUMENT>\n"
    )


def add_tier(original: bytes, transcript: Transcript, model: str, *, source: str = "the .eaf") -> bytes:
    """Bytes of an .eaf -> the same with one more tier.

    All other bytes stay as they are, but for the '/' of an empty <TIME_ORDER/>.

    Args:
        source: the name of the file, for messages.
    """
    places = _find_places(original, source)
    name, count = DRAFT + model, 1
    while name in places.names:
        count += 1
        name = f"{DRAFT}{model} ({count})"
    kind = places.free_type or _TYPE
    while places.free_type is None and kind in places.types:
        kind += "-aligned"
    slots, tier = _tier(transcript.shown.segments, name, kind, places.ids)
    edits: list[tuple[int, int, str]] = []
    if slots and places.time_order_is_closed:  # <TIME_ORDER/>: nothing was annotated so far
        slash = original.rindex("/".encode(places.encoding), 0, places.time_order_end)
        edits.append((slash, places.time_order_end, f">\n{''.join(x for _, x in slots)}    </TIME_ORDER>"))
    else:
        for milliseconds, slot in slots:
            later = [place for place, value in places.slots if value > milliseconds]
            place = min(later, default=places.time_order_end)
            place = _line_start(original, place, places.encoding)
            edits.append((place, place, slot))
    edits.append((places.after_tiers, places.after_tiers, "\n" + tier.rstrip("\n")))
    if places.free_type is None:
        place = max(places.after_types, places.after_tiers)
        edits.append((place, place, "\n" + _linguistic_type(kind).rstrip("\n")))
    return _edit(original, edits, places.encoding)


def _edit(original: bytes, edits: Sequence[tuple[int, int, str]], encoding: str) -> bytes:
    """Bytes with the stretches [start, end) replaced, in order of place."""
    parts: list[bytes] = []
    at = 0
    for start, end, text in sorted(edits, key=lambda edit: edit[0]):  # stable: same place, same order
        parts += [original[at:start], text.encode(encoding, errors="xmlcharrefreplace")]
        at = end
    return b"".join([*parts, original[at:]])


def _tier(
    segments: Sequence[Segment], name: str, kind: str, taken: set[str]
) -> tuple[list[tuple[int, str]], str]:
    """Segments -> time slots (milliseconds, XML) in order, and the tier's XML; ids are not yet ``taken``."""
    prefix, count = "fw", 0
    while any(known.startswith(prefix) for known in taken):
        count += 1
        prefix = f"fw{count}x"
    slots: list[tuple[int, str]] = []
    annotations: list[str] = []
    for number, segment in enumerate(segments, start=1):
        start = round(segment.start * 1000)
        times = (start, max(start + 1, round(segment.end * 1000)))
        refs = [f"{prefix}ts{2 * number - 1 + side}" for side in (0, 1)]
        slots += [
            (time, f'        <TIME_SLOT TIME_SLOT_ID="{ref}" TIME_VALUE="{time}"/>\n')
            for ref, time in zip(refs, times, strict=True)
        ]
        annotations.append(
            "        <ANNOTATION>\n"
            f'            <ALIGNABLE_ANNOTATION ANNOTATION_ID="{prefix}a{number}" '
            f'TIME_SLOT_REF1="{refs[0]}" TIME_SLOT_REF2="{refs[1]}">\n'
            f"                <ANNOTATION_VALUE>{escape(segment.text)}</ANNOTATION_VALUE>\n"
            "            </ALIGNABLE_ANNOTATION>\n"
            "        </ANNOTATION>\n"
        )
    head = f"    <TIER LINGUISTIC_TYPE_REF={quoteattr(kind)} TIER_ID={quoteattr(name)}"
    if not annotations:
        return [], f"{head}/>\n"
    return sorted(slots, key=lambda slot: slot[0]), f"{head}>\n{''.join(annotations)}    </TIER>\n"


def _url_name(audio: Path) -> str:
    """A file's name as it is, but with bytes that are no UTF-8 as URLs write them: n%E9.wav."""
    return re.sub("[\udc80-\udcff]", lambda found: f"%{ord(found[0]) - 0xDC00:02X}", audio.name)


def _linguistic_type(name: str) -> str:
    return (
        f'    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID={quoteattr(name)} '
        'TIME_ALIGNABLE="true"/>\n'
    )


def _find_places(data: bytes, source: str) -> _Places:
    """One pass of the XML parser; entities are refused (they could grow without end)."""
    places = _Places(encoding=_encoding(data))
    try:
        width = len("<".encode(places.encoding))  # bytes of one ASCII character
    except (LookupError, ValueError) as error:
        raise CorpusError(
            f"{source} is in an encoding that nobody knows ({error}).", mend="Save it again from ELAN."
        ) from None
    parser = expat.ParserCreate()
    parser.buffer_text = True
    root: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        at = parser.CurrentByteIndex
        if not root and name != "ANNOTATION_DOCUMENT":
            raise CorpusError(
                f"{source} is XML, but no ELAN file: its root is <{name}>.",
                mend="Save it again from ELAN.",
            )
        root.append(name)
        match name:
            case "TIME_SLOT":
                places.ids.add(attributes.get("TIME_SLOT_ID", ""))
                value = attributes.get("TIME_VALUE", "")
                if value.isascii() and value.isdecimal() and len(value) < 19:
                    places.slots.append((at, int(value)))
            case "TIER":
                places.names.add(attributes.get("TIER_ID", ""))
            case "LINGUISTIC_TYPE":
                kind = attributes.get("LINGUISTIC_TYPE_ID", "")
                places.types.add(kind)
                if attributes.get("TIME_ALIGNABLE") == "true" and "CONSTRAINTS" not in attributes:
                    places.free_type = places.free_type or kind
            case "ALIGNABLE_ANNOTATION" | "REF_ANNOTATION":
                places.ids.add(attributes.get("ANNOTATION_ID", ""))
            case _:
                pass

    def end(name: str) -> None:
        at = parser.CurrentByteIndex
        root.pop()
        if name not in ("TIME_ORDER", "TIER", "LINGUISTIC_TYPE"):
            return
        # For <X/> the parser stands behind the tag now, for </X> before it. None of these nests in itself.
        closing = data.startswith(f"</{name}".encode(places.encoding), at)
        behind = data.index(">".encode(places.encoding), at) + width if closing else at
        if name == "TIME_ORDER":
            places.time_order_end, places.time_order_is_closed = (at, False) if closing else (behind, True)
            places.after_tiers = behind
        elif name == "TIER":
            places.after_tiers = behind
        else:
            places.after_types = behind

    def entity(*_: Any) -> None:
        raise CorpusError(
            f"{source} declares XML entities; such files are not read.", mend="Save it again from ELAN."
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: it is not in that encoding
        raise CorpusError(
            f"{source} is not well-formed XML: {error}.", mend="Save it again from ELAN."
        ) from None
    if places.time_order_end < 0:
        raise CorpusError(f"{source} has no TIME_ORDER.", mend="Save it again from ELAN.")
    return places


def _line_start(data: bytes, place: int, encoding: str) -> int:
    """The place before the indentation of a tag, where only that stands before it in its line."""
    blanks, newline = {" ".encode(encoding), "\t".encode(encoding)}, "\n".encode(encoding)
    width, at = len(newline), place
    while data[at - width : at] in blanks:
        at -= width
    return at if data[at - width : at] == newline else place


def _encoding(data: bytes) -> str:
    """Byte order mark, else the XML declaration, else UTF-8; a codec that writes no mark of its own."""
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        if data.startswith(mark):
            return name
    head = data[:200].split(b"?>")[0].decode("latin-1")
    for quote in ('"', "'"):
        _, found, rest = head.partition(f"encoding={quote}")
        if found:
            return rest.partition(quote)[0] or "utf-8"
    return "utf-8"
