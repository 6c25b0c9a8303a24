"""With which search the transcripts of a folder were made, where that was another than the recipe's.

    .firstwords-made.jsonl     {"files": ["talk.txt", "talk.srt"], "with": {"search": "5e0c...", ...}}

One line for each recording that was transcribed with a language model, phrases, another beam or a second
pass; the last one that names a file counts, and a file that none names was made as the recipe says. Whoever
asks for the same files otherwise can be told so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from firstwords.errors import FirstwordsError

if TYPE_CHECKING:  # a bundle is transcribed without torch
    from firstwords.inference.recognizer import Recognizer

RECORD = ".firstwords-made.jsonl"


def plain_identity(recognizer: Recognizer) -> dict[str, str]:
    """``Recognizer.identity`` as it would be with the recipe's search alone."""
    known = recognizer.identity
    alone = {name: "" for name in known if name not in {"model", "search"}}
    return (
        known
        | alone
        | {
            "search": recognizer.recipe.search.model_dump_json(),
            "formatting": _own_formatting(recognizer),
        }
    )


def _own_formatting(recognizer: Recognizer) -> str:
    """Identity of the stages that the recipe names. If they cannot be read, others are used, or none."""
    from firstwords.formatting.build import recipe_formatter  # only for model folders

    try:
        recipe, folder = recognizer.recipe, recognizer.folder
        own = recipe_formatter(recipe.post, language=recipe.language, folder=folder)
    except FirstwordsError as error:
        return f"cannot be read: {error.what}"
    return "" if own is None else own.identity


def note_made(files: Iterable[Path], identity: Mapping[str, str], plain: Mapping[str, str]) -> None:
    """Write down that files of one folder were made with ``identity``; ``plain`` is that of the recipe.

    A record that cannot be written is none: the transcripts are there.
    """
    paths = list(files)
    record = paths[0].parent / RECORD
    marks = {} if dict(identity) == dict(plain) else _marks(identity)
    if not marks and not record.exists():
        return
    line = json.dumps({"files": [path.name for path in paths], "with": marks}, ensure_ascii=False)
    with contextlib.suppress(OSError), record.open("ab+") as file:
        # A line that a kill has torn shall not take this one along.
        torn = file.seek(0, os.SEEK_END) > 0
        if torn:
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        file.write(b"\n" * torn + line.encode(errors="surrogatepass") + b"\n")


def made_with(folder: Path) -> dict[str, dict[str, str]]:
    """Name of a file -> the marks of what it was made with; those made as the recipe says are left out."""
    found: dict[str, dict[str, str]] = {}
    try:
        lines = (folder / RECORD).read_bytes().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            values: Any = json.loads(line.decode(errors="surrogatepass"))
            names, marks = values["files"], values["with"]
        except (ValueError, TypeError, KeyError):  # torn by a kill: the transcripts are there all the same
            continue
        if isinstance(names, list) and isinstance(marks, dict):
            known = {str(k): str(v) for k, v in cast("dict[Any, Any]", marks).items()}
            found |= {str(name): known for name in cast("list[Any]", names)}
    return {name: marks for name, marks in found.items() if marks}


def changed(known: Mapping[str, str], identity: Mapping[str, str], plain: Mapping[str, str]) -> list[str]:
    """The marks of a file (none: made as the recipe says) -> the things that are other ones today.

    Which model a file without marks is from is not known.
    """
    before = known or {name: mark for name, mark in _marks(plain).items() if name != "model"}
    now = _marks(identity)
    return [name for name, mark in before.items() if now.get(name, mark) != mark]


def _marks(identity: Mapping[str, str]) -> dict[str, str]:
    return {
        name: hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:16] if value else ""
        for name, value in identity.items()
    }
