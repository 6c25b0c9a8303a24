"""``firstwords phrases``: names and terms that shall be found where the search would miss them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstwords.errors import UsageError, quoted


def run(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    phrases: Annotated[Path, typer.Argument(help="File of names and terms, one a line.", metavar="LIST")],
    corpus: Annotated[
        Path,
        typer.Option("--corpus", help="Corpus folder with transcripts and a dev part.", show_default=False),
    ],
    to: Annotated[Path, typer.Option("--to", help="File to write, for --phrases.", show_default=False)],
    false_alarms: Annotated[
        float,
        typer.Option(
            "--false-alarms",
            help="Phrases found where nobody says them that may happen, per hundred words said.",
            min=0.0,
        ),
    ] = 1.0,
    split: Annotated[str, typer.Option("--split", help="Where they are counted; never test.")] = "dev",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Measure how phrases score where nobody says them, so that they can be spotted where somebody does.

    Then: firstwords transcribe MODEL FILES --phrases FILE.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from firstwords.data.manifest import load_corpus
    from firstwords.inference.recognizer import Recognizer
    from firstwords.inference.spotting import calibrate_phrases
    from firstwords.search.phrase_rows import read_phrases
    from firstwords.search.spotted import write_spotted
    from firstwords.search.tuning import refuse_kept
    from firstwords.text.normalize import normalizer

    console = Console(highlight=False, markup=False, soft_wrap=True)
    refuse_kept(split)
    if to.is_dir():
        raise UsageError(f"--to: '{to}' is a folder.", mend="Give a file.")
    loaded = load_corpus(corpus)
    recognizer = Recognizer.load(model, device=device)
    listed = list(read_phrases(phrases, normalizer(recognizer.recipe.text.normalizer)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("listening where nobody says them", total=None)
        found = calibrate_phrases(
            recognizer,
            listed,
            loaded,
            false_alarms=false_alarms / 100,
            split=split,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    write_spotted(to, found.file)
    for line in found.skipped:
        console.print(f"Skipped: {line}", style="yellow")
    points = 100 * found.false_alarms / max(1, found.words)
    console.print(
        f"{len(listed)} phrases, {len(found.file.decoys)} decoys; with a z of {found.file.threshold:.2f} "
        f"{found.false_alarms} false alarms in {found.words:,} words of {split} ({points:.2f} points)."
    )
    if found.said:
        share = 100 * found.hits / found.said
        console.print(f"Of {found.said} that are said there {found.hits} are spotted ({share:.1f} %).")
    console.print(
        f"Wrote {to}. Next:\n  firstwords transcribe {quoted(model)} RECORDINGS --phrases {quoted(to)}"
    )
