"""``firstwords transcribe`` with recordings: plan, transcribe, write or print, and say how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from firstwords.cli.transcribe_files import (
    Job,
    as_printed,
    made_otherwise,
    plan,
    read_formats,
    write_results,
)
from firstwords.cli.transcribe_progress import AudioProgress
from firstwords.cli.transcribe_with import Loaded
from firstwords.data.manifest import Utterance
from firstwords.errors import FirstwordsError, WriteError
from firstwords.inference.journal import Journal
from firstwords.inference.transcript import Transcript

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 5  # recordings named one by one


def transcribe_recordings(
    load: Callable[[], Loaded],
    inputs: Sequence[Path],
    *,
    name: str,
    format_: str,
    out: Path | None,
    window: float,
    again: bool,
    console: Console,
) -> None:
    """Transcribe what is not done yet; the command ends with 1 where a recording could not be read.

    Args:
        load: called once, where anything is to be done or compared.
        name: of the model, for tiers.
    """
    formats = read_formats(format_, out)
    jobs, failures, done = plan(inputs, formats, out, again=again)
    if done:
        console.print(f"{len(done)} already transcribed, skipped (--again does them again).")
    written = 0
    loaded = load() if jobs or done else None
    if loaded is not None and done:
        _tell_otherwise(loaded, done, formats, console)
    if loaded is not None and jobs:
        try:
            more = _work(loaded, jobs, name, formats, window, console)
        except KeyboardInterrupt:
            if out is not None:
                console.print("The same command goes on from here.")
            raise
        loaded.told()
        written = len(jobs) - len(more)
        failures |= more
    for path, reason in failures.items():
        console.print(f"Not transcribed: {path}: {reason}", style="red")
    if out is not None and (jobs or failures):
        unread = f", {len(failures)} not" if failures else ""
        console.print(f"{written} transcribed into {out}{unread}.")
    if failures:
        raise typer.Exit(1)


def _tell_otherwise(loaded: Loaded, done: Sequence[Job], formats: Sequence[str], console: Console) -> None:
    """Say which of the results that are kept were made with other things than those wished today."""
    found = made_otherwise(done, formats, loaded.transcriber.identity)
    for audio, others in list(found.items())[:_SHOWN]:
        console.print(f"{audio}: kept as it is, but made with another {' and another '.join(others)}.")
    if len(found) > _SHOWN:
        console.print(f"... and {len(found) - _SHOWN} more.")
    if found:
        console.print("--again does them again; or give another --out.")


def _work(
    loaded: Loaded,
    jobs: Sequence[Job],
    name: str,
    formats: Sequence[str],
    window: float,
    console: Console,
) -> dict[Path, str]:
    """Transcribe every recording, write or print it -> those that failed, and why."""
    failures: dict[Path, str] = {}
    identity = loaded.transcriber.identity
    of_utterance = {job.utterance.id: job for job in jobs}
    with AudioProgress(console, sum(job.duration for job in jobs)) as progress:

        def journal(utterance: Utterance) -> Journal | None:
            job = of_utterance[utterance.id]

            def told(words: str, seconds: float) -> None:
                console.print(f"{job.audio}: {words}")
                progress.take_up(seconds)

            return None if job.journal is None else Journal(job.journal, told)

        def finish(job: Job, transcript: Transcript) -> None:
            for repair in transcript.repairs:
                console.print(f"{job.audio}: {repair}", style="yellow")
            if job.target is None:
                print(as_printed(transcript, job.audio, formats[0], several=len(jobs) > 1), flush=True)
            else:
                write_results(job, transcript, name, formats, identity)

        utterances = (job.utterance for job in jobs)
        results = loaded.transcriber.attempt_many(
            utterances, window=window, progress=progress.show, journals=journal
        )
        for job, result in zip(jobs, results, strict=True):
            progress.next(job.duration)
            try:
                if isinstance(result, FirstwordsError):
                    raise result
                finish(job, result)
            except WriteError:  # a folder that cannot be written: the next file would not fare better
                raise
            except FirstwordsError as error:
                failures[job.audio] = str(error)
    return failures
