"""Which files of a folder are transcripts that we made, of what and with what.

    .firstwords-made.jsonl     {"files": {"talk.txt": "9f86...", "talk.srt": "5e0c..."},
                                "with": {"model": "d7a8...", "search": "2c26...", ...}}

One line for each recording, written before its transcripts appear; the last one that names a file says what
it was made with. A file that no line names, or that no longer holds what was written there, belongs to
somebody: it is neither replaced nor taken for a transcript.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from firstwords.files import unwritable

RECORD = ".firstwords-made.jsonl"


@dataclass
class Made:
    """The marks of what a file was made with last, and of all contents that were ever written there."""

    marks: dict[str, str] = field(default_factory=dict)
    contents: set[str] = field(default_factory=set)

    def is_in(self, path: Path) -> bool:
        """The file holds what was written there, nobody's corrections."""
        return _mark(path.read_bytes()) in self.contents


def note_made(folder: Path, files: Mapping[str, bytes], identity: Mapping[str, str]) -> None:
    """Write down that files with these contents are about to be made with ``identity``."""
    record = folder / RECORD
    line = {"files": {name: _mark(data) for name, data in files.items()}, "with": marks_of(identity)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with record.open("ab+") as file:
            # A line that a kill has torn shall not take this one along.
            torn = file.seek(0, os.SEEK_END) > 0
            if torn:
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            text = json.dumps(line, ensure_ascii=False)
            file.write(b"\n" * torn + text.encode(errors="surrogatepass") + b"\n")
    except OSError as error:
        raise unwritable(record, error) from None


def made_in(folder: Path) -> dict[str, Made]:
    """Name of a file -> what is known of it."""
    found: dict[str, Made] = {}
    try:
        lines = (folder / RECORD).read_bytes().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            values: Any = json.loads(line.decode(errors="surrogatepass"))
            files, marks = values["files"], values["with"]
        except (ValueError, TypeError, KeyError):  # torn by a kill
            continue
        if not isinstance(files, dict) or not isinstance(marks, dict):
            continue
        known = {str(k): str(v) for k, v in cast("dict[Any, Any]", marks).items()}
        for name, content in cast("dict[Any, Any]", files).items():
            made = found.setdefault(str(name), Made())
            made.marks = known
            made.contents.add(str(content))
    return found


def changed(known: Mapping[str, str], identity: Mapping[str, str]) -> list[str]:
    """The marks of a file -> the things that are other ones today."""
    now = marks_of(identity)
    return [name for name in {**known, **now} if name in now and known.get(name, "") != now[name]]


def marks_of(identity: Mapping[str, str]) -> dict[str, str]:
    """What a text depends on, each thing as a short mark; empty where there is none."""
    return {
        name: _mark(value.encode(errors="surrogatepass")) if value else "" for name, value in identity.items()
    }


def _mark(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
