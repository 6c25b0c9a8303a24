"""What a person decided about the quarantine outlives the next check.

    CORPUS/quarantine.jsonl       what training leaves out: lines of the check, and lines added by hand
    CORPUS/allow.txt              ids that the check may not put aside, one a line; '#' starts a comment
    CORPUS/check/quarantine.json   what the last check wrote; the difference is the person's

A line deleted from quarantine.jsonl is remembered in allow.txt. A line added by hand (or by an import) stays
until it is deleted by hand. A line of the check goes when its cause is mended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from firstwords.data.manifest import QUARANTINE, read_quarantine, write_quarantine
from firstwords.errors import ManifestError
from firstwords.files import write_atomically

ALLOW = "allow.txt"
WRITTEN = Path("check") / "quarantine.json"
# A kill between the two must not look as if a person had deleted lines.
WRITE_LAST = (QUARANTINE, WRITTEN.as_posix())


@dataclass(frozen=True)
class Decided:
    """The quarantine after a check, and what of it is a person's doing."""

    quarantine: Mapping[str, str]  # id -> reason
    allowed: Mapping[str, str]  # id -> reason of the check that was overruled
    newly_allowed: tuple[str, ...]  # deleted from quarantine.jsonl since the last check
    by_hand: Mapping[str, str]  # id -> reason somebody wrote


def decide(folder: Path, reasons: Mapping[str, str], *, keep: Iterable[str] = ()) -> Decided:
    """What the check found (id -> reason) and what stands in ``folder`` -> the quarantine.

    Args:
        keep: rules that this check did not run; what an earlier one found by them stays.
    """
    before = _read_written(folder)
    allowed_ids = read_allowed(folder)
    standing = read_quarantine(folder) if (folder / QUARANTINE).is_file() else None
    removed = [name for name in before if standing is not None and name not in standing]
    by_hand = {k: v for k, v in (standing or {}).items() if k not in before}
    unchecked = frozenset(keep)
    earlier = {
        name: reason
        for name, reason in before.items()
        if name not in removed and name not in reasons and _rules_in(reason) & unchecked
    }
    found = {**earlier, **reasons}
    overruled = allowed_ids | set(removed)
    quarantine = {k: v for k, v in found.items() if k not in overruled and k not in by_hand} | by_hand
    return Decided(
        quarantine,
        {k: v for k, v in found.items() if k in overruled},
        tuple(name for name in removed if name not in allowed_ids),
        by_hand,
    )


def by_hand(folder: Path) -> dict[str, str]:
    """Lines of the quarantine (id -> reason) that no check has written."""
    written = _read_written(folder)
    return {name: reason for name, reason in read_quarantine(folder).items() if name not in written}


def start_anew(new: Path, kept: Mapping[str, str]) -> None:
    """A quarantine of these lines alone, as if no check had been: for a corpus that was imported again."""
    write_quarantine(new, kept)
    write_atomically(new / WRITTEN, "{}\n")


def record(folder: Path, new: Path, decided: Decided) -> None:
    """Write quarantine.jsonl, allow.txt where it grew, and the memory of what the check itself wrote.

    Args:
        folder: where the files of before are.
        new: where to write; a ``staged`` folder, for they are true only together.
    """
    if decided.newly_allowed:
        path = folder / ALLOW
        old = path.read_text(encoding="utf-8") if path.is_file() else _ALLOW_HEAD
        old += "" if old.endswith("\n") else "\n"
        write_atomically(new / ALLOW, old + "".join(f"{name}\n" for name in decided.newly_allowed))
    own = {k: v for k, v in decided.quarantine.items() if k not in decided.by_hand}
    write_quarantine(new, decided.quarantine)
    write_atomically(new / WRITTEN, json.dumps(own, ensure_ascii=False, indent=1) + "\n")


_ALLOW_HEAD = "# Utterances that 'firstwords check' may not put aside: one id a line.\n"


def read_allowed(folder: Path) -> set[str]:
    """Ids in allow.txt."""
    path = folder / ALLOW
    if not path.is_file():
        return set()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"'{path}' is not UTF-8: {error.reason} at byte {error.start}.",
            mend="Save it as UTF-8, one id a line, or delete it.",
        ) from None
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def _read_written(folder: Path) -> dict[str, str]:
    try:
        values: Any = json.loads((folder / WRITTEN).read_text(encoding="utf-8"))
    except (
        OSError,
        ValueError,
        RecursionError,
    ):  # never checked, or the memory was deleted: nothing was decided yet
        return {}
    if not isinstance(values, dict):
        return {}
    return {str(k): str(v) for k, v in cast("dict[str, Any]", values).items()}


def _rules_in(reason: str) -> set[str]:
    """'audio-silent: ...; overlap: ...' -> the rule ids."""
    return {part.partition(":")[0].strip() for part in reason.split("; ")}
