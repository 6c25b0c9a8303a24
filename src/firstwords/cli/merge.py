"""``firstwords merge``: several models of one architecture -> one model folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.option_group import grouped
from firstwords.cli.terminal import plain_console
from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from firstwords.model.merging import Ingredient


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """What the options that say how models are merged were given."""

    weights: Annotated[
        str | None, typer.Option("--weights", help="One for each model: '0.5 0.3 0.2'. Default: all equal.")
    ] = None
    soup: Annotated[
        str | None,
        typer.Option("--soup", help="greedy: only models that do not raise the error on --corpus."),
    ] = None
    base: Annotated[
        Path | None, typer.Option("--base", help="Task arithmetic: the model that the others came from.")
    ] = None
    task: Annotated[
        list[Path] | None,
        typer.Option("--task", help="What it learned beyond the base is added. May be repeated."),
    ] = None
    subtract: Annotated[
        list[Path] | None,
        typer.Option("--subtract", help="What it learned beyond the base is taken away. May be repeated."),
    ] = None
    scale: Annotated[
        float | None,
        typer.Option("--scale", help="How much of each task is added or taken away; default 1.", min=0.0),
    ] = None

    def check(self, models: Sequence[Path], corpus: Path | None) -> None:
        """UsageError for options that contradict each other."""
        changes = [*(self.task or ()), *(self.subtract or ())]
        if self.base is None:
            if changes or self.scale is not None:
                raise UsageError(
                    "--task, --subtract and --scale need --base.",
                    mend="Name the model that the others were fine-tuned from.",
                )
            if len(models) < 2:
                raise UsageError(
                    f"{len(models)} models: a merge needs at least two.",
                    mend="firstwords merge A B --to MERGED, or --base BASE --task A --to MERGED.",
                )
        elif models or self.weights is not None or self.soup is not None:
            raise UsageError(
                "--base goes with --task and --subtract, not with models to average, --weights or --soup.",
                mend="firstwords merge --base BASE --task A --task B --scale 0.7 --to MERGED",
            )
        elif not changes:
            raise UsageError(
                "--base without --task or --subtract.", mend="Name what is to be added or taken away."
            )
        if self.scale is not None and not math.isfinite(self.scale):
            raise UsageError(f"--scale {self.scale}: expected a number.", mend="Mostly 0.3 to 1.")
        if self.soup is None:
            return
        if self.soup != "greedy":
            raise UsageError(
                f"--soup {self.soup}: no such soup.",
                mend="Use --soup greedy, or no --soup for the average of all.",
            )
        if self.weights is not None:
            raise UsageError("--soup chooses the weights itself.", mend="Leave out --weights.")
        if corpus is None:
            raise UsageError("--soup chooses by the error on dev.", mend="Add --corpus CORPUS.")

    def ingredients(self, models: Sequence[Path]) -> tuple[list[Ingredient], str]:
        """What the options mean, and that in words."""
        from firstwords.model.merging import average, read_parent, task_arithmetic

        if self.base is None:
            given = None if self.weights is None else _numbers(self.weights)
            plain = "average" if self.weights is None else f"average, weights {self.weights}"
            parents = [read_parent(folder) for folder in models]
            return average(parents, given), "greedy soup" if self.soup else plain
        factor = 1.0 if self.scale is None else self.scale
        tasks, taken = self.task or (), self.subtract or ()
        signed = [*(f"+ {t.resolve().name}" for t in tasks), *(f"- {t.resolve().name}" for t in taken)]
        found = task_arithmetic(
            read_parent(self.base), [read_parent(t) for t in tasks], [read_parent(t) for t in taken], factor
        )
        words = f"task arithmetic on {self.base.resolve().name}, scale {factor:g}: {' '.join(signed)}"
        return found, words


@grouped
def run(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model folders to average.", show_default=False)
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Model folder to write; a new one.", show_default=False)
    ] = None,
    *,
    how: MergeOptions,
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", help="Measure error rate, gate and batch statistics of the result on it."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="With --corpus: what errors are counted on, never a test; default dev."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="With --corpus: auto, cpu, cuda or cuda:N; default auto.")
    ] = None,
) -> None:
    """Average models, cook a greedy soup, or add and subtract what models learned."""
    named = models or []
    if to is None:
        raise UsageError("--to is missing.", mend="Name the model folder to write: --to FOLDER.")
    how.check(named, corpus)
    if corpus is None:
        measuring = {"--split": split, "--device": device}
        if lone := [name for name, value in measuring.items() if value is not None]:
            raise UsageError(
                f"{lone[0]} belongs to --corpus: without one nothing is measured.",
                mend="Add --corpus CORPUS.",
            )
    split = split or "dev"
    from firstwords.training.merge import merge_models

    console = plain_console()
    ingredients, words = how.ingredients(named)
    found = merge_models(
        ingredients,
        to,
        how=words,
        greedy=how.soup is not None,
        corpus=corpus,
        split=split,
        device=device or "auto",
        say=console.print,
    )
    for step in found.steps:
        console.print(f"{'kept' if step.kept else 'left out'}: {step.parent.name} ({100 * step.error:.2f} %)")
    for (parent, share), likeness in zip(found.ingredients, found.likeness, strict=True):
        console.print(f"{share:8.4f} of {parent.folder}  (cosine with the first: {likeness:.3f})")
    if found.validation is not None:
        numbers = found.validation.numbers
        console.print(f"{split}: CER {100 * numbers['cer']:.2f} %, WER {100 * numbers['wer']:.2f} %")
    console.print(f"Wrote {to}.\nNext: firstwords evaluate {quoted(to)} CORPUS --split test")


def _numbers(text: str) -> list[float]:
    """'0.5 0.3' or '0.5,0.3' -> numbers."""
    try:
        found = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if not found:
        raise UsageError(
            f"--weights '{text}': expected numbers.", mend="One for each model: --weights '0.5 0.3 0.2'."
        )
    return found
