"""What a writer of files is, to those who prove that it leaves no half a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Writer:
    """One operation that writes below ``home``.

    Args:
        prepare: makes what the operation reads, in a folder of its own (once).
        before: puts an old state into ``home``; None: the operation starts from nothing.
        write: the operation itself.
        prove: raises, or returns False, if the result in ``home`` is not what was to be written.
        may_stay: of a new file left behind by a failure: whether it is whole (an interrupted copy goes on).
    """

    name: str
    prepare: Callable[[Path], Any]
    write: Callable[[Path, Any], Any]
    prove: Callable[[Path, Any], Any]
    before: Callable[[Path, Any], Any] | None = None
    may_stay: Callable[[Path, Any], bool] | None = None


def nothing(_: Path) -> None:
    return None


def old(name: str, content: str = "old") -> Callable[[Path, Any], Any]:
    return lambda home, _: (home / name).write_text(content, encoding="utf-8")
