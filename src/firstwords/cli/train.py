"""``firstwords train``: make a model from a corpus, or go on making it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstwords.cli.shared_options import Device
from firstwords.cli.training_options import (
    Minutes,
    Precision,
    RunFolder,
    Workers,
    train_as_told,
)


def run(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder, as 'firstwords import' makes it.")],
    to: RunFolder,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", help="TOML file, or the name of one that comes with firstwords; else one is chosen."
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Zipformer size without a recipe: nano, tiny, S, M, L, kws.")
    ] = None,
    minutes: Minutes = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Model folder to start from; its encoder is kept.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting, for example training.batch_seconds=30."),
    ] = None,
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
