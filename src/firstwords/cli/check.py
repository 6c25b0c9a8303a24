"""firstwords check: what is wrong with a corpus, before an hour of training shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.terminal import counted

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.data.decisions import Decided
    from firstwords.data.validate import CheckResult
    from firstwords.report.check_files import Written


def run(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder made by 'firstwords import'.")],
    fast: Annotated[
        bool, typer.Option("--fast", help="Look at file headers only, do not listen to the audio.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Write report and quarantine here, and leave the corpus folder as it is."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if anything at all was found.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Files read side by side (default: one per core).")
    ] = None,
) -> None:
    """Look for bad audio, odd text, duplicates and leaks; write a report and the list of what to leave out.

    Writes CORPUS/check/report.html, CORPUS/check/findings.jsonl and CORPUS/quarantine.jsonl, which training
    obeys. A line you delete there stays deleted (CORPUS/allow.txt), a line you add stays. Originals are never
    edited.
    """
    from rich.console import Console

    from firstwords.data.manifest import load_corpus
    from firstwords.report.check_files import check_and_write

    console = Console()
    loaded = load_corpus(corpus)
    with counted(console, "reading headers" if fast else "listening") as progress:
        written = check_and_write(
            loaded, name=str(corpus), fast=fast, out=out, workers=workers, progress=progress
        )
    show_check(console, written.result, written.decided)
    if loaded.broken:
        console.print(loaded.broken_note, soft_wrap=True, markup=False, highlight=False)
    console.print(f"Report: {written.report}", soft_wrap=True, markup=False, highlight=False)
    if out is not None:
        console.print(
            f"Put-aside list: {written.quarantine} (training obeys the one in the corpus folder)",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
    _refuse_useless(corpus, written)
    console.print(f"Next: {written.next_command}", soft_wrap=True, markup=False, highlight=False)
    if strict and (written.result.findings or loaded.broken):
        raise typer.Exit(1)


def _refuse_useless(corpus: Path, written: Written) -> None:
    """CorpusError where nothing is left to train on, and why."""
    from firstwords.data.validate import too_long
    from firstwords.errors import CorpusError

    if written.usable_seconds:
        return
    if too_long(written.result, written.decided.quarantine)[0]:
        raise CorpusError(
            f"'{corpus}': nothing to train on, every usable utterance with words is too long.",
            mend="Give each sentence times of its own, or raise data.max_duration of a recipe: "
            "longer ones need more memory and learn slowly.",
        )
    raise CorpusError(
        f"'{corpus}': nothing to train on, no utterance with words is usable.",
        mend="Mend what the report names. A folder of noise goes into data.noise_folders of a recipe.",
    )


def show_check(console: Console, result: CheckResult, decided: Decided) -> None:
    """The table of findings and the summary."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from firstwords.data.validate import usable_seconds
    from firstwords.report.check import expect, hours, lost_in_length

    rows = result.by_rule(decided.quarantine)
    if rows:
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", show_edge=False)
        shown.add_column("hours", justify="right", no_wrap=True)
        shown.add_column("utterances", justify="right", no_wrap=True)
        shown.add_column("rule", no_wrap=True)
        shown.add_column("example, and how to mend it", overflow="fold", ratio=1)
        for row in rows:
            label = Text(row.rule.id, style="bold")
            label.append(f"\n{row.outcome}", style="red" if row.put_aside else "yellow")
            shown.add_row(
                f"{row.seconds / 3600:.2f}",
                f"{row.utterances:,}",
                label,
                Text(f"{row.example.utterance}: {row.example.detail}\n").append(
                    row.rule.mend, style="italic"
                ),
            )
        console.print(shown)
    else:
        console.print("No rule found anything.")
    numbers = result.statistics
    training, everything = usable_seconds(result, decided.quarantine)
    lines = [
        f"{numbers.utterances:,} utterances, {hours(numbers.seconds)}; usable {hours(everything)}, "
        f"of them for training {hours(training)}; {len(decided.quarantine):,} put aside."
    ]
    if decided.newly_allowed:
        lines.append(
            f"{len(decided.newly_allowed)} lines were deleted from quarantine.jsonl since the last check: "
            "these utterances stay in, and are kept in allow.txt."
        )
    if lost := lost_in_length(result, decided.quarantine):
        lines.append(lost)
    if everything:
        lines.append(expect(result, decided.quarantine))
    for line in lines:
        console.print(line, markup=False, highlight=False)
