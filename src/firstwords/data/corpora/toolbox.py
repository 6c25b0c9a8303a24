r"""Toolbox and Shoebox (standard format): a text file of records, each line a marker and what stands in it.

    \ref talk1.001                     a record begins where the first marker of the text comes again
    \ELANBegin 0.500                   times in seconds, as ELAN exports them, or
    \aud talk1.wav 0.500 8.030         the recording and times, as Toolbox keeps them
    \tx mtoto anakula                  lines of one marker are joined: long ones are wrapped
    \ge child 3SG.PRS.eat

The markers are read as tiers are: of the chosen ones a record is an utterance. \ELANParticipant (\sp) is the
speaker. A record without times is one only where it names a recording of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.source import AUDIO_SUFFIXES, Source, read_text
from firstwords.data.corpora.table_looks import parse_seconds
from firstwords.data.corpora.tiers import Annotation, Tier, choose_tiers
from firstwords.errors import CorpusError

_SUFFIXES = (".txt", ".sfm", ".tbt", ".db", ".itm")
_LINE = re.compile(r"\\([A-Za-z_][\w+-]*)[ \t]*(.*)")
_AUDIO = ("aud", "audio", "sf", "sfx", "sound", "snd", "wav")
_SPEAKER = ("ELANParticipant", "sp", "spk", "speaker")
_BEGIN, _END = ("ELANBegin", "begin", "start"), ("ELANEnd", "end", "stop")
_LARGEST = 1 << 24  # bytes of a file that is looked into


@dataclass
class Record:
    """Marker -> its lines, of one record; ``line`` is where it begins."""

    line: int
    fields: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def first(self, markers: tuple[str, ...]) -> str:
        """What stands behind the first of these markers that is there and filled."""
        return next((text for m in markers if (text := " ".join(self.fields.get(m, ())).strip())), "")


def is_standard_format(text: str) -> bool:
    """Whether most lines of a text begin with a marker, and some marker comes again."""
    lines = [line for line in text.split("\n") if line.strip()]
    markers = Counter(match[1] for line in lines if (match := _LINE.match(line)))
    return 2 * markers.total() > len(lines) and len(markers) > 1


def parse_records(text: str) -> list[Record]:
    r"""Text -> records. Each begins at the marker (\ref, \id, ...) that is first to come a second time."""
    lines: list[tuple[int, str, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if match := _LINE.match(line):
            lines.append((number, match[1], match[2].strip()))
        elif line.strip() and lines:  # a long line that was wrapped
            at, marker, before = lines[-1]
            lines[-1] = (at, marker, f"{before} {line.strip()}")
    counts = Counter(marker for _, marker, _ in lines)
    first = next((m for m in ("ref", "id") if counts[m]), None)
    first = first or next((m for _, m, _ in lines if counts[m] > 1 and not m.startswith("_")), None)
    records: list[Record] = []
    for number, marker, content in lines:
        if marker == first:
            records.append(Record(number))
        if records:
            records[-1].fields.setdefault(marker, []).append(content)
    return records


def _files(source: Source) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    for path in source.with_suffix(*_SUFFIXES):
        try:
            if path.stat().st_size < _LARGEST and is_standard_format(text := read_text(path)):
                found.append((path, text))
        except (CorpusError, OSError):
            continue
    return found


def detect(source: Source) -> str | None:
    """Text files whose lines begin with markers."""
    count = len(_files(source))
    return f"{count} Toolbox file{'s' if count > 1 else ''} (standard format)" if count else None


def read(path: Path, options: Options) -> Imported:
    """Records with a text under one of the chosen markers -> utterances."""
    source = Source.of(path)
    collector = Collector(source, options)
    files = {file: parse_records(text) for file, text in _files(source)}
    if not files:
        return collector.finish()
    chosen, how = choose_tiers((_as_tiers(records) for records in files.values()), options)
    collector.note(how.replace("the tier", "the marker"))
    for file, records in files.items():
        for record in records:
            text = record.first(tuple(m for m in record.fields if m in chosen))
            if not text:
                continue
            where = f"line {record.line} of {source.named(file)}"
            try:
                audio, start, end = _place(record, file, source)
            except CorpusError as error:
                collector.skip(where, error)
                continue
            speaker = record.first(_SPEAKER) or None
            collector.add(Found(where=where, audio=audio, text=text, start=start, end=end, speaker=speaker))
    return collector.finish(beside="eaf")


def _as_tiers(records: list[Record]) -> list[Tier]:
    """Markers with what stands in them, to be chosen from; places and speakers are no text."""
    plain = {*_AUDIO, *_SPEAKER, *_BEGIN, *_END}
    names = dict.fromkeys(m for r in records for m in r.fields if m not in plain and not m.startswith("_"))

    def annotations(marker: str) -> tuple[Annotation, ...]:
        found = ((r, " ".join(r.fields.get(marker, ()))) for r in records)
        return tuple(Annotation(*_shown_times(r), text, f"line {r.line}") for r, text in found)

    return [Tier(marker, annotations(marker)) for marker in names]


def _shown_times(record: Record) -> tuple[float, float]:
    """Times for a list of markers; 0 where there are none."""
    try:
        return parse_seconds(record.first(_BEGIN)), parse_seconds(record.first(_END))
    except ValueError:
        return 0.0, 0.0


def _place(record: Record, file: Path, source: Source) -> tuple[Path, float, float | None]:
    """Recording, start and end of a record; CorpusError where nobody can know them."""
    named, times = record.first(_AUDIO), [record.first(_BEGIN), record.first(_END)]
    parts = named.rsplit(None, 2)
    if len(parts) == 3 and all(re.fullmatch(r"[\d.,:]+", part) for part in parts[1:]):
        named, times = parts[0], parts[1:]
    whole = Path(named.replace("\\", "/")).suffix.lower() in AUDIO_SUFFIXES
    audio = source.find_audio(named, file.parent) if whole else source.audio_of(file)
    if not any(times):
        if whole:
            return audio, 0.0, None
        raise CorpusError(r"has no times (\ELANBegin and \ELANEnd, or \aud FILE START END)")
    try:
        start, end = map(parse_seconds, times)
    except ValueError:
        raise CorpusError(f"'{times[0]}' and '{times[1]}' are no times in seconds") from None
    return audio, start, end
