"""``firstwords compress prune``: a model folder and a corpus -> the same model with fewer units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from firstwords.cli.option_group import grouped
from firstwords.cli.shared_options import Device
from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from firstwords.compression.groups import Kind
    from firstwords.compression.prune import Orders


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """What the options that say how units are cut were given."""

    cut: Annotated[float, typer.Option("--cut", help="Share of the parameters that goes: 0 to 1.")] = 0.3
    by: Annotated[
        str,
        typer.Option(
            "--by", help="What a unit is judged by: taylor, magnitude, movement, activation, random."
        ),
    ] = "taylor"
    rounds: Annotated[int, typer.Option("--rounds", help="Cuts, with training after each.")] = 1
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="Of training after the cuts, all together.", show_default=False),
    ] = None
    no_tuning: Annotated[bool, typer.Option("--no-tuning", help="Do not train after the cuts.")] = False
    no_teacher: Annotated[
        bool,
        typer.Option("--no-teacher", help="Train on transcripts alone, not on the model's answers, too."),
    ] = False
    parts: Annotated[
        str,
        typer.Option("--parts", help="What may be cut."),
    ] = "heads,feedforward,convolution,hidden,layers"
    per: Annotated[
        str, typer.Option("--per", help="What importance is weighed against: parameter or mac.")
    ] = "parameter"
    unstructured: Annotated[
        bool,
        typer.Option("--unstructured", help="Zeros among the weights: a smaller file, no faster model."),
    ] = False

    def orders(self) -> Orders:
        """The same for the pruning; UsageError for what it does not know."""
        if (self.minutes is None) == (not self.no_tuning):
            raise UsageError(
                "How long to train after the cuts is not said."
                if self.minutes is None
                else "--minutes and --no-tuning contradict each other.",
                mend="Give --minutes M (a tenth to a fifth of what the training took), or --no-tuning.",
            )
        if self.per not in ("parameter", "mac"):
            raise UsageError(f"--per {self.per}: no such measure.", mend="Use parameter or mac.")
        from firstwords.compression.importance import CRITERIA
        from firstwords.compression.prune import Orders

        if self.by not in CRITERIA:
            raise UsageError(f"--by {self.by}: no such criterion.", mend=f"Use one of {', '.join(CRITERIA)}.")
        kinds = (part.strip() for part in self.parts.split(","))
        return Orders(
            cut=self.cut,
            by=self.by,
            rounds=self.rounds,
            minutes=self.minutes,
            teacher=not self.no_teacher,
            kinds=tuple(cast("Kind", kind) for kind in kinds if kind),
            per=self.per,
            unstructured=self.unstructured,
        )


@grouped
def run(
    model: Annotated[Path, typer.Argument(help="Model folder; it is only read.", show_default=False)],
    corpus: Annotated[
        Path, typer.Option("--corpus", help="Corpus to judge units by and to train on.", show_default=False)
    ],
    to: Annotated[
        Path,
        typer.Option("--to", help="Model folder to write; one that was begun goes on.", show_default=False),
    ],
    *,
    how: PruneOptions,
    device: Device = "auto",
) -> None:
    """Cut the parts of a model that matter least; Ctrl-C saves, and the same command goes on."""
    from firstwords.data.manifest import load_corpus
    from firstwords.model.checkpoint import require_files

    require_files(model)  # what is wrong with model or corpus is said before anything is asked for
    load_corpus(corpus)
    orders = how.orders()
    from firstwords.compression.prune import prune_model
    from firstwords.training.progress import Progress

    progress = Progress()
    found = prune_model(model, corpus, to, orders, device=device, progress=progress)
    for kind, (before, after) in found.cut.items():
        if before != after:
            progress.say(f"{kind}: {before} -> {after}")
    if how.unstructured:
        progress.say("Zeros make a model no faster; its file is smaller because they are not written.")
    progress.say(f"Wrote {to}.\nNext: firstwords evaluate {quoted(to)} CORPUS --split test")
