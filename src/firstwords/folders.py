"""What a folder is, told by the file that marks it: for messages about a folder that is something else.

What each kind consists of, and whether it is whole, is known by the rooms that read and write it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from firstwords.errors import CheckpointError, UsageError
from firstwords.files import WRITING

COPY_AGAIN = "Was the copy interrupted, or a file edited? Copy the whole folder again."
LANGUAGE_MODEL, MODEL, PUNCTUATION = "a language model", "a model", "a model of marks and capitals"
# The first one that is there tells.
_MARKS = (
    ("bundle.json", "an exported bundle"),
    ("manifest.jsonl", "a corpus"),
    ("lm.toml", LANGUAGE_MODEL),
    ("punctuation.toml", PUNCTUATION),
    ("model.safetensors", MODEL),
)


# Beside what a command makes there may lie what it never writes itself: its own output, and file managers'.
_LOGS = (".log", ".out", ".err")
_OF_FILE_MANAGERS = ("desktop.ini", "Thumbs.db")


def kind_of_folder(folder: Path) -> str | None:
    """The kind of folder with its article ("a corpus"); None where no mark is there.

    A whole recogniser is one, also with the mark of something else that was written beside it.
    """
    if (folder / "model.safetensors").is_file() and _encodes(folder / "recipe.toml"):
        return MODEL
    return next((kind for mark, kind in _MARKS if (folder / mark).is_file()), None)


def read_file(folder: Path, name: str) -> bytes:
    """One file of a model; what cannot be read is a CheckpointError."""
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"'{folder}': {name} cannot be read: {error.strerror or error}.", mend=COPY_AGAIN
        ) from None


def _encodes(recipe: Path) -> bool:
    try:
        with recipe.open("rb") as file:
            return "encoder" in tomllib.load(file)
    except (OSError, ValueError, RecursionError):
        return False


def refuse_occupied(folder: Path, ours: Sequence[str], *, kind: str, to: str = "--to") -> None:
    """UsageError for a folder with anything in it that is none of ours, since files might be replaced.

    Hidden files, logs and what a killed write left behind count as nothing.

    Args:
        ours: names of which one, if it is there, says that the folder was begun by the same command,
        kind: unless a mark says that it is of another kind than this.
    """
    name = folder
    folder = folder.resolve()  # as the system finds it once the folders before a ".." are made
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{to} {name}: this is a file.", mend="Give a folder that does not exist yet.")
    if not folder.is_dir():
        return
    if kind_of_folder(folder) in (None, kind) and any((folder / name).exists() for name in ours):
        return
    found = sorted(path.name for path in folder.iterdir() if not _counts_as_nothing(path.name))
    if found:
        more = ", ..." if len(found) > 4 else ""
        raise UsageError(
            f"{to} {name}: {kind_of_folder(folder) or 'something else'} is there already "
            f"(found: {', '.join(found[:4])}{more}).",
            mend="Give a folder of its own, one that does not exist yet.",
        )


def _counts_as_nothing(name: str) -> bool:
    return name.startswith(".") or name.endswith((WRITING, *_LOGS)) or name in _OF_FILE_MANAGERS
