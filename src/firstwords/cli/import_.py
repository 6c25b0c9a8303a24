"""``firstwords import``: recordings and transcripts as they lie on a disk -> a corpus folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.data.corpora.importing import ImportReport

_SHOWN = 5  # of the things left out


def run(
    source: Annotated[
        Path, typer.Argument(help="Folder or file with recordings and transcripts.", show_default=False)
    ],
    to: Annotated[Path, typer.Option("--to", help="Corpus folder to make.", show_default=False)],
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="auto, folder, table, manifest, nemo, kaldi, common_voice, fleurs, librispeech, lhotse, "
            "audiofolder, elan, textgrid, toolbox, subtitles or audacity.",
        ),
    ] = "auto",
    tier: Annotated[
        list[str] | None,
        typer.Option(
            "--tier",
            help="ELAN or Praat tier, Toolbox marker: a name, '*_orth' or 'type:NAME'. May be repeated.",
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Language tag (sw, yo, ...) where the source has none.")
    ] = None,
    dev: Annotated[float, typer.Option("--dev", help="Share of the duration for the dev split.")] = 0.1,
    test: Annotated[float, typer.Option("--test", help="Share of the duration for the test split.")] = 0.1,
    seed: Annotated[int, typer.Option("--seed", help="Another seed gives another split.")] = 0,
    drop_empty: Annotated[
        bool, typer.Option("--drop-empty", help="Leave out utterances without text.")
    ] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the recordings into the corpus folder.")] = False,
    speakers: Annotated[
        str,
        typer.Option(
            "--speakers", help="Plain folders: speaker = folder, prefix (of the name), none or auto."
        ),
    ] = "auto",
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Tables: field=column, such as text=Satz. May be repeated."),
    ] = None,
    remove_marks: Annotated[
        list[str] | None,
        typer.Option(
            "--remove-marks",
            help="Take annotators' marks out of transcripts: brackets and words, such as '[] (()) <> xxx'.",
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            help="Whose voice is on which channel of stereo recordings: Eva=0 (left), 'tx@SPK=1' (a tier). "
            "May be repeated.",
        ),
    ] = None,
    resplit: Annotated[
        bool, typer.Option("--resplit", help="Split anew although the source has splits.")
    ] = False,
    move_texts: Annotated[
        bool, typer.Option("--move-texts", help="Move dev and test utterances whose text train has to train.")
    ] = False,
) -> None:
    """Turn recordings with transcripts into a corpus folder; the originals stay untouched where they are."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from firstwords.data.corpora.copies import parse_channels
    from firstwords.data.corpora.imported import Options
    from firstwords.data.corpora.importing import Plan, import_corpus
    from firstwords.data.marks import parse_marks

    console = Console()
    rules = ("auto", "folder", "prefix", "none")
    if speakers not in rules:
        raise UsageError(f"--speakers {speakers}: no such rule.", mend=f"Known: {', '.join(rules)}.")
    if language is not None and not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*", language):
        raise UsageError(f"--language {language}: not a BCP 47 tag.", mend="For example sw, yo or pt-BR.")
    parse_marks(remove_marks or [])  # what is wrong with it is said before minutes of looking
    columns = (TextColumn("looking at recordings"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        options = Options(
            tiers=tuple(tier or ()),
            language=language,
            drop_empty=drop_empty,
            speakers=rules[rules.index(speakers)],
            columns=_columns(column or []),
            remove_marks=tuple(remove_marks or ()),
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )
        plan = Plan(
            layout=layout,
            options=options,
            dev=dev,
            test=test,
            seed=seed,
            copy=copy,
            channels=parse_channels(channel or []),
            resplit=resplit,
            move_texts=move_texts,
        )
        report = import_corpus(source, to, plan)
    show(report, console)


def _columns(assignments: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for assignment in assignments:
        field, sign, column = assignment.partition("=")
        if not sign or not column.strip():
            raise UsageError(
                f"--column {assignment}: expected field=column.", mend="For example --column text=Satz"
            )
        columns[field.strip()] = column.strip()
    return columns


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
