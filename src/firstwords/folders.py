"""What a folder is, told by the file that marks it: for messages about a folder that is something else.

What each kind consists of, and whether it is whole, is known by the rooms that read and write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firstwords.errors import UsageError

LANGUAGE_MODEL, MODEL = "a language model", "a model"
# The first one that is there tells.
_MARKS = (
    ("bundle.json", "an exported bundle"),
    ("manifest.jsonl", "a corpus"),
    ("lm.toml", LANGUAGE_MODEL),
    ("punctuation.toml", "a model of marks and capitals"),
    ("model.safetensors", MODEL),
)


def kind_of_folder(folder: Path) -> str | None:
    """The kind of folder with its article ("a corpus"); None where no mark is there."""
    return next((kind for mark, kind in _MARKS if (folder / mark).is_file()), None)


def refuse_occupied(folder: Path, ours: Sequence[str], *, to: str = "--to") -> None:
    """UsageError for a folder with anything in it that is none of ours, since files might be replaced.

    Args:
        ours: names of which one, if it is there, says that the folder was begun by the same command. Names
            that begin with a dot count as nothing.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{to} {folder}: this is a file.", mend="Give a folder that does not exist yet.")
    if not folder.is_dir() or any((folder / name).exists() for name in ours):
        return
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if found:
        more = ", ..." if len(found) > 4 else ""
        raise UsageError(
            f"{to} {folder}: {kind_of_folder(folder) or 'something else'} is there already "
            f"(found: {', '.join(found[:4])}{more}).",
            mend="Give a folder of its own, one that does not exist yet.",
        )
