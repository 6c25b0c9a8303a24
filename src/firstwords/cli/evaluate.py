"""``firstwords evaluate``: error rates with intervals, tables, confusions, the worst utterances."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstwords.cli.post import POST_HELP, check_post, with_stages
from firstwords.cli.second_pass import PROMPT_HELP, RESCORE_HELP, WEIGHT_HELP, SecondPassOptions


def run(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    corpus: Annotated[Path, typer.Argument(help="Corpus folder with transcripts.")],
    split: Annotated[str, typer.Option("--split", help="Which part of the corpus.")] = "test",
    against: Annotated[
        Path | None,
        typer.Option("--against", help="Compare with this model folder, or with a hypotheses.jsonl."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the report (default: evaluation/MODEL-CORPUS-SPLIT)."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    rescore: Annotated[str | None, typer.Option("--rescore", help=RESCORE_HELP, metavar="LLM")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help=PROMPT_HELP)] = None,
    rescore_weight: Annotated[
        float | None, typer.Option("--rescore-weight", help=WEIGHT_HELP, min=0.0)
    ] = None,
    post: Annotated[str | None, typer.Option("--post", help=POST_HELP, metavar="STAGES")] = None,
    audio: Annotated[
        bool, typer.Option("--audio/--no-audio", help="Put the worst utterances' audio into the report.")
    ] = True,
) -> None:
    """Measure a model: WER and CER with 95 % intervals, LER, MER, tables, confusions, HTML report."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from firstwords.data.manifest import load_corpus
    from firstwords.errors import UsageError
    from firstwords.report.evaluate import save_evaluation
    from firstwords.report.evaluate_model import check_other, compare_with, evaluate_model
    from firstwords.report.evaluation_terminal import print_evaluation

    console = Console()
    second = SecondPassOptions(rescore, prompt, rescore_weight)
    second.check(stream=False)
    check_post(post, stream=False)
    loaded = load_corpus(corpus)
    # What is wrong with the options is said before minutes of transcribing, not after.
    if against is not None:
        check_other(against, loaded, split)
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out: '{out}' is a file.", mend="Give a folder for the report.")
    recognizer = second.load(model, device)
    if post is not None:
        recognizer = with_stages(recognizer, model, device, post, console.print)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    before = None
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"transcribing with {escape(model.resolve().name)}", total=None)
        evaluation = evaluate_model(
            model,
            loaded,
            split,
            device=device,
            recognizer=recognizer,
            note=second.note,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        if against is not None:
            other = bar.add_task(f"transcribing with {escape(against.resolve().name)}", total=None)
            evaluation, before = compare_with(
                evaluation,
                against,
                loaded,
                device=device,
                progress=lambda done, total: bar.update(other, completed=done, total=total),
            )
    if before is not None:
        print_evaluation(before, console)
    print_evaluation(evaluation, console)
    if recognizer is not None:
        second.tell(recognizer, console.print)
    how = "-rescored" if rescore else ""
    folder = out or Path("evaluation") / f"{evaluation.model}-{evaluation.corpus}-{split}{how}"
    page = save_evaluation(evaluation, folder, audio=audio)
    console.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)
