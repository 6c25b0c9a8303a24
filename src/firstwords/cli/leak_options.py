"""Options of every command that learns from text: what becomes of lines that stand in dev or test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from firstwords.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class LeakOptions:
    """What these options were given."""

    exclude: Annotated[
        list[Path] | None,
        typer.Option("--exclude", help="Corpus whose dev and test must not be read. May be repeated."),
    ] = None
    drop: Annotated[bool, typer.Option("--drop-leaks", help="Leave out lines that stand in dev or test.")] = (
        False
    )
    allow: Annotated[bool, typer.Option("--allow-leak", help="Keep lines that stand in dev or test.")] = False

    def check(self) -> None:
        """Which options go together."""
        if self.drop and self.allow:
            raise UsageError("--drop-leaks and --allow-leak exclude each other.", mend="Give one of them.")

    @property
    def measured(self) -> list[Path]:
        """Corpora that recognisers are measured with."""
        return self.exclude or []

    @property
    def fate(self) -> Literal["drop", "allow", "refuse"]:
        """What becomes of these lines."""
        return "drop" if self.drop else "allow" if self.allow else "refuse"
