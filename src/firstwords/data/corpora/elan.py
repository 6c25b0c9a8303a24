"""ELAN annotation files (.eaf, formats 2.7 to 3.0): one utterance per annotation of the chosen tiers.

Time-aligned annotations carry their own times. A time slot without a value (a subdivision drawn by hand)
lies evenly between its neighbours. An annotation that refers to another takes that one's times; several that
divide the same parent symbolically (words of a sentence) are joined to one text in their order. The XML is
read with defusedxml: entities, which can blow a file of 1 kB up to gigabytes, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.source import Source
from firstwords.data.corpora.tiers import Annotation, Tier, choose_tiers, note_drafts, voices_of
from firstwords.errors import CorpusError, DependencyError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


@dataclass(frozen=True)
class Media:
    """A recording as the file names it; ``origin`` is where annotation time 0 lies in it, in seconds."""

    references: tuple[str, ...]
    mime: str
    origin: float


@dataclass(frozen=True)
class Eaf:
    """What matters of one file."""

    tiers: tuple[Tier, ...]
    media: tuple[Media, ...]


def detect(source: Source) -> str | None:
    """Files named *.eaf."""
    files = source.with_suffix(".eaf")
    return f"{len(files)} ELAN file{'s' if len(files) > 1 else ''} (.eaf)" if files else None


def read(path: Path, options: Options) -> Imported:
    """Annotations of the chosen tiers -> utterances; blank ones were not transcribed and are counted."""
    source = Source.of(path)
    collector = Collector(source, options)
    parsed: dict[Path, Eaf] = {}
    for file in source.with_suffix(".eaf"):
        try:
            parsed[file] = parse_eaf(file.read_bytes(), source.named(file))
        except (CorpusError, OSError) as error:
            collector.skip(source.named(file), error if isinstance(error, CorpusError) else str(error))
    if not parsed:
        return collector.finish()
    chosen, how = choose_tiers((eaf.tiers for eaf in parsed.values()), options)
    collector.note(how)
    voices = voices_of((eaf.tiers for eaf in parsed.values()), chosen)
    if drafts := note_drafts((eaf.tiers for eaf in parsed.values()), chosen):
        collector.note(drafts)
    blank = 0
    for file, eaf in parsed.items():
        tiers = [t for t in eaf.tiers if t.name in chosen]
        if not tiers:
            collector.skip(source.named(file), "has none of the chosen tiers")
            continue
        try:
            audio, origin = _recording(file, eaf, source)
        except CorpusError as error:
            collector.skip(source.named(file), error)
            continue
        for tier in tiers:
            for where, reason in tier.faults:
                collector.skip(f"{where} of {source.named(file)}", reason)
            for annotation in tier.annotations:
                if not annotation.text.strip():
                    blank += 1
                    continue
                collector.add(
                    Found(
                        where=f"{annotation.where} of {source.named(file)}",
                        audio=audio,
                        text=annotation.text,
                        start=annotation.start + origin,
                        end=annotation.end + origin,
                        # without a participant, two speakers usually have a tier each
                        speaker=tier.speaker or (tier.name if tier.name in voices else None),
                        language=tier.language,
                        labels={"tier": tier.name} if len(chosen) > 1 else {},
                    )
                )
    if blank:
        collector.note(f"{blank} annotations are blank (not transcribed yet) and were left out.")
    return collector.finish(beside="eaf")


def _recording(file: Path, eaf: Eaf, source: Source) -> tuple[Path, float]:
    """The first of the named media that exists, sound before video; else a recording named like the file."""
    faults: list[str] = []
    for media in sorted(eaf.media, key=lambda m: not m.mime.startswith("audio")):
        for reference in media.references:
            try:
                return source.find_audio(reference, file.parent), media.origin
            except CorpusError as error:
                faults.append(error.what)
    try:
        return source.audio_of(file), eaf.media[0].origin if len(eaf.media) == 1 else 0.0
    except CorpusError as error:
        raise CorpusError("; ".join([*dict.fromkeys(faults), error.what])) from None


def parse_eaf(data: bytes, name: str) -> Eaf:
    """Bytes of an .eaf -> its tiers and media; whatever is no such file is a CorpusError."""
    root = _xml(data, name)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise CorpusError(f"'{name}' is no ELAN file: its root is <{root.tag}>, not <ANNOTATION_DOCUMENT>")
    header = root.find("HEADER")
    units = header.get("TIME_UNITS", "milliseconds") if header is not None else "milliseconds"
    if units != "milliseconds":
        raise CorpusError(f"'{name}' counts time in {units}: save it with milliseconds in ELAN")
    media = [_media(m) for m in root.iter("MEDIA_DESCRIPTOR")]
    if header is not None and not media and (file := header.get("MEDIA_FILE")):
        media = [Media((file,), "", 0.0)]
    languages = {e.get("LANG_ID", ""): _tag(e) for e in root.findall("LANGUAGE")}
    slots = _slots(root)
    parts = _Parts(root, slots)
    tiers = [parts.tier(t, languages) for t in root.findall("TIER")]
    return Eaf(tuple(tiers), tuple(media))


def _xml(data: bytes, name: str) -> Element:
    try:
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError:
        raise DependencyError(
            "Reading ELAN files needs defusedxml.", mend='pip install "firstwords[train]"'
        ) from None
    try:
        return fromstring(data, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:  # defusedxml's own refusals are ValueErrors
        raise CorpusError(f"'{name}' is not readable XML: {error}") from None


def _media(element: Element) -> Media:
    names = [element.get("RELATIVE_MEDIA_URL"), element.get("MEDIA_URL"), element.get("EXTRACTED_FROM")]
    value = element.get("TIME_ORIGIN", "0")
    origin = int(value) / 1000 if re.fullmatch(r"-?[0-9]{1,15}", value) else 0.0
    return Media(tuple(n for n in names[:2] if n), element.get("MIME_TYPE", ""), origin)


def _tag(element: Element) -> str:
    tag = element.get("LANG_ID", "")
    return tag if re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", tag) else ""


def _slots(root: Element) -> dict[str, float]:
    """Time slot -> seconds; runs of slots without a value are spread evenly between their neighbours."""
    order = root.find("TIME_ORDER")
    names: list[str] = []
    values: list[float | None] = []
    for slot in order.findall("TIME_SLOT") if order is not None else ():
        names.append(slot.get("TIME_SLOT_ID", ""))
        value = slot.get("TIME_VALUE", "")
        values.append(int(value) / 1000 if re.fullmatch(r"-?[0-9]{1,15}", value) else None)
    known = [i for i, v in enumerate(values) if v is not None]
    slots: dict[str, float] = {}
    for left, right in pairwise(known):
        first, last = values[left] or 0.0, values[right] or 0.0
        for i in range(left, right):
            slots[names[i]] = first + (last - first) * (i - left) / (right - left)
    if known:
        slots[names[known[-1]]] = values[known[-1]] or 0.0
    return slots


class _Parts:
    """Annotations of a whole document by id, since references cross from tier to tier."""

    def __init__(self, root: Element, slots: dict[str, float]) -> None:
        self.slots = slots
        self.aligned: dict[str, Element] = {}
        self.referring: dict[str, Element] = {}
        self.tiers = {t.get("TIER_ID", ""): t for t in root.findall("TIER")}
        for element in root.iter("ALIGNABLE_ANNOTATION"):
            self.aligned[element.get("ANNOTATION_ID", "")] = element
        for element in root.iter("REF_ANNOTATION"):
            self.referring[element.get("ANNOTATION_ID", "")] = element

    def tier(self, element: Element, languages: dict[str, str]) -> Tier:
        found: list[Annotation] = []
        faults: list[tuple[str, str]] = []
        for annotation in element.iter("ALIGNABLE_ANNOTATION"):
            self._add(annotation.get("ANNOTATION_ID", ""), _value(annotation), found, faults)
        for name, texts in self._joined(element.iter("REF_ANNOTATION")):
            self._add(name, " ".join(t for t in texts if t), found, faults)
        found.sort(key=lambda a: (a.start, a.end))
        return Tier(
            name=element.get("TIER_ID", ""),
            annotations=tuple(found),
            kind=element.get("LINGUISTIC_TYPE_REF", ""),
            speaker=self._inherited(element, "PARTICIPANT"),
            language=languages.get(element.get("LANG_REF", ""), ""),
            parent=element.get("PARENT_REF", ""),
            faults=tuple(faults),
        )

    def _add(self, name: str, text: str, found: list[Annotation], faults: list[tuple[str, str]]) -> None:
        where = f"annotation {name}"
        times = self._times(name)
        if times is None:
            faults.append((where, "has no times, nor has what it refers to"))
        else:
            found.append(Annotation(*times, text, where))

    def _times(self, name: str) -> tuple[float, float] | None:
        seen: set[str] = set()
        while name in self.referring and name not in seen:
            seen.add(name)
            name = self.referring[name].get("ANNOTATION_REF", "")
        element = self.aligned.get(name)
        if element is None:
            return None
        start, end = (self.slots.get(element.get(f"TIME_SLOT_REF{i}", "")) for i in (1, 2))
        return None if start is None or end is None else (start, end)

    def _joined(self, elements: Iterable[Element]) -> list[tuple[str, list[str]]]:
        """(id of the first, texts in order) per parent that annotations of one tier refer to."""
        by_parent: dict[str, list[Element]] = {}
        for element in elements:
            by_parent.setdefault(element.get("ANNOTATION_REF", ""), []).append(element)
        joined: list[tuple[str, list[str]]] = []
        for children in by_parent.values():
            following = {c.get("PREVIOUS_ANNOTATION", ""): c for c in children}
            ordered: list[Element] = []
            at = following.pop("", None)
            while at is not None:  # each link is used up, so a chain that bites its tail ends
                ordered.append(at)
                at = following.pop(at.get("ANNOTATION_ID", ""), None)
            if len(ordered) < len(children):  # a chain torn or tied in a knot: the order of the file
                ordered = children
            joined.append((ordered[0].get("ANNOTATION_ID", ""), [_value(c) for c in ordered]))
        return joined

    def _inherited(self, element: Element, attribute: str) -> str:
        for _ in range(len(self.tiers) + 1):
            if value := element.get(attribute, "").strip():
                return value
            above = self.tiers.get(element.get("PARENT_REF", ""))
            if above is None:
                break
            element = above
        return ""


def _value(annotation: Element) -> str:
    return " ".join("".join(annotation.findtext("ANNOTATION_VALUE", "")).split())
