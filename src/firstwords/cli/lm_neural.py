"""``firstwords lm train --kind lstm`` and ``--kind transformer``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from firstwords.cli.leak_options import LeakOptions
from firstwords.cli.lm_options import WritingOptions, refuse
from firstwords.cli.shipped import find_recipe
from firstwords.errors import UsageError, quoted


@dataclass(frozen=True, kw_only=True)
class NeuralOptions:
    """What the options of a model that is trained were given."""

    size: Annotated[str | None, typer.Option("--size", help="Of an LSTM or Transformer: tiny, small.")] = None
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.05, help="Time an LSTM or Transformer may train.")
    ] = None
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="TOML file of an LSTM or Transformer, or a name: lstm, transformer."),
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting of the recipe, for example training.epochs=5."),
    ] = None
    dev: Annotated[
        Path | None,
        typer.Option(
            "--dev", help="Text or corpus (its dev split) to measure on; else some sentences are put aside."
        ),
    ] = None
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:1.", show_default=False)
    ] = None

    def refuse_all(self) -> None:
        """UsageError where any of them stands beside an n-gram model."""
        given: dict[str, object] = {
            "--size": self.size,
            "--minutes": self.minutes,
            "--recipe": self.recipe,
            "--set": self.overrides,
            "--dev": self.dev,
            "--device": self.device,
        }
        refuse(given, "an n-gram model has none.", "Add --kind lstm or transformer.")


def train_neural(
    text: Sequence[Path],
    to: Path,
    *,
    kind: str | None,
    unit: str | None,
    writing: WritingOptions,
    options: NeuralOptions,
    leaks: LeakOptions,
) -> None:
    """Train, or go on training; say what came of it."""
    from firstwords.training.lm.recipe import LmWanted
    from firstwords.training.lm.run import train_language_model
    from firstwords.training.lm.texts import Sources

    tokenizer, normalizer = writing.read()
    recipe = find_recipe(options.recipe, below="lm") if options.recipe is not None else None
    if unit is None and recipe is None:
        unit = "piece" if tokenizer is not None else "char"
    if unit == "word":
        raise UsageError(
            "--unit word: an LSTM or a Transformer knows letters or pieces.",
            mend="Use --unit char, or --unit piece with --tokenizer MODEL.",
        )
    overrides = tuple(options.overrides or ())
    result = train_language_model(
        Sources(tuple(text), options.dev, tuple(leaks.measured), leaks.fate),
        to,
        LmWanted(recipe, kind, options.size, unit, normalizer, options.minutes, overrides),
        tokenizer=tokenizer,
        device=options.device or "auto",
    )
    if not result.finished:
        typer.echo(f"Saved after step {result.steps}. The same command goes on from there.")
        raise typer.Exit(130)
    typer.echo(f"Wrote {to}.\nNext: firstwords lm perplexity {quoted(to)} TEXT")
