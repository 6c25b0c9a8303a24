"""Lines of JSON as objects, one at a time, plain or gzip (our manifest, NeMo, Lhotse, Hugging Face)."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from firstwords.errors import CorpusError

_LONGEST_LINE = 1 << 24  # bytes
_RATIO = 200  # a gzip file that grows more than this is a bomb, not a manifest
_BLANK = 100_000  # lines without anything, one after the other


def json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """(line number, object, or the reason why the line is none); blank lines are passed over."""
    try:
        with _open(path) as file:
            yield from _lines(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"'{path.name}' cannot be read: {error}.", mend="Is the copy complete?") from None


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    limit = _RATIO * path.stat().st_size + (1 << 20)
    number = read = blank = 0
    while line := file.readline(_LONGEST_LINE):
        number, read = number + 1, read + len(line)
        if read > limit:
            raise CorpusError(
                f"'{path.name}' grows to more than {_RATIO} times its size when unpacked: refused.",
                mend="Unpack it by hand if you trust it.",
            )
        if len(line) == _LONGEST_LINE:
            raise CorpusError(
                f"line {number} of '{path.name}' is longer than {_LONGEST_LINE} bytes: no manifest line is.",
                mend="One JSON object a line is expected.",
            )
        blank = 0 if line.strip() else blank + 1
        if blank > _BLANK:
            raise CorpusError(
                f"'{path.name}' holds nothing but blank lines from line {number - blank + 1} on: refused.",
                mend="Is the file damaged? One JSON object a line is expected.",
            )
        if not blank:
            yield number, parse_object(line)


def parse_object(line: bytes) -> Mapping[str, Any] | str:
    """One line -> JSON object, or the reason why it is none."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error.reason}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else "not a JSON object"


def first_object(path: Path) -> Mapping[str, Any]:
    """The first line's object, to recognise a layout by its keys; empty if there is none."""
    try:
        with _open(path) as file:
            line = file.readline(1 << 20)
    except (OSError, EOFError, zlib.error):
        return {}
    found = parse_object(line)
    return {} if isinstance(found, str) else found


def text_of(record: Mapping[str, Any], *keys: str) -> str | None:
    """The first of the keys that holds text (numbers count as text)."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    return None


def seconds_of(record: Mapping[str, Any], key: str) -> float | None:
    """A number of seconds, also where it stands in quotes; None if the key is absent."""
    value = record.get(key)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        return float(value)
    except (ValueError, OverflowError):
        raise CorpusError(f"'{key}' must be a number of seconds, got {str(value)[:40]!r}") from None


def object_of(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object below a key; empty if there is none."""
    value = record.get(key)
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def list_of(record: Mapping[str, Any], key: str) -> list[Any]:
    """The list below a key; empty if there is none."""
    value = record.get(key)
    return cast("list[Any]", value) if isinstance(value, list) else []


def label_texts(record: Mapping[str, Any], *used: str) -> dict[str, str]:
    """All keys but the used ones as labels; what is no text is written as JSON, null is left out."""
    return {
        str(key): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in record.items()
        if key not in used and value is not None
    }
