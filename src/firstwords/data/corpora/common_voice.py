"""Mozilla Common Voice: clips/*.mp3 and train.tsv, dev.tsv, test.tsv (or validated.tsv) per language.

The tables never quote: a sentence may begin with a double quote (csv.QUOTE_NONE). ``client_id`` is the
speaker (its first 16 signs suffice), ``locale`` the language. Where the official splits are there they are
taken, and nothing else: validated.tsv holds the same clips and more, of speakers who also stand in test.
"""

from __future__ import annotations

from pathlib import Path

from firstwords.data.corpora.imported import Collector, Imported, Options
from firstwords.data.corpora.source import Source
from firstwords.data.corpora.tables import Row, collect_rows, looks_like_table, read_table

_SPLITS = ("train", "dev", "test")
_LABELS = ("age", "gender", "accents", "accent", "variant", "sentence_domain")


def _tables(source: Source) -> list[Path]:
    return [
        p
        for p in source.with_suffix(".tsv")
        if looks_like_table(p, "audio", "text", "speaker") and _has_client_id(p)
    ]


def _has_client_id(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return "client_id" in file.readline(4096).split("\t")


def detect(source: Source) -> str | None:
    """Tables with the columns client_id, path and sentence."""
    tables = _tables(source)
    if not tables:
        return None
    return f"Common Voice tables ({', '.join(source.named(p) for p in tables[:5])})"


def read(path: Path, options: Options) -> Imported:
    """Official splits where they are there, else validated.tsv, else every table but the refused clips."""
    source = Source.of(path)
    collector = Collector(source, options)
    tables = _tables(source)
    for folder in dict.fromkeys(p.parent for p in tables):
        here = {p.stem: p for p in tables if p.parent == folder}
        for name, table_path in _chosen(here, source, collector).items():
            table = read_table(table_path, source=source, quoted=False, named=options.columns)
            for where, reason in table.broken:
                collector.skip(where, reason)
            rows = [
                Row(row.where, row.fields, {k: v for k, v in row.labels.items() if k in _LABELS})
                for row in table.rows
            ]
            split = name if name in _SPLITS and not source.is_file else None
            collect_rows(collector, rows, table_path.parent, split=split, speaker_length=16)
    return collector.finish()


def _chosen(here: dict[str, Path], source: Source, collector: Collector) -> dict[str, Path]:
    if source.is_file:
        return here
    official = {name: here[name] for name in _SPLITS if name in here}
    if "train" in official or (official and "validated" not in here):
        if "validated" in here:
            collector.note(
                f"{source.named(here['validated'])} was not read: train, dev and test are its official "
                "parts (import the file itself to take all its clips and split them anew)."
            )
        return official
    if "validated" in here:
        return {"validated": here["validated"]}
    return {name: p for name, p in here.items() if name not in ("invalidated", "reported")}
