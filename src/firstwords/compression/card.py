"""The card of a model that a step of compression has made."""

from __future__ import annotations

from collections.abc import Sequence


def step_card(name: str, rows: Sequence[tuple[str, str]], said: Sequence[str] = ()) -> str:
    """Name, table and sentences -> card.md."""
    table = "\n".join(f"| {key} | {value.replace('|', '/')} |" for key, value in rows)
    notes = "".join(f"\n{line}\n" for line in said)
    return (
        f"# {name}\n\n| | |\n|---|---|\n{table}\n{notes}\n"
        "For the error rate with its interval on a test set run:\n\n"
        "    firstwords evaluate MODEL CORPUS --split test\n"
    )


def tuning_words(minutes: float | None, teacher: str | None) -> str:
    """How a model was trained after a cut; ``teacher``: whose answers it learned from, too."""
    if minutes is None:
        return "not"
    return f"{minutes:g} min, by transcripts" + (f" and by what {teacher} answers" if teacher else "")
