"""``firstwords compress MODEL --target ...`` and ``compress choose``: models that keep to limits."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.shared_options import Device
from firstwords.errors import CompressionError, UsageError, quoted

if TYPE_CHECKING:
    from firstwords.compression.planner import Keep, Planned, Reach
    from firstwords.compression.target import Measures
    from firstwords.data.manifest import Corpus
    from firstwords.report.compression import Comparison, Variant
    from firstwords.training.progress import Progress

MEASURED = "measured"  # folder
SMALL = "-small"  # behind the name of the model, where --to is not given
RTF_SECONDS = 5.0  # of speech; one of the lengths of the report

TARGET = typer.Option(
    "--target",
    help="Limits, with commas between: size, parameters, macs, memory, rtf, cer, wer; < or <=; "
    "'cer<=+1.0' is points above the original.",
    show_default=False,
)


def run(
    model: Annotated[Path, typer.Argument(help="Model folder; it is only read.", show_default=False)],
    corpus: Annotated[
        Path, typer.Option("--corpus", help="Corpus to train on and to measure with.", show_default=False)
    ],
    target: Annotated[str, TARGET],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            help="Model folder to write; one that was begun goes on. Without it MODEL-small.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="Of training after each cut.", min=0.0)] = 10.0,
    attempts: Annotated[int, typer.Option("--attempts", help="At most so many.", min=1, max=20)] = 4,
    split: Annotated[str, typer.Option("--split", help="Of the corpus, that errors are counted on.")] = "dev",
    device: Device = "auto",
) -> None:
    """Make a model smaller and faster until it keeps to limits; Ctrl-C saves, the same command goes on."""
    from firstwords.compression.order import require_exit_last
    from firstwords.compression.planner import ATTEMPTS, compress_to_target
    from firstwords.compression.target import Target
    from firstwords.data.manifest import load_corpus
    from firstwords.device import choose_device
    from firstwords.model.checkpoint import load_model, require_files
    from firstwords.report.compression import ROUNDS, joined, save_comparison
    from firstwords.report.evaluate_model import utterances_of
    from firstwords.training.progress import Progress

    if split == "test":
        raise UsageError(
            "--split test: attempts are chosen by their errors there, and test is for the last word.",
            mend="Use dev, and 'firstwords evaluate' on test once.",
        )
    limits = Target.parse(target)
    require_files(model)
    to = to or _beside(model)
    require_exit_last(load_model(model, device="cpu"), "compress --target")
    progress = Progress()
    heard = load_corpus(corpus)
    utterances_of(heard, split)  # refuses a split that is not there before anything is written
    exact = any(limits.limit(metric) is not None for metric in ("rtf", "memory"))
    kept = to / ATTEMPTS / MEASURED
    choose_device(device)  # a word that is none would look like a step that this model does not allow
    steps = _Steps(corpus, heard, split, minutes, device, ROUNDS if exact else 1, kept, model, progress)
    settings = f"{corpus.resolve()} {split} {minutes:g} {device}"
    done = compress_to_target(model, to, limits, steps, most=attempts, settings=settings, say=progress.say)
    folders = [model, *(attempt.folder for attempt in done.attempts)]
    _tell(done, progress, split)
    compared = joined([steps.compared(folder) for folder in folders])
    page = save_comparison(compared, to / "report", course=[f"Wanted: {limits}.", *done.course])
    progress.say(f"Report: {page}")
    _conclude(done, progress, target)


def _beside(model: Path) -> Path:
    """Where the result lies if nobody says; beside a link, not beside what it leads to."""
    named = model.resolve() if model.name in ("", "..") else model
    return named.with_name(f"{named.name}{SMALL}")


def choose(
    models: Annotated[
        list[Path], typer.Argument(help="Model folders; the first is the original.", show_default=False)
    ],
    corpus: Annotated[Path, typer.Option("--corpus", help="Corpus to measure with.", show_default=False)],
    target: Annotated[str, TARGET],
    split: Annotated[str, typer.Option("--split", help="Of the corpus, that errors are counted on.")] = "dev",
) -> None:
    """Of several models the most accurate that keeps to the limits of a device, or why none does."""
    from firstwords.compression.target import Target, fitting
    from firstwords.data.manifest import load_corpus
    from firstwords.report.compression import compare_variants
    from firstwords.training.progress import Progress

    limits = Target.parse(target)
    progress = Progress()
    found = compare_variants(models, load_corpus(corpus), split, say=progress.say).variants
    best, why = fitting([(one.folder, measures_of(one)) for one in found], limits)
    for line in why:
        progress.say(f"Not {line}.")
    if best is None:
        raise CompressionError(
            f"None of the {len(models)} models keeps to {limits}.",
            mend=f"Make a smaller one: firstwords compress {quoted(models[0])} --corpus {quoted(corpus)} "
            f'--target "{target}" --to DIR',
        )
    progress.say(f"Take {best}.")


def measures_of(found: Variant) -> Measures:
    """A measured model -> what limits are set on."""
    measures: dict[str, float | None] = {
        "size": found.weight_bytes,
        "parameters": found.parameters,
        "macs": found.macs_per_second,
        "memory": found.model_bytes,
        "rtf": found.real_time_factors[RTF_SECONDS],
        "cer": 100 * found.letters.rate,
        "wer": 100 * found.words.rate,
    }
    return {name: float(value) for name, value in measures.items() if value is not None}  # pyright: ignore[reportReturnType]


@dataclass
class _Steps:
    """The steps of the product for the planner.

    Args:
        rounds: processes that time and memory are measured in.
        kept: folder for what was measured of each model: the report shows these figures.
        original: the model that is compressed.
    """

    corpus: Path
    heard: Corpus
    split: str
    minutes: float
    device: str
    rounds: int
    kept: Path
    original: Path
    progress: Progress

    def reach(self, source: Path) -> Reach:
        from firstwords.compression.planner import Reach
        from firstwords.compression.prune import most_share

        return Reach(*most_share(source))

    def prune(self, source: Path, to: Path, share: float) -> None:
        from firstwords.compression.prune import Orders, prune_model

        orders = Orders(cut=share, minutes=self.minutes or None)
        prune_model(source, self.corpus, to, orders, device=self.device, progress=self.progress)

    def store(self, source: Path, to: Path, keep: Keep, budget: int | None) -> None:
        from firstwords.compression.quantize import Order, quantize

        corpus = self.corpus if keep == "mixed" else None
        order = {
            "fp32": Order(),
            "bf16": Order(kind="bf16"),
            "int8": Order(kind="int8"),
            "kmeans6": Order(kind="kmeans", bits=6),
            "mixed": Order(budget=budget, corpus=corpus, device=self.device),
        }[keep]
        quantize(source, to, order, progress=self.progress)

    def measure(self, folder: Path) -> Measures:
        path = self._path(folder)
        path.unlink(missing_ok=True)  # of a model that stood there before
        (found,) = self.compared(folder).variants
        return measures_of(found)

    def compared(self, folder: Path) -> Comparison:
        """Everything that is known of a model; it is measured where that is not written down."""
        from pydantic import TypeAdapter

        from firstwords.files import write_atomically
        from firstwords.report.compression import Comparison, compare_variants

        path, form = self._path(folder), TypeAdapter(Comparison)
        if path.is_file():
            with contextlib.suppress(OSError, ValueError):
                return form.validate_json(path.read_bytes())
        found = compare_variants([folder], self.heard, self.split, rounds=self.rounds)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, form.dump_json(found, indent=1).decode() + "\n")
        return found

    def _path(self, folder: Path) -> Path:
        return self.kept / f"{'original' if folder == self.original else folder.name}.json"


def _tell(done: Planned, progress: Progress, split: str) -> None:
    from firstwords.compression.target import METRICS, shown

    best = done.best
    for metric in METRICS:
        if metric in done.original and metric in best.measures:
            before, after = shown(metric, done.original[metric]), shown(metric, best.measures[metric])
            progress.say(f"  {metric}: {before} -> {after}")
    progress.say(f"  (error rates of '{split}', by which this attempt was chosen)")


def _conclude(done: Planned, progress: Progress, target: str) -> None:
    from firstwords.compression.planner import said

    best = done.best
    if not done.met:
        raise CompressionError(
            f'None of {len(done.attempts)} attempts keeps to "{target}". Nearest: {said(best.way)}; '
            f"{'; '.join(map(str, best.broken))}. {done.ended}",
            mend=f"It is in '{done.folder}', the others in '{done.folder}/attempts'; the original is as it "
            "was. Give more --minutes or --attempts, or wider limits.",
        )
    progress.say(
        f"Target met by {said(best.way)}.\n"
        f"Wrote {done.folder}.\nNext: firstwords evaluate {quoted(done.folder)} CORPUS --split test"
    )
