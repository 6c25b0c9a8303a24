"""CSV or TSV with a line per utterance: the file itself, or a folder with one table (or one per split)."""

from __future__ import annotations

from pathlib import Path

from firstwords.data.corpora.imported import Collector, Imported, Options
from firstwords.data.corpora.source import Source
from firstwords.data.corpora.tables import collect_rows, looks_like_table, read_table
from firstwords.data.split import split_in_name
from firstwords.errors import CorpusError, quoted

_SUFFIXES = (".csv", ".tsv", ".tab", ".psv")


def detect(source: Source) -> str | None:
    """Tables whose first lines name audio and text; a file named outright is taken at its word."""
    tables = source.with_suffix(*_SUFFIXES)
    if not source.is_file:
        tables = [p for p in tables if looks_like_table(p)]
    return _said(tables)


def detect_lone(source: Source) -> str | None:
    """A single table of whatever columns: asked when nothing else was recognised, for its clear message."""
    tables = source.with_suffix(*_SUFFIXES)
    return _said(tables) if len(tables) == 1 and source.audio else None


def _said(tables: list[Path]) -> str | None:
    names = ", ".join(p.name for p in tables[:4])
    return f"{len(tables)} table{'s' if len(tables) > 1 else ''} ({names})" if tables else None


def read(path: Path, options: Options) -> Imported:
    """Rows of the table -> utterances; several tables are taken together only if each names its split."""
    source = Source.of(path)
    collector = Collector(source, options)
    tables = source.with_suffix(*_SUFFIXES)
    if len(tables) > 1:
        fitting = [p for p in tables if looks_like_table(p)]
        named = {split_in_name(p.stem) for p in fitting}
        if None in named or len(named) < len(fitting):
            raise CorpusError(
                f"'{path}' holds several tables: {', '.join(source.named(p) for p in tables[:8])}.",
                mend=f"Name the one to import, for example: firstwords import {quoted(tables[0])}",
            )
        tables = fitting
    for table_path in tables:
        table = read_table(table_path, source=source, named=options.columns)
        split = split_in_name(table_path.stem) if len(tables) > 1 else None
        for where, reason in table.broken:
            collector.skip(where, reason)
        for note in table.notes:
            collector.note(note)
        collect_rows(collector, table.rows, table_path.parent, split=split)
    return collector.finish(beside="textgrid")
