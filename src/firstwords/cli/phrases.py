"""``firstwords phrases``: names and terms that shall be found where the search would miss them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstwords.cli.shared_options import Device, Model
from firstwords.cli.terminal import counted, plain_console
from firstwords.errors import UsageError, quoted

_FalseAlarms = Annotated[
    float,
    typer.Option(
        "--false-alarms",
        help="Phrases found where nobody says them that may happen, per hundred words said.",
        min=0.0,
    ),
]


def run(
    model: Model,
    phrases: Annotated[Path, typer.Argument(help="File of names and terms, one a line.", metavar="LIST")],
    corpus: Annotated[
        Path,
        typer.Option("--corpus", help="Corpus folder with transcripts and a dev part.", show_default=False),
    ],
    to: Annotated[Path, typer.Option("--to", help="File to write, for --phrases.", show_default=False)],
    false_alarms: _FalseAlarms = 1.0,
    split: Annotated[str, typer.Option("--split", help="Where they are counted; never test.")] = "dev",
    device: Device = "auto",
) -> None:
    """Measure how phrases score where nobody says them, so that they can be spotted where somebody does.

    Then: firstwords transcribe MODEL FILES --phrases FILE.
    """
    from firstwords.data.manifest import load_corpus
    from firstwords.inference.recognizer import Recognizer
    from firstwords.inference.spotting import calibrate_phrases
    from firstwords.search.phrase_rows import read_phrases
    from firstwords.search.spotted import write_spotted
    from firstwords.search.tuning import refuse_kept
    from firstwords.text.normalize import normalizer

    console = plain_console()
    refuse_kept(split)
    if to.is_dir():
        raise UsageError(f"--to: '{to}' is a folder.", mend="Give a file.")
    loaded = load_corpus(corpus)
    recognizer = Recognizer.load(model, device=device)
    listed = list(read_phrases(phrases, normalizer(recognizer.recipe.text.normalizer)))
    with counted(console, "listening where nobody says them") as progress:
        found = calibrate_phrases(
            recognizer,
            listed,
            loaded,
            false_alarms=false_alarms / 100,
            split=split,
            progress=progress,
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
