"""Our own manifest.jsonl: id, audio relative to the file, start, duration, text, speaker, language, split."""

from __future__ import annotations

from pathlib import Path

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.json_lines import first_object, json_lines, label_texts, seconds_of, text_of
from firstwords.data.corpora.source import Source
from firstwords.data.manifest import FIELDS
from firstwords.data.split import split_in_name
from firstwords.errors import CorpusError


def _manifests(source: Source) -> list[Path]:
    files = [p for p in source.with_suffix(".jsonl") if _is_ours(p)]
    top = [p for p in files if p.parent == source.root]
    return top or files


def _is_ours(path: Path) -> bool:
    first = first_object(path)
    return isinstance(first.get("audio"), str) and isinstance(first.get("id"), str)


def detect(source: Source) -> str | None:
    """JSON lines with the keys id and audio."""
    files = _manifests(source)
    return f"firstwords manifest ({', '.join(source.named(p) for p in files[:4])})" if files else None


def read(path: Path, options: Options) -> Imported:
    """Lines -> utterances; a line that is none is skipped with its reason, the rest goes on."""
    source = Source.of(path)
    collector = Collector(source, options)
    files = _manifests(source) or ([source.path] if source.is_file else [])
    for manifest in files:
        split = split_in_name(manifest.stem) if len(files) > 1 else None
        for number, record in json_lines(manifest):
            where = f"line {number} of {source.named(manifest)}"
            if isinstance(record, str):
                collector.skip(where, record)
                continue
            try:
                name, audio = (text_of(record, key) for key in ("id", "audio"))
                if not name or not audio:
                    raise CorpusError(f"'{'audio' if name else 'id'}' is missing")
                start = seconds_of(record, "start") or 0.0
                duration = seconds_of(record, "duration")
                found_audio = source.find_audio(audio, manifest.parent)
            except CorpusError as error:
                collector.skip(where, error)
                continue
            collector.add(
                Found(
                    where=where,
                    audio=found_audio,
                    text=text_of(record, "text"),
                    start=start,
                    end=None if duration is None else start + duration,
                    id=name,
                    speaker=text_of(record, "speaker"),
                    language=text_of(record, "language"),
                    split=text_of(record, "split") or split,
                    labels=label_texts(record, *FIELDS),
                )
            )
    return collector.finish()
