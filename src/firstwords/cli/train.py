"""``firstwords train``: make a model from a corpus, or go on making it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstwords.cli.training_options import (
    Device,
    Minutes,
    Precision,
    RecipeFile,
    RunFolder,
    Settings,
    Size,
    Workers,
    train_as_told,
)


def run(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder, as 'firstwords import' makes it.")],
    to: RunFolder,
    recipe: RecipeFile = None,
    size: Size = None,
    minutes: Minutes = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Model folder to start from; its encoder is kept.")
    ] = None,
    set_: Settings = None,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = None,
) -> None:
    """Train a model on a corpus, or go on training it; Ctrl-C saves, and the same command goes on."""
    result = train_as_told(
        corpus,
        to,
        recipe=recipe,
        size=size,
        minutes=minutes,
        start=start,
        overrides=set_ or (),
        device=device,
        precision=precision,
        workers=workers,
    )
    typer.echo(
        f"The model is in {result.folder}. Next:\n  firstwords evaluate {result.folder} {corpus} --split test"
    )
