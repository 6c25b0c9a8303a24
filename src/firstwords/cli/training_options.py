"""Options of commands that train on a corpus, and the training itself: ``train`` and ``compress distil``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.shipped import find_recipe
from firstwords.errors import UsageError

if TYPE_CHECKING:
    from firstwords.training.run import TrainingResult

RunFolder = Annotated[
    Path,
    typer.Option(
        "--to", help="Folder of the run and the model; an existing run goes on.", show_default=False
    ),
]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0.1, help="Time the run may take.")]
Precision = Annotated[
    str | None, typer.Option("--precision", help="auto, fp32 or bf16; default: the recipe's.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Loader processes; default: the recipe's.")
]


def train_as_told(
    corpus: Path,
    to: Path,
    *,
    recipe: Path | None,
    size: str | None,
    minutes: float | None,
    start: Path | None,
    overrides: Sequence[str],
    device: str,
    precision: str | None,
    workers: int | None,
) -> TrainingResult:
    """Options as they were given -> a finished run; the command ends (130) where it was stopped before."""
    from firstwords.device import read_precision
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
        recipe=read_recipe(find_recipe(recipe)) if recipe is not None else None,
        size=size,
        minutes=minutes,
        start_from=start,
        overrides=overrides,
        device=device,
        precision=read_precision(precision) if precision is not None else None,
        workers=workers,
    )
    if not result.finished:
        typer.echo(f"Saved after step {result.steps}. The same command goes on from there.")
        raise typer.Exit(130)
    return result
