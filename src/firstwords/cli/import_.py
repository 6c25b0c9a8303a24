"""``firstwords import``: recordings and transcripts as they lie on a disk -> a corpus folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.import_options import ImportOptions
from firstwords.cli.option_group import grouped
from firstwords.cli.terminal import counted
from firstwords.errors import quoted

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.data.corpora.importing import ImportReport

_SHOWN = 5  # of the things left out


@grouped
def run(
    source: Annotated[
        Path, typer.Argument(help="Folder or file with recordings and transcripts.", show_default=False)
    ],
    to: Annotated[Path, typer.Option("--to", help="Corpus folder to make.", show_default=False)],
    *,
    options: ImportOptions,
) -> None:
    """Turn recordings with transcripts into a corpus folder; the originals stay untouched where they are."""
    from rich.console import Console

    from firstwords.data.corpora.importing import import_corpus

    console = Console()
    options.check()
    with counted(console, "looking at recordings") as progress:
        report = import_corpus(source, to, options.plan(progress))
    show(report, console)


def show(report: ImportReport, console: Console) -> None:
    """Print what was found, the splits, the notes, what was left out, and the next command."""
    from rich.markup import escape
    from rich.table import Table

    from firstwords.data.corpora.importing import counts

    folder = report.corpus.folder
    sizes = counts(report.corpus.utterances)
    console.print(f"Found: {escape(report.found)}", highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("split")
    for name in ("utterances", "length", "speakers", "recordings"):
        table.add_column(name, justify="right")
    rows = {**sizes["splits"], "all": sizes} if len(sizes["splits"]) > 1 else sizes["splits"]
    for name, row in rows.items():
        table.add_row(
            escape(name or "-"),
            f"{row['utterances']:,}",
            length(row["hours"]),
            f"{row['speakers']:,}" if row["speakers"] else "unknown",
            f"{row['recordings']:,}",
        )
    console.print(table)
    spoken = {k or "not given (--language)": v for k, v in sizes["languages"].items()}
    most = sorted(spoken.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{k} ({v:,})" if len(most) > 1 else k for k, v in most[:8])
    more = f" and {len(most) - 8} more" if len(most) > 8 else ""
    console.print(f"Language: {escape(shown)}{more}", highlight=False)
    for note in report.notes:
        console.print(f"- {escape(note)}", highlight=False)
    if report.skipped:
        console.print(f"[bold]Left out: {len(report.skipped):,}[/bold]", highlight=False)
        for skipped in report.skipped[:_SHOWN]:
            console.print(f"    {escape(skipped.where)}: {escape(skipped.reason)}", highlight=False)
        if (left := len(report.skipped) - _SHOWN) > 0:
            console.print(f"    ... and {left:,} more, all in {escape(str(folder / 'import.json'))}")
    console.print(f"\nNext: firstwords check {escape(quoted(folder))}", highlight=False, soft_wrap=True)


def length(hours: float) -> str:
    """Hours -> '2.41 h', '12.3 min' or '8.0 s', whichever reads best."""
    if hours >= 1:
        return f"{hours:.2f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"
