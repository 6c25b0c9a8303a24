"""``firstwords transcribe``: recordings in, text or subtitles or annotations out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.cli.transcribe_files import Job
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
        float, typer.Option("--window", help="Longest stretch decoded at once, in seconds.", min=2.0)
    ] = 30.0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Do files again that are done already.")] = False,
) -> None:
    """Transcribe recordings. Files that are done are skipped; unreadable ones are named, the others done."""
    from rich.console import Console

    from firstwords.cli.transcribe_files import plan, read_formats

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    formats = read_formats(format_, out)
    jobs, failures, done = plan(inputs, formats, out, again=again)
    if done:
        console.print(f"{done} already transcribed, skipped (--again does them again).")
    written = 0
    if jobs:
        from firstwords.device import set_threads
        from firstwords.inference.recognizer import Recognizer

        set_threads()
        recognizer = Recognizer.load(model, device=device)
        more = _work(recognizer, jobs, model.resolve().name, formats, window, console)
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
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from firstwords.cli.transcribe_files import as_printed, write_results
    from firstwords.errors import FirstwordsError, UsageError

    failures: dict[Path, str] = {}
    total = sum(job.duration for job in jobs)
    before = 0.0
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[audio]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=quiet) as bar:
        task = bar.add_task("transcribing", total=total, audio="")

        def show(seconds: float) -> None:
            at = min(before + seconds, total)
            bar.update(task, completed=at, audio=f"{at / 60:.1f} of {total / 60:.1f} min of audio")

        utterances = (job.utterance for job in jobs)
        results = recognizer.attempt_many(utterances, window=window, progress=show)
        for job, result in zip(jobs, results, strict=True):
            before += job.duration
            show(0.0)
            try:
                if isinstance(result, FirstwordsError):
                    raise result
                for repair in result.repairs:
                    console.print(f"{job.audio}: {repair}", style="yellow")
                if job.target is None:
                    print(as_printed(result, job.audio, formats[0], several=len(jobs) > 1), flush=True)
                else:
                    write_results(job, result, name, formats)
            except UsageError:  # a folder that cannot be written: the next file would not fare better
                raise
            except FirstwordsError as error:
                failures[job.audio] = str(error)
    return failures
