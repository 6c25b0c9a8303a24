"""``firstwords transcribe``: recordings in, text or subtitles or annotations out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.cli.transcribe_files import Job
    from firstwords.data.manifest import Utterance
    from firstwords.inference.recognizer import Recognizer


def run(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    inputs: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.", metavar="FILES...")],
    format_: Annotated[
        str, typer.Option("--format", help="txt, json, srt, vtt, ctm, textgrid, eaf; several with commas.")
    ] = "txt",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the results. Without it, they are printed.")
    ] = None,
    window: Annotated[
        float,
        typer.Option(
            "--window",
            help="Longest recording decoded as a whole, in seconds; longer ones in stretches of speech.",
            min=2.0,
        ),
    ] = 30.0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str,
        typer.Option("--precision", help="auto, fp32 or bf16; auto: bf16 for large models that gain by it."),
    ] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Do files again that are done already.")] = False,
) -> None:
    """Transcribe recordings. Files that are done are skipped; unreadable ones are named, the others done.

    With --out, the same command goes on where it was stopped, in the middle of a long recording too.
    """
    from rich.console import Console

    from firstwords.cli.transcribe_files import plan, read_formats

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    formats = read_formats(format_, out)
    jobs, failures, done = plan(inputs, formats, out, again=again)
    if done:
        console.print(f"{done} already transcribed, skipped (--again does them again).")
    written = 0
    if jobs:
        from firstwords.device import read_precision, set_threads
        from firstwords.inference.recognizer import Recognizer

        set_threads()
        recognizer = Recognizer.load(model, device=device, precision=read_precision(precision))
        try:
            more = _work(recognizer, jobs, model.resolve().name, formats, window, console)
        except KeyboardInterrupt:
            if out is not None:
                console.print("The same command goes on from here.")
            raise
        written = len(jobs) - len(more)
        failures |= more
    for path, reason in failures.items():
        console.print(f"Not transcribed: {path}: {reason}", style="red")
    if out is not None and (jobs or failures):
        unread = f", {len(failures)} not" if failures else ""
        console.print(f"{written} transcribed into {out}{unread}.")
    if failures:
        raise typer.Exit(1)


def _work(
    recognizer: Recognizer,
    jobs: Sequence[Job],
    name: str,
    formats: Sequence[str],
    window: float,
    console: Console,
) -> dict[Path, str]:
    """Transcribe every recording, write or print it -> those that failed, and why."""
    from firstwords.cli.transcribe_files import as_printed, write_results
    from firstwords.cli.transcribe_progress import AudioProgress
    from firstwords.errors import FirstwordsError, WriteError
    from firstwords.inference.journal import Journal

    failures: dict[Path, str] = {}
    of_utterance = {job.utterance.id: job for job in jobs}
    with AudioProgress(console, sum(job.duration for job in jobs)) as progress:

        def journal(utterance: Utterance) -> Journal | None:
            job = of_utterance[utterance.id]

            def told(words: str, seconds: float) -> None:
                console.print(f"{job.audio}: {words}")
                progress.take_up(seconds)

            return None if job.journal is None else Journal(job.journal, told)

        utterances = (job.utterance for job in jobs)
        results = recognizer.attempt_many(utterances, window=window, progress=progress.show, journals=journal)
        for job, result in zip(jobs, results, strict=True):
            progress.next(job.duration)
            try:
                if isinstance(result, FirstwordsError):
                    raise result
                for repair in result.repairs:
                    console.print(f"{job.audio}: {repair}", style="yellow")
                if job.target is None:
                    print(as_printed(result, job.audio, formats[0], several=len(jobs) > 1), flush=True)
                else:
                    write_results(job, result, name, formats)
            except WriteError:  # a folder that cannot be written: the next file would not fare better
                raise
            except FirstwordsError as error:
                failures[job.audio] = str(error)
    return failures
