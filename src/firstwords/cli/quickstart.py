"""``firstwords quickstart``: from nothing, or a folder of recordings, to a measured recogniser.

Each stage leaves its result in a folder of its own; a stage whose result is there is not done again.

    TO/corpus   TO/model   TO/evaluation   TO/report.html
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.shared_options import Device
from firstwords.cli.terminal import counting_bar

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.data.manifest import Corpus
    from firstwords.model.recipe import Recipe
    from firstwords.report.evaluation import Evaluation

MINUTES = 5.0
STAGES = 5
SYNTHETIC = "synthetic voices: says nothing about human speech"


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
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Minutes of training.")] = MINUTES,
    device: Device = "auto",
) -> None:
    """Make a recogniser in a few minutes: corpus, check, training, error rate, report, transcript.

    Interrupted and started again with the same folder, it goes on where it was.
    """
    from rich.console import Console

    console = Console()
    stages = Stages(console)
    to.mkdir(parents=True, exist_ok=True)
    with stages.next("corpus"):
        if corpus is None:
            synthesize(to / "corpus", console)
        else:
            gather(corpus, to / "corpus", console)
    with stages.next("check"):
        loaded = listen(to / "corpus", console)
    with stages.next("training"):
        train(to, None if corpus is not None else built_in_recipe(minutes), minutes, device, console)
    warning = SYNTHETIC if corpus is None else ""
    with stages.next("error rate on held-out utterances"):
        evaluation = measure(to, loaded, device, warning, console)
    commands = next_commands(to, corpus)
    with stages.next("report and one transcript"):
        page = report(to, evaluation, warning, stages.seconds, commands, corpus)
        transcribe_one(to, evaluation, device, console)
    console.print(f"Report: {page}", soft_wrap=True, markup=False, highlight=False)
    if corpus is not None and minutes < 30:
        console.print(
            f"{minutes:g} minutes of training are a taste; a recogniser worth using takes an hour or more."
        )
    console.print("Next, with your own recordings:" if corpus is None else "Next:")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True, markup=False, highlight=False)


class Stages:
    """Headings of the stages on the console; ``seconds`` holds how long each took, 0 while it runs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def next(self, name: str) -> Generator[None]:
        """One stage; one that fails keeps its 0."""
        from rich.rule import Rule

        began = time.monotonic()
        heading = f"{len(self.seconds) + 1} of {STAGES} · {name}"
        self._console.print(Rule(heading, align="left", style="dim"))
        self.seconds[name] = 0.0
        yield
        self.seconds[name] = time.monotonic() - began


def synthesize(folder: Path, console: Console) -> None:
    """Make the built-in corpus, showing progress."""
    from firstwords.quickstart.corpus import build_corpus
    from firstwords.quickstart.makeup import read_makeup

    makeup = read_makeup()
    with counting_bar(console) as bar:
        tasks: dict[str, int] = {}

        def show(what: str, finished: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of)
            bar.update(tasks[what], completed=finished)  # pyright: ignore[reportArgumentType]

        build_corpus(makeup, folder, show)
    train, dev, test = (sum(v.split == s for v in makeup.voices) for s in ("train", "dev", "test"))
    made_up = makeup.drawn_voices
    console.print(
        f"{train + dev + test + made_up} synthetic voices say digits and commands in rooms and noise "
        f"({train} and {made_up} made-up ones to train on, {dev} for dev, {test} held out for the test).\n"
        f"Note: {SYNTHETIC}."
    )


def gather(source: Path, folder: Path, console: Console) -> None:
    """Import the user's recordings; an import of the same source is kept."""
    import json

    from firstwords.cli.import_ import show
    from firstwords.data.corpora.importing import import_corpus
    from firstwords.data.manifest import MANIFEST
    from firstwords.errors import UsageError

    record = folder / "import.json"
    if record.is_file() and (folder / MANIFEST).is_file():
        try:
            earlier = json.loads(record.read_text(encoding="utf-8"))["source"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise UsageError(
                f"'{record}' is damaged: nobody can tell what '{folder}' was made from.",
                mend=f"Delete {folder} and run the same command again.",
            ) from None
        if earlier != source.expanduser().absolute().as_posix():
            raise UsageError(
                f"'{folder}' was made from '{earlier}', not from '{source}'.",
                mend="Give another folder with --to (with make: RUN=...).",
            )
        console.print(f"Imported earlier; delete {folder} to import again.", markup=False)
        return
    if (folder / "makeup.json").is_file():
        raise UsageError(
            f"'{folder}' holds the built-in corpus, not '{source}'.",
            mend="Give another folder with --to (with make: RUN=...).",
        )
    show(import_corpus(source, folder), console)


def listen(folder: Path, console: Console) -> Corpus:
    """Check the corpus once and say what was found."""
    from firstwords.cli.check import show_check
    from firstwords.data.manifest import MANIFEST, load_corpus
    from firstwords.errors import CorpusError
    from firstwords.report.check_files import check_and_write

    page = folder / "check" / "report.html"
    if page.is_file() and page.stat().st_mtime >= (folder / MANIFEST).stat().st_mtime:
        console.print(f"Checked earlier: {page}", markup=False, highlight=False, soft_wrap=True)
        return load_corpus(folder)
    written = check_and_write(load_corpus(folder), name=str(folder))
    show_check(console, written.result, written.decided)
    if not written.usable_seconds:
        raise CorpusError(
            f"'{folder}': no utterance with words is usable.", mend=f"Mend what {written.report} names."
        )
    return load_corpus(folder)


def built_in_recipe(minutes: float) -> Recipe:
    """The committed recipe of the built-in corpus."""
    import tomllib
    from importlib import resources

    from firstwords.config import parse_config
    from firstwords.model.recipe import Recipe

    source = resources.files("firstwords.quickstart").joinpath("recipe.toml").read_text(encoding="utf-8")
    values = tomllib.loads(source)
    values.setdefault("training", {})["minutes"] = minutes
    return parse_config(values, Recipe, name="recipe", source="quickstart/recipe.toml")


def train(to: Path, recipe: Recipe | None, minutes: float, device: str, console: Console) -> None:
    """Make TO/model of TO/corpus; the command ends (130) where it was stopped before."""
    from firstwords.training.run import train_corpus

    result = train_corpus(to / "corpus", to / "model", recipe=recipe, minutes=minutes, device=device)
    if not result.finished:
        console.print("Saved. The same command goes on from here.")
        raise typer.Exit(130)


def measure(to: Path, corpus: Corpus, device: str, note: str, console: Console) -> Evaluation:
    """Error rates on test (on dev where there is no test) with the page that explains them."""
    from firstwords.report.evaluate import save_evaluation
    from firstwords.report.evaluate_model import evaluate_model
    from firstwords.report.evaluation_terminal import print_evaluation

    split = "test" if any(u.text for u in corpus.split("test")) else "dev"
    if split == "dev":
        note = f"{note}. There is no test split: measured on dev, which training has looked at".lstrip(". ")
    evaluation = evaluate_model(to / "model", corpus, split, device=device, note=note)
    print_evaluation(evaluation, console)
    save_evaluation(evaluation, to / "evaluation")
    return evaluation


def report(
    to: Path,
    evaluation: Evaluation,
    warning: str,
    stages: dict[str, float],
    commands: tuple[str, ...],
    corpus: Path | None,
) -> Path:
    """Write TO/report.html."""
    from firstwords.quickstart.page import build_page

    page = build_page(
        title="A first recogniser" if corpus is None else f"A first recogniser for {corpus.resolve().name}",
        warning=warning,
        evaluation=evaluation,
        metrics=to / "model" / "resume" / "log.jsonl",
        stages=stages,
        reports={"Check of the corpus": "corpus/check/report.html", "Evaluation": "evaluation/report.html"},
        commands=commands,
        folder=to,
    )
    return page.save(to / "report.html")


def transcribe_one(to: Path, evaluation: Evaluation, device: str, console: Console) -> None:
    """Load the model folder afresh, prove it on its own clip, and transcribe one held-out utterance."""
    from rich.markup import escape

    from firstwords.inference.recognizer import Recognizer

    spoken = [r for r in evaluation.results if r.reference]
    if not spoken:
        return
    chosen = spoken[len(spoken) // 2]
    recognizer = Recognizer.load(to / "model", device=device, check=True)
    text = next(iter(recognizer.transcribe_many([chosen.utterance]))).text
    console.print(f"{escape(chosen.utterance.audio.name)}, never trained on", highlight=False)
    console.print(f"  said   {escape(chosen.reference)}", highlight=False)
    console.print(f"  heard  {escape(text) or '(nothing)'}", highlight=False)


def next_commands(to: Path, corpus: Path | None) -> tuple[str, ...]:
    """Three commands that lead on."""
    if corpus is None:
        return (
            "firstwords import RECORDINGS --to corpus",
            "firstwords train corpus --to model --minutes 60",
            "firstwords transcribe model RECORDINGS --out drafts",
        )
    return (
        f"firstwords train {to / 'corpus'} --to {to / 'model-60'} --minutes 60",
        f"firstwords evaluate {to / 'model-60'} {to / 'corpus'} --split test",
        f"firstwords transcribe {to / 'model-60'} {corpus} --out drafts",
    )
