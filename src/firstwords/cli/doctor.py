"""firstwords doctor: what this computer can do, and the fix for what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    folder: Annotated[
        Path, typer.Argument(help="Where your data and models lie (its disk is looked at).")
    ] = Path(),
    bundle: Annotated[
        Path | None,
        typer.Option(help="Also write a text file for a bug report, without your paths and names."),
    ] = None,
) -> None:
    """Look at processor, memory, disk, torch, precision, audio and optional parts; print the fix for each.

    Exits with 1 if something is broken; optional parts that are missing are fine.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from firstwords.errors import UsageError
    from firstwords.files import write_atomically
    from firstwords.report import doctor
    from firstwords.report.bundle import bundle as bundle_text

    if not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder.", mend="Give the folder your data lies in, or nothing.")
    parts = doctor.examine(folder.resolve())
    console = Console()
    styles = {"ok": "green", "note": "yellow", "missing": "cyan", "broken": "bold red"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("part", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found", overflow="fold", ratio=1)
    for part in parts:
        found = Text(part.says)
        if part.mend:
            found.append(f"\n→ {part.mend}", style="italic")
        table.add_row(Text(part.name), Text(part.state, style=styles[part.state]), found)
    console.print(table)
    broken = [part.name for part in parts if part.state == "broken"]
    if bundle is not None:
        write_atomically(bundle, bundle_text(parts))
        console.print(
            f"Written: {bundle}. Read it before you send it.", markup=False, highlight=False, soft_wrap=True
        )
    if broken:
        console.print(f"Broken: {', '.join(broken)}.", markup=False, highlight=False)
        raise typer.Exit(1)
    console.print("Nothing is broken.", markup=False, highlight=False)
