"""``firstwords evaluate``: error rates with intervals, tables, confusions, the worst utterances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.option_group import grouped
from firstwords.cli.reading_options import ReadingOptions
from firstwords.cli.shared_options import Device, Model
from firstwords.cli.terminal import counting_bar

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.data.manifest import Corpus
    from firstwords.inference.recognizer import Recognizer
    from firstwords.report.evaluation import Evaluation

_Corpus = Annotated[Path, typer.Argument(help="Corpus folder with transcripts.")]
_Split = Annotated[str, typer.Option("--split", help="Which part of the corpus.")]
_Against = Annotated[
    Path | None,
    typer.Option("--against", help="Compare with this model folder, or with a hypotheses.jsonl."),
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the report (default: evaluation/MODEL-CORPUS-SPLIT)."),
]
_Audio = Annotated[
    bool, typer.Option("--audio/--no-audio", help="Put the worst utterances' audio into the report.")
]


@grouped
def run(
    model: Model,
    corpus: _Corpus,
    *,
    split: _Split = "test",
    against: _Against = None,
    out: _Out = None,
    device: Device = "auto",
    reading: ReadingOptions,
    audio: _Audio = True,
) -> None:
    """Measure a model: WER and CER with 95 % intervals, LER, MER, tables, confusions, HTML report."""
    from rich.console import Console

    from firstwords.data.manifest import load_corpus
    from firstwords.report.evaluation_terminal import print_evaluation

    console = Console()
    reading.check()
    loaded = load_corpus(corpus)
    _check(against, out, loaded, split)
    notes: list[str] = []
    recognizer = _load(model, device, reading, notes, console)
    note = " ".join((*notes, reading.second.note)).strip()
    evaluation, before = _measure(model, loaded, split, against, device, recognizer, note, console)
    if before is not None:
        print_evaluation(before, console)
    counted = ""
    if (phrases := reading.search.phrases) is not None:
        evaluation, counted = _count_phrases(phrases, evaluation, before)
    print_evaluation(evaluation, console)
    if recognizer is not None:
        reading.second.tell(recognizer, console.print)
    page = _save(evaluation, counted, out, ending=reading.suffix, audio=audio)
    console.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)


def _check(against: Path | None, out: Path | None, corpus: Corpus, split: str) -> None:
    """What is wrong with the options is said before minutes of transcribing, not after."""
    from firstwords.errors import UsageError
    from firstwords.report.evaluate_model import check_other

    if against is not None:
        check_other(against, corpus, split)
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out: '{out}' is a file.", mend="Give a folder for the report.")


def _load(
    model: Path, device: str, reading: ReadingOptions, notes: list[str], console: Console
) -> Recognizer | None:
    """The recogniser with what was asked for, and in ``notes`` what must be said of it; None: a plain one."""
    if not reading.given:
        return None
    from firstwords.inference.recognizer import Recognizer
    from firstwords.search.search import search_words
    from firstwords.search.spotted import listed_phrases
    from firstwords.text.normalize import normalizer

    search = reading.search
    recognizer = Recognizer.load(model, device=device)
    reading.help_search(recognizer, device, notes.append)
    if search.phrases is not None:  # what cannot be counted is said before minutes of transcribing
        listed_phrases(search.phrases, normalizer(recognizer.recipe.text.scoring))
    if (search.beam is not None or search.kind is not None) and search.lm is None:
        notes.append(f"Search: {search_words(recognizer.search_config)}.")
    if reading.post is not None:
        reading.format(recognizer, console.print)
    return recognizer


def _measure(
    model: Path,
    corpus: Corpus,
    split: str,
    against: Path | None,
    device: str,
    recognizer: Recognizer | None,
    note: str,
    console: Console,
) -> tuple[Evaluation, Evaluation | None]:
    """Transcribe and score the split, with the other system too if there is one -> both evaluations."""
    from rich.markup import escape

    from firstwords.report.evaluate_model import compare_with, evaluate_model

    with counting_bar(console) as bar:
        task = bar.add_task(f"transcribing with {escape(model.resolve().name)}", total=None)
        evaluation = evaluate_model(
            model,
            corpus,
            split,
            device=device,
            recognizer=recognizer,
            note=note,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        if against is None:
            return evaluation, None
        other = bar.add_task(f"transcribing with {escape(against.resolve().name)}", total=None)
        return compare_with(
            evaluation,
            against,
            corpus,
            device=device,
            progress=lambda done, total: bar.update(other, completed=done, total=total),
        )


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


def _save(evaluation: Evaluation, counted: str, out: Path | None, *, ending: str, audio: bool) -> Path:
    """Write the report, and beside it the table of phrases if they were counted -> its page."""
    from firstwords.files import write_atomically
    from firstwords.report.evaluate import folder_for, save_evaluation

    folder = out or folder_for(evaluation, Path("evaluation"), ending=ending)
    page = save_evaluation(evaluation, folder, audio=audio)
    if counted:
        write_atomically(folder / "phrases.tsv", counted)
    return page
