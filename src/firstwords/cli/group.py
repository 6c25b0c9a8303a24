"""A group of commands with plain help: it starts quicker than one with frames, and is easy to copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer import Context
    from typer._click import HelpFormatter


class PlainGroup(TyperGroup):
    """Lists each command with the whole first paragraph of its help, wrapped and not cut."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows: list[tuple[str, str]] = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                paragraph = (command.help or "").strip().split("\n\n")[0]
                rows.append((name, " ".join(paragraph.split())))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
