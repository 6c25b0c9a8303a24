"""Hugging Face 'audiofolder': metadata.csv or metadata.jsonl with ``file_name`` beside the recordings.

A metadata file may lie in each split's folder (train/metadata.csv) or once at the top with paths like
``train/001.wav``; either way folder names that are splits become the split.
"""

from __future__ import annotations

from pathlib import Path

from firstwords.data.corpora.imported import Collector, Imported, Options
from firstwords.data.corpora.json_lines import first_object, json_lines, label_texts
from firstwords.data.corpora.source import Source
from firstwords.data.corpora.tables import Row, collect_rows, known_columns, looks_like_table, read_table
from firstwords.data.split import TRAIN, split_in_name
from firstwords.errors import CorpusError


def _metadata(source: Source) -> list[Path]:
    found: list[Path] = []
    for path in source.files:
        if path.name.lower() == "metadata.jsonl" and "file_name" in first_object(path):
            found.append(path)
        if path.name.lower() == "metadata.csv" and looks_like_table(path, "audio"):
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                if "file_name" in file.readline(8192):
                    found.append(path)
    return found


def detect(source: Source) -> str | None:
    """metadata.csv or metadata.jsonl with the column file_name."""
    files = _metadata(source)
    return f"Hugging Face audio folder ({', '.join(source.named(p) for p in files[:4])})" if files else None


def read(path: Path, options: Options) -> Imported:
    """Rows of the metadata files -> utterances."""
    source = Source.of(path)
    collector = Collector(source, options)
    files = _metadata(source)
    folders = {split_in_name(folder) for p in source.audio for folder in source.named(p).split("/")[:-1]}
    for metadata in files:
        if metadata.suffix.lower() == ".csv":
            table = read_table(metadata, source=source, named=options.columns)
            for where, reason in table.broken:
                collector.skip(where, reason)
            for note in table.notes:
                collector.note(note)
            rows = list(table.rows)
        else:
            rows = _rows(metadata, source, collector, options)
        for row in rows:
            # a path like train/001.wav below a metadata file at the top, or a metadata file in train/
            parts = (*source.named(metadata).split("/")[:-1], *row.fields["audio"].split("/")[:-1])
            named = [split for part in parts if (split := split_in_name(part))]
            split = named[-1] if named and TRAIN in folders else None
            collect_rows(collector, [row], metadata.parent, split=split)
    return collector.finish()


def _rows(metadata: Path, source: Source, collector: Collector, options: Options) -> list[Row]:
    """Lines of a metadata.jsonl as table rows: the keys of the first line are the header."""
    columns: dict[str, str] = {}
    rows: list[Row] = []
    for number, record in json_lines(metadata):
        where = f"line {number} of {source.named(metadata)}"
        if isinstance(record, str):
            collector.skip(where, record)
            continue
        if not columns:
            keys = list(record)
            columns = {f: keys[i] for f, i in known_columns(keys, options.columns).items()}
            if "audio" not in columns or "text" not in columns:
                raise CorpusError(
                    f"'{source.named(metadata)}': no key is known for the text. Its keys: {', '.join(keys)}.",
                    mend=f"Say which it is: --column text={keys[-1]}",
                )
        texts = label_texts(record)
        if columns["audio"] not in texts:
            collector.skip(where, f"'{columns['audio']}' is missing")
            continue
        fields = {f: texts[k] for f, k in columns.items() if k in texts}
        rows.append(Row(where, fields, label_texts(record, *columns.values())))
    return rows
