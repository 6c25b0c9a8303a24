"""``firstwords quickstart``: from nothing, or a folder of recordings, to a measured recogniser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    to: Annotated[Path, typer.Option("--to", help="Folder for everything that is made.")] = Path(
        "quickstart"
    ),
    corpus: Annotated[
        Path | None,
        typer.Option(
            "--corpus", help="Your recordings with transcripts; default: a small synthesised corpus."
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, help="Minutes of training (default: 4).")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Make a recogniser in a few minutes: corpus, check, training, error rate, report, transcript.

    Interrupted and started again with the same folder, it goes on where it was.
    """
    from firstwords.quickstart.run import quickstart

    quickstart(to, recordings=corpus, minutes=minutes, device=device)
