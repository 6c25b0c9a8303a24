"""``firstwords train``: make a model from a corpus, or go on making it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder, as 'firstwords import' makes it.")],
    to: Annotated[
        Path, typer.Option("--to", help="Folder of the run and the model; an existing run goes on.")
    ],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="TOML file; without one, a recipe is chosen and written.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Zipformer size without a recipe: nano, tiny, S, M, L, kws.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, help="Time the run may take.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Model folder to start from; its encoder is kept.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting, for example training.batch_seconds=30."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")] = "auto",
    precision: Annotated[
        str | None, typer.Option("--precision", help="auto, fp32 or bf16; default: the recipe's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Loader processes; default: the recipe's.")
    ] = None,
) -> None:
    """Train a model on a corpus, or go on training it; Ctrl-C saves, and the same command goes on."""
    from firstwords.device import read_precision
    from firstwords.errors import UsageError
    from firstwords.model.recipe import read_recipe
    from firstwords.training.run import train_corpus

    if recipe is not None and size is not None:
        raise UsageError(
            "--recipe and --size contradict each other.",
            mend="A recipe names its own encoder; leave --size away.",
        )
    result = train_corpus(
        corpus,
        to,
        recipe=read_recipe(recipe) if recipe is not None else None,
        size=size,
        minutes=minutes,
        start_from=start,
        overrides=set_ or (),
        device=device,
        precision=read_precision(precision) if precision is not None else None,
        workers=workers,
    )
    if not result.finished:
        typer.echo(f"Saved after step {result.steps}. The same command goes on from there.")
        raise typer.Exit(130)
    typer.echo(
        f"The model is in {result.folder}. Next:\n  firstwords evaluate {result.folder} {corpus} --split test"
    )
