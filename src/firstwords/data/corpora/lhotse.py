"""Lhotse manifests without lhotse: CutSet JSONL(.gz), or recordings and supervisions in two files.

An utterance is a supervision: its start counts from the start of its cut. What lhotse can do and a plain
utterance cannot (mixed or padded cuts, audio behind a command or an address, one channel of several,
perturbed recordings) is left out with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.json_lines import (
    first_object,
    json_lines,
    label_texts,
    list_of,
    object_of,
    seconds_of,
    text_of,
)
from firstwords.data.corpora.source import Source
from firstwords.data.split import split_in_name
from firstwords.errors import CorpusError, quoted

_SUFFIXES = (".jsonl", ".jsonl.gz")
Json = Mapping[str, Any]


def _kind(path: Path) -> str:
    first = first_object(path)
    if str(first.get("type", "")).endswith("Cut") or ("supervisions" in first and "start" in first):
        return "cuts"
    if "sources" in first and "sampling_rate" in first:
        return "recordings"
    return "supervisions" if "recording_id" in first and "start" in first else ""


def _manifests(source: Source) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {"cuts": [], "recordings": [], "supervisions": []}
    for path in source.with_suffix(*_SUFFIXES):
        if kind := _kind(path):
            found[kind].append(path)
    return found


def detect(source: Source) -> str | None:
    """Cuts, or supervisions with recordings."""
    found = _manifests(source)
    files = found["cuts"] or (found["supervisions"] if found["recordings"] else [])
    return f"Lhotse manifests ({', '.join(source.named(p) for p in files[:4])})" if files else None


def read(path: Path, options: Options) -> Imported:
    """Cuts if there are any, else supervisions joined with their recordings."""
    source = Source.of(path)
    collector = Collector(source, options)
    found = _manifests(source)
    files = found["cuts"] or found["supervisions"]
    splits = {p: split_in_name(p.name.split(".")[0]) for p in files}
    if len(files) > 1 and None in splits.values():
        names = ", ".join(source.named(p) for p in files[:8])
        raise CorpusError(
            f"'{path}' holds several Lhotse manifests: {names}.",
            mend=f"Name the one to import, for example: firstwords import {quoted(files[0])}",
        )
    recordings = {} if found["cuts"] else _recordings(found["recordings"], collector)
    for manifest in files:
        split = splits[manifest] if len(files) > 1 else None
        for number, record in json_lines(manifest):
            where = f"line {number} of {source.named(manifest)}"
            if isinstance(record, str):
                collector.skip(where, record)
                continue
            try:
                if found["cuts"]:
                    _add_cut(record, where, manifest.parent, split, collector)
                else:
                    _add_supervision(record, where, manifest.parent, split, collector, recordings)
            except CorpusError as error:
                collector.skip(where, error)
    return collector.finish()


def _recordings(files: list[Path], collector: Collector) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for path in files:
        for number, record in json_lines(path):
            if isinstance(record, str):
                collector.skip(f"line {number} of {path.name}", record)
            else:
                found[str(record.get("id"))] = record
    return found


def _add_cut(cut: Json, where: str, base: Path, split: str | None, collector: Collector) -> None:
    kind = str(cut.get("type", "MonoCut"))
    if kind not in ("MonoCut", "Cut"):
        raise CorpusError(f"is a {kind}: only plain cuts of one recording become utterances")
    audio = _audio(object_of(cut, "recording"), cut.get("channel"), base, collector.source)
    start = seconds_of(cut, "start") or 0.0
    supervisions = [s for s in list_of(cut, "supervisions") if isinstance(s, dict)]
    if not supervisions:
        raise CorpusError(f"cut '{cut.get('id')}' has no supervision, so nobody knows what is said in it")
    for supervision in cast("list[Json]", supervisions):
        # a lone supervision that fills its cut is the cut, and keeps the cut's name
        name = text_of(cut, "id") if len(supervisions) == 1 else text_of(supervision, "id")
        _add(supervision, name, where, audio, start, split, collector)


def _add_supervision(
    supervision: Json,
    where: str,
    base: Path,
    split: str | None,
    collector: Collector,
    recordings: Mapping[str, Json],
) -> None:
    name = str(supervision.get("recording_id"))
    if name not in recordings:
        raise CorpusError(f"recording '{name}' is in no recordings manifest")
    audio = _audio(recordings[name], supervision.get("channel"), base, collector.source)
    _add(supervision, text_of(supervision, "id"), where, audio, 0.0, split, collector)


def _add(
    supervision: Json,
    name: str | None,
    where: str,
    audio: Path,
    offset: float,
    split: str | None,
    collector: Collector,
) -> None:
    start, duration = (seconds_of(supervision, key) for key in ("start", "duration"))
    if start is None or duration is None:
        raise CorpusError("a supervision lacks start or duration")
    start = round(offset + start, 6)
    if start < 0:  # the cut begins within the speech: what lies before the recording cannot be had
        start, duration = 0.0, duration + start
    labels = label_texts(object_of(supervision, "custom"))
    if gender := text_of(supervision, "gender"):
        labels["gender"] = gender
    collector.add(
        Found(
            where=where,
            audio=audio,
            text=text_of(supervision, "text"),
            start=start,
            end=round(start + duration, 6),
            id=name,
            speaker=text_of(supervision, "speaker"),
            language=text_of(supervision, "language"),
            split=split,
            labels=labels,
        )
    )


def _audio(recording: Json, channel: Any, base: Path, source: Source) -> Path:
    if not recording:
        raise CorpusError("has no recording (features alone cannot be imported)")
    if list_of(recording, "transforms"):
        raise CorpusError(f"recording '{recording.get('id')}' is perturbed: import the original cuts")
    sources = [s for s in list_of(recording, "sources") if isinstance(s, dict)]
    if len(sources) != 1:
        raise CorpusError(f"recording '{recording.get('id')}' has {len(sources)} sources, expected 1")
    only = cast("Json", sources[0])
    kind = str(only.get("type"))
    if kind == "command":
        raise CorpusError(
            f"recording '{recording.get('id')}' is a command, and commands from data are never run: "
            "write the recording to a file"
        )
    if kind != "file":
        raise CorpusError(f"recording '{recording.get('id')}' is of type '{kind}', not a file")
    count = len(list_of(only, "channels"))
    if count > 1 and (not isinstance(channel, list) or len(cast("list[Any]", channel)) != count):
        raise CorpusError(f"takes channel {channel} of a recording with {count}: split the channels first")
    return source.find_audio(str(only.get("source", "")), base)
