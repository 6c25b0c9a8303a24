"""CSV and TSV files as rows of known fields: encodings, delimiters, quoting and column names.

Used by every layout that keeps its transcripts in a table. Columns of no known meaning keep their name and
become labels.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from firstwords.data.corpora.imported import Collector, Found
from firstwords.data.corpora.source import AUDIO_SUFFIXES, Source, read_text
from firstwords.data.corpora.table_looks import likely_columns, parse_seconds, without_times
from firstwords.errors import CorpusError, UsageError, quoted

# field -> names of columns that mean it, the surer first; compared without case, spaces and hyphens
COLUMNS: dict[str, list[str]] = {
    "audio": [
        "audio",
        "audio_filepath",
        "audio_path",
        "audio_file",
        "audio_filename",
        "file_name",
        "filename",
        "file",
        "filepath",
        "path",
        "wav",
        "wav_filename",
        "wav_path",
        "wav_file",
        "clip",
        "recording",
        "recording_path",
        "sound",
    ],
    "text": [
        "text",
        "sentence",
        "transcript",
        "transcription",
        "normalized_text",
        "raw_transcription",
        "utterance",
        "words",
        "orthography",
    ],
    "id": ["id", "utt_id", "uttid", "utterance_id", "utt", "segment_id", "key"],
    "speaker": ["speaker", "speaker_id", "speakerid", "spk", "spk_id", "client_id", "voice", "participant"],
    "split": ["split", "subset", "partition", "set"],
    "language": ["language", "lang", "locale", "language_code"],
    "start": ["start", "start_time", "start_seconds", "start_sec", "begin", "begin_time", "offset", "onset"],
    "end": ["end", "end_time", "end_seconds", "end_sec", "stop"],
    "duration": ["duration", "duration_seconds", "duration_sec", "length", "dur"],
    "start_ms": ["start_ms", "begin_ms", "offset_ms"],
    "end_ms": ["end_ms", "stop_ms"],
    "duration_ms": ["duration_ms", "length_ms"],
}
_LOOKED_AT = 20  # rows, to tell what a column holds
_DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}


@dataclass(frozen=True)
class Row:
    """One line: cells of known fields, and the others under their column's name."""

    where: str
    fields: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """``columns``: field -> column it came from; ``broken``: (line, reason) of rows that do not fit it."""

    path: Path
    columns: Mapping[str, str]
    rows: tuple[Row, ...]
    broken: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def known_columns(header: Sequence[str], named: Mapping[str, str] | None = None) -> dict[str, int]:
    """Column names -> field: index. Of two columns for a field the surer name wins (``named`` above all)."""
    plain = [_plain(name) for name in header]
    wishes = {field: _plain(column) for field, column in (named or {}).items()}
    found = {field: plain.index(column) for field, column in wishes.items() if column in plain}
    for field, names in COLUMNS.items():
        for name in names:
            if field not in wishes and name in plain and plain.index(name) not in found.values():
                found[field] = plain.index(name)
                break
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s\-.]+", "_", name.strip().strip('"').casefold()).strip("_")


def _lined(text: str) -> str:
    """Plain newlines: Windows ends lines with two signs, Excel's 'CSV (Macintosh)' with a return alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


_HEADER = "Give a table with a header line."


def looks_like_table(path: Path, *needed: str) -> bool:
    """Whether the first line names columns for every needed field (default: audio and text)."""
    try:
        with path.open("rb") as file:
            head = file.read(8192)
        text = read_text(path) if b"\0" in head else _lined(head.decode("utf-8-sig", errors="ignore"))
    except (OSError, CorpusError):
        return False
    try:
        fields = known_columns(_split(text.split("\n", 1)[0], _delimiter(path, text)))
    except csv.Error:  # a cell longer than any table has
        return False
    return all(field in fields for field in needed or ("audio", "text"))


def read_table(
    path: Path,
    *,
    source: Source,
    named: Mapping[str, str] | None = None,
    quoted: bool | None = None,
    header: Sequence[str] | None = None,
) -> Table:
    """A table file -> rows. Nothing is guessed about a header that does not name audio and text.

    Args:
        named: field -> column as the user wishes it ('--column text=Satz').
        quoted: whether cells may stand in double quotes; None looks at the file (Common Voice never quotes).
        header: column names of a file that has no header line.
    """
    text = read_text(path, lenient=True)
    told = re.match(r"sep=[^\n]?\n", text)  # the first line that Excel reads as a hint, not as data
    text = text[told.end() :] if told else text
    if not text.strip():
        raise CorpusError(f"'{path.name}' is empty.", mend=_HEADER)
    delimiter = _delimiter(path, text, named)
    if quoted is None:
        quoted = _is_quoted(text, delimiter)
    lines = list(_lines(text, delimiter, quoted=quoted, name=path.name))
    if not lines:
        raise CorpusError(f"'{path.name}' has no cell with anything in it.", mend=_HEADER)
    notes: list[str] = []
    if header is None:
        header = [cell.strip() for cell in lines[0][1]]
        columns = known_columns(header, named)
        _check_named(named, header, path)
        if "audio" in columns or not (guessed := _headless(lines, source, path)):
            lines = lines[1:]
        else:
            header, columns = guessed, {"audio": 0, "text": 1}
            notes.append(
                f"'{path.name}' has no header line: column 1 was taken as audio and column 2 as text "
                "(name the columns in a first line to choose others)."
            )
    else:
        columns = known_columns(header, named)
    missing = [field for field in ("audio", "text") if field not in columns]
    if missing:
        seen = [cells for _, cells in lines[:_LOOKED_AT]]
        guess = likely_columns(header, seen, lambda cell: _leads(cell, source, path))
        raise CorpusError(_unknown(path, header, missing), mend=_unknown_mend(guess, missing))
    rows: list[Row] = []
    broken: list[tuple[str, str]] = []
    for number, cells in lines:
        where = f"line {number} of {source.named(path)}"
        if len(cells) > len(header) or len(cells) <= max(columns["audio"], columns["text"]):
            broken.append((where, f"has {len(cells)} cells, the header has {len(header)}"))
            continue
        if swallowed := _swallowed(cells, delimiter, len(header)):
            broken.append((where, f"an opening quote without a closing one took in {swallowed} more lines"))
            continue
        padded = [*cells, *[""] * (len(header) - len(cells))]
        rows.append(
            Row(
                where,
                {field: padded[index] for field, index in columns.items()},
                {n: padded[i].strip() for i, n in enumerate(header) if i not in columns.values() and n},
            )
        )
    also = [n for i, n in enumerate(header) if i not in columns.values() and _is_rival(n, columns)]
    if also:
        used = ", ".join(f"'{header[columns[f]]}' as {f}" for f in ("audio", "text"))
        notes.append(f"'{path.name}': took {used}; also there, kept as labels: {', '.join(also)}.")
    if not {"start", "start_ms"} & columns.keys():
        told = [(row.fields["audio"], row.fields["text"], row.labels) for row in rows]
        notes += [f"'{path.name}': {note}" for note in without_times(told)]
    return Table(path, {f: header[i] for f, i in columns.items()}, tuple(rows), tuple(broken), tuple(notes))


def _swallowed(cells: Sequence[str], delimiter: str, width: int) -> int:
    """Lines within a cell that look like rows of their own; a text of several lines has none."""
    inner = [line for cell in cells for line in cell.split("\n")[1:]]
    return sum(line.count(delimiter) >= max(width - 1, 1) for line in inner)


def _is_rival(name: str, columns: Mapping[str, int]) -> bool:
    return any(_plain(name) in COLUMNS[field] for field in ("audio", "text") if field in columns)


def _check_named(named: Mapping[str, str] | None, header: Sequence[str], path: Path) -> None:
    plain = {_plain(name) for name in header}
    for field, column in (named or {}).items():
        if field not in COLUMNS:
            raise UsageError(
                f"--column {field}={column}: no such field.", mend=f"Fields: {', '.join(COLUMNS)}."
            )
        if _plain(column) not in plain:
            raise CorpusError(
                f"--column {field}={column}: '{path.name}' has no such column.",
                mend=f"It has: {', '.join(header)}.",
            )


def _unknown(path: Path, header: Sequence[str], missing: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in header[:12])
    known = "; ".join(f"{field}: {', '.join(COLUMNS[field])}" for field in missing)
    return (
        f"'{path.name}': no column is known to hold the {' or the '.join(missing)}. "
        f"Its columns: {shown}. Known names for {known}."
    )


def _leads(cell: str, source: Source, path: Path) -> bool:
    """Whether a cell names a recording."""
    try:
        source.find_audio(cell, path.parent)
    except CorpusError:
        return False
    finally:
        source.found_by_name.clear()
        source.respelled.clear()
    return True


def _unknown_mend(guess: Mapping[str, str], missing: Sequence[str]) -> str:
    options = " ".join(f"--column {field}={quoted(guess[field].strip() or 'NAME')}" for field in missing)
    return f"Rename the column, or say which it is, for example: {options}"


def _headless(lines: list[tuple[int, list[str]]], source: Source, path: Path) -> list[str] | None:
    """Column names for a table that starts with data: every first cell tried leads to a recording."""
    first = [cells for _, cells in lines[:5]]
    if not all(len(cells) >= 2 for cells in first):
        return None
    if not all(_leads(cells[0], source, path) for cells in first):
        return None
    width = max(len(cells) for _, cells in lines)
    return ["audio", "text", *(f"column {i}" for i in range(3, width + 1))]


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _delimiter(path: Path, text: str, named: Mapping[str, str] | None = None) -> str:
    """The delimiter under which the first line names most known columns, else gives most columns."""
    first = text.split("\n", 1)[0]
    order = _DELIMITERS if path.suffix.lower() in (".tsv", ".tab") else sorted(_DELIMITERS, reverse=True)
    if path.suffix.lower() == ".csv":
        order = (",", ";", "\t", "|")

    def worth(delimiter: str) -> tuple[int, int]:
        try:
            cells = _split(first, delimiter)
        except csv.Error:
            return 0, 0
        return len(known_columns(cells, named)), len(cells)

    return max(order, key=worth)


def _is_quoted(text: str, delimiter: str) -> bool:
    """Whether double quotes are syntax. Commas and semicolons need them; tab and bar files usually do not.

    A tab file counts as quoted only if its header is, or a cell holds doubled quotes as only a CSV writer
    makes them; otherwise ``"Hujambo," alisema`` would lose its quotes or swallow the lines that follow.
    """
    if delimiter in ",;":
        return True
    if text.startswith('"'):
        return True
    cell = re.escape(delimiter)
    return re.search(rf'(?:^|{cell})"[^\n{cell}]*""[^\n{cell}]*"(?:$|{cell})', text, re.MULTILINE) is not None


def _lines(text: str, delimiter: str, *, quoted: bool, name: str) -> Iterator[tuple[int, list[str]]]:
    """(line number where the row ends, cells) of every line that is not blank."""
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CorpusError(
                f"line {reader.line_num} of '{name}' cannot be read: {error}.",
                mend="An opening double quote without a closing one is the usual cause.",
            ) from None
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def row_times(fields: Mapping[str, str]) -> tuple[float, float | None]:
    """Start and end in seconds from whichever of start, end, duration (or their _ms twins) are filled."""
    times: dict[str, float] = {}
    for field, scale in (("start", 1.0), ("end", 1.0), ("duration", 1.0)):
        for key, unit in ((field, scale), (f"{field}_ms", scale / 1000)):
            if fields.get(key, "").strip():
                try:
                    times.setdefault(field, parse_seconds(fields[key]) * unit)
                except ValueError:
                    raise CorpusError(f"'{fields[key].strip()}' is no time (column {key})") from None
    start = times.get("start", 0.0)
    if "end" in times:
        return start, times["end"]
    # a duration without a start only describes the file (and 'length' may count anything)
    return start, start + times["duration"] if "duration" in times and "start" in times else None


def collect_rows(
    collector: Collector,
    rows: Sequence[Row],
    base: Path,
    *,
    split: str | None = None,
    speaker_length: int | None = None,
) -> None:
    """Rows -> findings, or skips with their reason. ``split`` is for rows that name none themselves."""
    for row in rows:
        try:
            audio = collector.source.find_audio(row.fields["audio"], base)
            start, end = row_times(row.fields)
        except CorpusError as error:
            collector.skip(row.where, error)
            continue
        name = row.fields.get("id", "").strip()
        labels = dict(row.labels)
        if name.isdigit():  # a row number, not a name: the next file starts again at 0
            labels["source_id"], name = name, ""
        collector.add(
            Found(
                where=row.where,
                audio=audio,
                text=row.fields.get("text"),
                start=start,
                end=end,
                id=name.removesuffix(Path(name).suffix) if _is_audio_name(name) else name or None,
                speaker=(row.fields.get("speaker") or "")[:speaker_length],
                language=row.fields.get("language"),
                split=row.fields.get("split") or split,
                labels=labels,
            )
        )


def _is_audio_name(name: str) -> bool:
    return Path(name).suffix.lower() in AUDIO_SUFFIXES
