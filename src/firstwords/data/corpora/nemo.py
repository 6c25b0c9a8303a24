"""NeMo manifests: JSON lines with audio_filepath, duration, text; offset, speaker, lang if given.

Paths are relative to the manifest's folder. ``audio_filename`` stands for audio_filepath, and
``normalized_text`` or ``text_filepath`` for text, as in NeMo's own reader.
"""

from __future__ import annotations

from pathlib import Path

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.json_lines import first_object, json_lines, label_texts, seconds_of, text_of
from firstwords.data.corpora.source import Source, read_text
from firstwords.data.split import split_in_name
from firstwords.errors import CorpusError, quoted

_AUDIO = ("audio_filepath", "audio_filename")
_USED = (*_AUDIO, "duration", "text", "text_filepath", "offset", "speaker", "lang", "language", "split", "id")


def _manifests(source: Source) -> list[Path]:
    return [
        p
        for p in source.with_suffix(".json", ".jsonl", ".json.gz", ".jsonl.gz")
        if any(isinstance(first_object(p).get(key), str) for key in _AUDIO)
    ]


def detect(source: Source) -> str | None:
    """JSON lines with the key audio_filepath."""
    files = _manifests(source)
    return f"NeMo manifest ({', '.join(source.named(p) for p in files[:4])})" if files else None


def read(path: Path, options: Options) -> Imported:
    """Lines -> utterances; several manifests are taken together only if each names its split."""
    source = Source.of(path)
    collector = Collector(source, options)
    files = _manifests(source) or ([source.path] if source.is_file else [])
    splits = {p: split_in_name(p.name.split(".")[0]) for p in files}
    if len(files) > 1 and (None in splits.values() or len(set(splits.values())) < len(files)):
        raise CorpusError(
            f"'{path}' holds several NeMo manifests: {', '.join(source.named(p) for p in files[:8])}.",
            mend=f"Name the one to import, for example: firstwords import {quoted(files[0])}",
        )
    for manifest in files:
        for number, record in json_lines(manifest):
            where = f"line {number} of {source.named(manifest)}"
            if isinstance(record, str):
                collector.skip(where, record)
                continue
            try:
                audio = source.find_audio(text_of(record, *_AUDIO) or "", manifest.parent)
                start = seconds_of(record, "offset") or 0.0
                duration = seconds_of(record, "duration")
                text = text_of(record, "text", "normalized_text")
                beside = text_of(record, "text_filepath")
                if text is None and beside:
                    text = read_text(manifest.parent / beside)
            except CorpusError as error:
                collector.skip(where, error)
                continue
            segment = record.get("offset") is not None
            collector.add(
                Found(
                    where=where,
                    audio=audio,
                    text=text,
                    start=start,
                    end=start + duration if duration is not None else None,
                    id=text_of(record, "id") if not segment else None,
                    speaker=text_of(record, "speaker"),
                    language=text_of(record, "lang", "language"),
                    split=text_of(record, "split") or (splits[manifest] if len(files) > 1 else None),
                    labels=label_texts(record, *_USED),
                )
            )
    return collector.finish()
