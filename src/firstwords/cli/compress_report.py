"""``firstwords compress report``: several variants of a model on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    models: Annotated[list[Path], typer.Argument(help="Model folders.", show_default=False)],
    corpus: Annotated[Path, typer.Option("--corpus", help="Corpus with transcripts.", show_default=False)],
    split: Annotated[str, typer.Option("--split", help="Which part of the corpus.")] = "dev",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for page and numbers.")] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Of measuring speed, over all models in turn.")
    ] = 3,
) -> None:
    """Size, MACs, memory, speed and errors of several models, with the ones that no other beats."""
    from rich.console import Console
    from rich.table import Table

    from firstwords.data.manifest import load_corpus
    from firstwords.errors import UsageError
    from firstwords.report.compression import (
        circumstances,
        compare_variants,
        headers,
        rows,
        save_comparison,
    )
    from firstwords.report.page import show

    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out: '{out}' is a file.", mend="Give a folder for the report.")
    console = Console(highlight=False, markup=False)
    found = compare_variants(models, load_corpus(corpus), split, rounds=rounds, say=console.print)
    names = headers(found)
    table = Table("", *(variant.name for variant in found.variants), box=None)
    columns = rows(found)
    for place, name in enumerate(names[1:], start=1):
        table.add_row(name, *(str(show(row[place])) for row in columns))
    console.print(table)
    console.print(circumstances(found), soft_wrap=True)
    page = save_comparison(found, out or Path("compression") / f"{found.corpus}-{split}")
    console.print(f"Report: {page}", soft_wrap=True)
