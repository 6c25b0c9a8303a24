"""``firstwords evaluate``: error rates with intervals, tables, confusions, the worst utterances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.post import POST_HELP, check_post, with_stages
from firstwords.cli.search_options import (
    Beam,
    InternalWeight,
    Lm,
    LmBonus,
    LmWeight,
    Others,
    Phrases,
    SearchOptions,
    SourceLm,
    SourceWeight,
)
from firstwords.cli.second_pass import (
    Prompt,
    Rescore,
    RescoreBonus,
    RescoreLength,
    RescoreUrl,
    RescoreWeight,
    SecondPassOptions,
)

if TYPE_CHECKING:
    from firstwords.inference.recognizer import Recognizer
    from firstwords.report.evaluation import Evaluation


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
    lm: Lm = None,
    lm_weight: LmWeight = None,
    lm_bonus: LmBonus = None,
    source_lm: SourceLm = None,
    source_weight: SourceWeight = None,
    internal_weight: InternalWeight = None,
    phrases: Phrases = None,
    beam: Beam = None,
    others: Others = None,
    rescore: Rescore = None,
    rescore_url: RescoreUrl = None,
    prompt: Prompt = None,
    rescore_weight: RescoreWeight = None,
    rescore_bonus: RescoreBonus = None,
    rescore_length: RescoreLength = None,
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
    from firstwords.files import write_atomically
    from firstwords.report.evaluate import folder_for, save_evaluation
    from firstwords.report.evaluate_model import check_other, compare_with, evaluate_model
    from firstwords.report.evaluation_terminal import print_evaluation

    console = Console()
    second = SecondPassOptions(
        llm=rescore,
        url=rescore_url,
        prompt=prompt,
        weight=rescore_weight,
        bonus=rescore_bonus,
        length=rescore_length,
    )
    second.check(stream=False)
    search = SearchOptions(
        lm=lm,
        weight=lm_weight,
        bonus=lm_bonus,
        source=source_lm,
        source_weight=source_weight,
        internal=internal_weight,
        phrases=phrases,
        beam=beam,
        others=tuple(others or ()),
    )
    search.check()
    check_post(post, stream=False)
    loaded = load_corpus(corpus)
    # What is wrong with the options is said before minutes of transcribing, not after.
    if against is not None:
        check_other(against, loaded, split)
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out: '{out}' is a file.", mend="Give a folder for the report.")
    notes: list[str] = []
    recognizer = _load(model, device, search, second, notes)
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
            note=" ".join((*notes, second.note)).strip(),
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
    counted = ""
    if phrases is not None:
        evaluation, counted = _count_phrases(phrases, evaluation, before)
    print_evaluation(evaluation, console)
    if recognizer is not None:
        second.tell(recognizer, console.print)
    how = search.suffix + ("-rescored" if second.given else "")
    folder = out or folder_for(evaluation, Path("evaluation"), ending=how)
    page = save_evaluation(evaluation, folder, audio=audio)
    if counted:
        write_atomically(folder / "phrases.tsv", counted)
    console.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)


def _load(
    model: Path, device: str, search: SearchOptions, second: SecondPassOptions, notes: list[str]
) -> Recognizer | None:
    """The recogniser with what was asked for, and in ``notes`` what must be said of it; None: a plain one."""
    if not search.given and not second.given:
        return None
    from firstwords.inference.recognizer import Recognizer
    from firstwords.search.search import search_words
    from firstwords.search.spotted import listed_phrases
    from firstwords.text.normalize import normalizer

    recognizer = Recognizer.load(model, device=device)
    search.apply(recognizer, notes.append, n_best=second.given)
    second.apply(recognizer, device, notes.append)
    if search.phrases is not None:  # what cannot be counted is said before minutes of transcribing
        listed_phrases(search.phrases, normalizer(recognizer.recipe.text.scoring))
    if search.beam is not None and search.lm is None:
        notes.append(f"Search: {search_words(recognizer.search_config)}.")
    return recognizer


def _count_phrases(path: Path, evaluation: Evaluation, before: Evaluation | None) -> tuple[Evaluation, str]:
    """A file of phrases -> the evaluation with hits and false alarms in its note, and a table of each."""
    from dataclasses import replace

    from firstwords.report.phrases import count_in, phrase_table, phrase_words

    total, each = count_in(path, evaluation)
    words = [phrase_words(total)]
    if before is not None:
        words.append(f"{before.model}: {phrase_words(count_in(path, before)[0])}")
    note = " ".join((evaluation.note, *words)).strip()
    return replace(evaluation, note=note), phrase_table(each)
