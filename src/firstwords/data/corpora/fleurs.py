"""FLEURS (Conneau et al., 2022, arXiv:2205.12446): train.tsv, dev.tsv, test.tsv without header beside audio/.

Columns: sentence number, file name, raw transcription, normalised transcription, its letters, samples,
gender. The raw transcription becomes the text, the normalised one the label ``normalized``; several people
read each sentence, and the files name no speakers.
"""

from __future__ import annotations

from pathlib import Path

from firstwords.data.corpora.imported import Collector, Imported, Options
from firstwords.data.corpora.source import Source
from firstwords.data.corpora.tables import Row, collect_rows, read_table
from firstwords.data.split import canonical_split
from firstwords.errors import CorpusError

_HEADER = ("sentence_number", "audio", "text", "normalized", "letters", "samples", "gender")


def _tables(source: Source) -> list[Path]:
    found: list[Path] = []
    for path in source.with_suffix(".tsv"):
        with path.open(encoding="utf-8", errors="replace") as file:
            cells = file.readline(65536).rstrip("\n").split("\t")
        letters = len(cells) >= 6 and "|" in cells[4] and cells[5].strip().isdigit()
        if letters and cells[0].strip().isdigit() and cells[1].lower().endswith(".wav"):
            found.append(path)
    return found


def detect(source: Source) -> str | None:
    """Tables without header whose lines read number, wav, text, text, l|e|t|t|e|r|s, number."""
    tables = _tables(source)
    return f"FLEURS tables ({', '.join(source.named(p) for p in tables[:4])})" if tables else None


def read(path: Path, options: Options) -> Imported:
    """Lines of the tables -> utterances with the splits that their file names say."""
    source = Source.of(path)
    collector = Collector(source, options)
    for table_path in _tables(source):
        if not source.audio:
            raise CorpusError(
                f"'{source.named(table_path)}' is a FLEURS table, but no recordings lie beside it.",
                mend="Unpack audio/*.tar.gz first.",
            )
        table = read_table(table_path, source=source, quoted=False, header=_HEADER)
        for where, reason in table.broken:
            collector.skip(where, reason)
        split = canonical_split(table_path.stem)
        base = table_path.parent
        inner = [p for p in (base / "audio" / table_path.stem, base / table_path.stem) if p.is_dir()]
        rows = [Row(r.where, r.fields, _labels(r)) for r in table.rows]
        collect_rows(collector, rows, inner[0] if inner else base, split=split)
    return collector.finish()


def _labels(row: Row) -> dict[str, str]:
    return {k: v for k, v in row.labels.items() if k in ("normalized", "gender", "sentence_number")}
