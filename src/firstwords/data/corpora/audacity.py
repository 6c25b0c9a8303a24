"""Audacity label tracks: talk.txt with lines ``start<TAB>end<TAB>text`` beside talk.wav.

A second line that begins with a backslash gives a label's frequencies and is passed over. A label without
duration marks a point and is no utterance.
"""

from __future__ import annotations

from pathlib import Path

from firstwords.data.corpora.folder import is_label_track
from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.source import Source, read_text
from firstwords.data.corpora.tables import parse_seconds
from firstwords.errors import CorpusError


def _tracks(source: Source) -> list[Path]:
    found: list[Path] = []
    for path in source.with_suffix(".txt"):
        try:
            if path.stat().st_size < 1 << 24 and is_label_track(read_text(path)):
                found.append(path)
        except (CorpusError, OSError):
            continue
    return found


def detect(source: Source) -> str | None:
    """Text files whose lines mostly begin with two times."""
    tracks = _tracks(source)
    return f"{len(tracks)} Audacity label track{'s' if len(tracks) > 1 else ''}" if tracks else None


def read(path: Path, options: Options) -> Imported:
    """Labels with a duration and a text -> utterances."""
    source = Source.of(path)
    collector = Collector(source, options)
    blank = 0
    for track in _tracks(source):
        try:
            audio = source.audio_of(track)
        except CorpusError as error:
            collector.skip(source.named(track), error)
            continue
        for number, line in enumerate(read_text(track).split("\n"), start=1):
            if not line.strip() or line.startswith("\\"):
                continue
            where = f"line {number} of {source.named(track)}"
            parts = line.split("\t", 2)
            try:
                start, end = parse_seconds(parts[0]), parse_seconds(parts[1])
            except (ValueError, IndexError):
                collector.skip(where, f"'{line.strip()[:60]}' does not begin with two times")
                continue
            if not "".join(parts[2:]).strip():
                blank += 1
                continue
            collector.add(Found(where=where, audio=audio, text=parts[2], start=start, end=end))
    if blank:
        collector.note(f"{blank} labels hold no text and were left out.")
    return collector.finish(beside="textgrid")
