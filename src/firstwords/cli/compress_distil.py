"""``firstwords compress distil``, ``low-rank``, ``fold``, ``skip-layers``, ``early-exit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.shared_options import Device
from firstwords.cli.training_options import (
    Minutes,
    Precision,
    RunFolder,
    Workers,
    train_as_told,
)
from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from firstwords.compression.steps import StepResult
    from firstwords.inference.early_exit import ExitSettings

Model = Annotated[Path, typer.Argument(help="Model folder; it is only read.", show_default=False)]
Corpus = Annotated[Path, typer.Option("--corpus", help="Corpus folder.", show_default=False)]
To = Annotated[Path, typer.Option("--to", help="Model folder to write; a new one.", show_default=False)]


def distil(
    teacher: Annotated[Path, typer.Argument(help="Model folder to learn from.", show_default=False)],
    corpus: Corpus,
    to: RunFolder,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Of the student: TOML file or name; else one is chosen.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Of the student without a recipe: nano, tiny, S, M, L, kws.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Student to start from, for example a pruned model.")
    ] = None,
    minutes: Minutes = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting, for example distillation.temperature=2."),
    ] = None,
    device: Device = "auto",
    precision: Precision = None,
    workers: Workers = None,
) -> None:
    """Train a small model on a corpus and a large model's answers; Ctrl-C saves, the same command goes on."""
    from firstwords.compression.steps import note_distilled
    from firstwords.data.manifest import load_corpus
    from firstwords.model.checkpoint import require_files

    require_files(teacher)  # what is wrong with model or corpus is said before anything is asked for
    load_corpus(corpus)
    if start is not None:
        require_files(start)
    known = (to / "recipe.toml").is_file()
    if not known and recipe is None and size is None and start is None:
        raise UsageError(
            "What shall the student be?", mend="Give --size nano, --recipe FILE or --from MODEL."
        )
    result = train_as_told(
        corpus,
        to,
        recipe=recipe,
        size=size,
        minutes=minutes,
        start=start,
        overrides=_settings(teacher, set_ or []),
        device=device,
        precision=precision,
        workers=workers,
    )
    note_distilled(to, teacher, start, minutes=result.elapsed / 60, steps=result.steps)
    typer.echo(
        f"The student is in {to}. Next:\n"
        f"  firstwords compress report {quoted(teacher)} {quoted(to)} --corpus {quoted(corpus)}"
    )


def _settings(teacher: Path, given: list[str]) -> list[str]:
    """Assignments that make a recipe one of a student: what the user says comes last."""
    varied = any("hears" in one and "varied" in one for one in given)
    clean = [] if varied else ["training.specaugment.time_warp=0"]
    return [f"distillation.teacher={json.dumps(str(teacher.resolve()))}", *clean, *given]


def low_rank(
    model: Model,
    corpus: Corpus,
    to: To,
    energy: Annotated[
        float | None, typer.Option("--energy", help="Of each layer's output that stays, for example 0.95.")
    ] = None,
    cut: Annotated[
        float | None,
        typer.Option("--cut", help="Share of the parameters that goes, for example 0.3."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="By the weights alone, not by what layers read: a control.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Layers by path, for example 'encoder.*feed*'.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, help="Of fine-tuning, with the model as teacher.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Linear layers as products of two thin ones, chosen by the speech of a corpus."""
    from firstwords.compression.steps import LowRankOrders, low_rank_model

    if energy is None and cut is None:
        energy = 0.95
    orders = LowRankOrders(
        energy=energy,
        cut=cut,
        method="plain" if plain else "data",
        only=tuple(only or ()),
        minutes=minutes,
    )
    _tell(low_rank_model(model, corpus, to, orders, device=device))


def fold(model: Model, to: To) -> None:
    """Norms and scales as part of the matrices beside them; the answers stay what they were."""
    from firstwords.compression.steps import fold_model

    _tell(fold_model(model, to))


def skip_layers(
    model: Model,
    corpus: Corpus,
    to: To,
    most: Annotated[int, typer.Option("--most", help="Layers to leave out, at most.")] = 1,
    limit: Annotated[
        float, typer.Option("--limit", help="Greatest loss on dev, as a multiple of what it was.")
    ] = 1.2,
    device: Device = "auto",
) -> None:
    """Leave out the layers that the loss on dev misses least; nothing is trained."""
    from firstwords.compression.steps import skip_layers as skip

    _tell(skip(model, corpus, to, most=most, limit=limit, device=device, say=typer.echo))


def early_exit(
    model: Model,
    corpus: Corpus,
    to: To,
    most_loss: Annotated[
        float, typer.Option("--most-loss", help="Points of CER that leaving early may cost.", min=0.0)
    ] = 0.3,
    measure: Annotated[
        str, typer.Option("--measure", help="Of how sure the model is: confidence or certainty (entropy).")
    ] = "confidence",
    device: Annotated[str, typer.Option("--device", help="Where times are measured.")] = "cpu",
) -> None:
    """Choose on dev how sure a model must be to leave out its last layers, and show the curve."""
    from firstwords.compression.steps import early_exit_model
    from firstwords.inference.early_exit import MEASURES

    if measure not in MEASURES:
        raise UsageError(f"--measure {measure}: no such measure.", mend=f"Use {' or '.join(MEASURES)}.")
    found = early_exit_model(model, corpus, to, most_loss=most_loss / 100, measure=measure, device=device)
    for line in _curve(found):
        typer.echo(line)
    if found.above > 1.0:
        typer.echo(f"No threshold saves time within {most_loss:g} points: {to} never leaves early.")
    else:
        typer.echo(f"{to} leaves where its {found.measure} is {found.above:g} or more.")
    typer.echo("Measured on the utterances that chose: on others it will be a little worse.")


def _curve(found: ExitSettings) -> list[str]:
    """A line for each threshold."""
    lines = [f"{'above':>8} {'CER':>8} {'time':>7}  left from (utterances)"]
    for point in found.curve:
        exits = ", ".join(f"{stack}: {count}" for stack, count in point.exits.items())
        chosen = "  <-" if point.above == found.above else ""
        lines.append(
            f"{point.above:8.4f} {100 * point.cer:6.2f} % {100 * point.seconds_share:5.0f} %  {exits}{chosen}"
        )
    return lines


def _tell(found: StepResult) -> None:
    for line in found.said:
        typer.echo(line)
    before, after = found.parameters
    typer.echo(f"{before:,} parameters -> {after:,} ({after / before:.0%}).")
    if found.cer is not None:
        typer.echo(f"CER on dev: {100 * found.cer[0]:.2f} % -> {100 * found.cer[1]:.2f} %.")
    typer.echo(f"Wrote {found.folder}.\nNext: firstwords evaluate {quoted(found.folder)} CORPUS --split test")
