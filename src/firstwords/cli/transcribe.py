"""``firstwords transcribe``: recordings or a stream in, text or subtitles or annotations out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.post import POST_HELP, apply_post, check_post
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
    from rich.console import Console

    from firstwords.audio.waveform import ChannelPolicy
    from firstwords.cli.transcribe_files import Job, Loaded
    from firstwords.data.manifest import Utterance
    from firstwords.inference.recognizer import Recognizer

_SHOWN = 5  # recordings named one by one


def run(
    model: Annotated[Path, typer.Argument(help="Model folder, or exported bundle.")],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Recordings, or folders of them. With --microphone: the device.", metavar="FILES..."
        ),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="txt, json, srt, vtt, ctm, textgrid, eaf; several with commas. With --stream: txt or jsonl.",
        ),
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
    channel: Annotated[
        str | None,
        typer.Option(
            "--channel",
            help="Of recordings with several: 0 (left), 1 (right), ... or mix. Default: as in training.",
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="auto, fp32 or bf16; auto: bf16 for large models that gain by it. A bundle: fp32, int8.",
        ),
    ] = "auto",
    int8: Annotated[
        bool, typer.Option("--int8", help="Multiply in 8-bit integers: faster on processors without bf16.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Do files again that are done already.")] = False,
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
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Read raw samples (s16le, mono) from standard input; text as they come."
        ),
    ] = False,
    microphone: Annotated[
        bool,
        typer.Option("--microphone", help="With --stream: listen to a microphone, DEVICE in place of FILES."),
    ] = False,
    rate: Annotated[
        int | None,
        typer.Option("--rate", help="Sample rate of the stream in hertz; default: the model's.", min=1),
    ] = None,
    chunk_ms: Annotated[
        float | None, typer.Option("--chunk-ms", help="Of a stream, read at a time; default 640.")
    ] = None,
    left_ms: Annotated[
        float | None,
        typer.Option("--left-ms", help="Of a stream, how far to look back; default: as far as trained."),
    ] = None,
    partials: Annotated[
        bool, typer.Option("--partials", help="Of a stream, print unfinished text into pipes and files, too.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="At the end of a stream, say how late the text came.")
    ] = False,
) -> None:
    """Transcribe recordings. Files that are done are skipped; unreadable ones are named, the others done.

    With --out, the same command goes on where it was stopped, in the middle of a long recording too.

    With --stream, speech is transcribed as it comes; the model must be causal.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    of_streams = {
        "--microphone": microphone,
        "--rate": rate,
        "--chunk-ms": chunk_ms,
        "--left-ms": left_ms,
        "--partials": partials,
        "--report": report,
    }
    second = SecondPassOptions(
        llm=rescore,
        url=rescore_url,
        prompt=prompt,
        weight=rescore_weight,
        bonus=rescore_bonus,
        length=rescore_length,
    )
    second.check(stream=stream)
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
    search.check(stream=stream)
    check_post(post, stream=stream)
    _check(inputs or [], out, stream, of_streams)
    channels = None if channel is None else _read_channel(channel, stream=stream)
    options = None
    if stream:
        from firstwords.cli.transcribe_stream import StreamOptions, check_options

        options = StreamOptions(
            format=format_,
            microphone=microphone,
            device=str(inputs[0]) if inputs else None,
            rate=rate,
            chunk_ms=640.0 if chunk_ms is None else chunk_ms,
            left_ms=left_ms,
            partials=partials,
            report=report,
        )
        check_options(options)
    if (model / "bundle.json").is_file():
        from firstwords.cli.transcribe_bundle import (
            open_bundle,
            refuse_options,
            stream_bundle,
            variant_wished,
        )

        refused: dict[str, object] = {"--rescore": rescore, "--rescore-url": rescore_url}
        refused |= {"--chunk-ms": chunk_ms, "--left-ms": left_ms}
        refuse_options(refused, device, search)

        wished = variant_wished(precision, int8)

        def load_bundle() -> Loaded:
            return _hearing(channels, open_bundle(model, wished, search, console.print, post))

        if options is not None:
            stream_bundle(load_bundle(), options, console.print)
            return
        _transcribe_files(
            load_bundle, model, inputs or [], format_, out, window, again, console,
        )  # fmt: skip
        return
    if options is not None:
        from firstwords.cli.transcribe_stream import ModelHears, transcribe_stream
        from firstwords.inference.streaming import read_otherwise

        recognizer = _load(model, device, precision, int8)
        search.apply(recognizer, console.print, stream=True)
        if (told := read_otherwise(recognizer.search_config)) is not None:
            console.print(told)
        transcribe_stream(ModelHears(recognizer), options, console.print)
        return

    def load() -> Loaded:
        from firstwords.cli.transcribe_files import Loaded

        recognizer = _load(model, device, precision, int8)
        search.apply(recognizer, console.print, n_best=second.given, int8=int8)
        second.apply(recognizer, device, console.print)
        apply_post(recognizer, post, console.print)
        return _hearing(channels, Loaded(recognizer, lambda: second.tell(recognizer, console.print)))

    _transcribe_files(load, model, inputs or [], format_, out, window, again, console)


def _check(inputs: Sequence[Path], out: Path | None, stream: bool, of_streams: Mapping[str, object]) -> None:
    """Which arguments go together."""
    from firstwords.errors import UsageError

    if not stream:
        if given := [name for name, value in of_streams.items() if value is not None and value is not False]:
            raise UsageError(f"{given[0]} belongs to --stream.", mend="Add --stream, or leave it out.")
        if not inputs:
            raise UsageError(
                "There is nothing to transcribe.",
                mend="Name recordings or folders, or add --stream to listen to standard input.",
            )
    elif out is not None:
        raise UsageError("--stream prints its text: it takes no --out.", mend="Use > FILE.")
    elif of_streams["--microphone"] and len(inputs) > 1:
        raise UsageError(f"--microphone takes one device, got {len(inputs)}.", mend="Name one.")
    elif inputs and not of_streams["--microphone"]:
        raise UsageError(
            f"--stream reads standard input, not '{inputs[0]}'.",
            mend="Leave --stream out to transcribe recordings, or add --microphone if this names a device.",
        )


def _read_channel(wish: str, *, stream: bool) -> ChannelPolicy:
    """--channel -> what a reader takes."""
    from firstwords.audio.waveform import channel_policy
    from firstwords.errors import UsageError

    if stream:
        raise UsageError("--channel: a stream has one channel.", mend="Leave --channel or --stream out.")
    if wish != "mix" and not wish.isdecimal():
        raise UsageError(
            f"--channel '{wish}' is neither a number nor 'mix'.",
            mend="Channels are counted from 0: 0 is the left one, 1 the right one.",
        )
    return channel_policy(wish)


def _hearing(channels: ChannelPolicy | None, loaded: Loaded) -> Loaded:
    """Have the channel heard that was asked for; None: as the model was trained."""
    if channels is not None:
        loaded.transcriber.channels = channels
    return loaded


def _load(model: Path, device: str, precision: str, int8: bool) -> Recognizer:
    from firstwords.device import read_precision, set_threads
    from firstwords.errors import UsageError
    from firstwords.inference.recognizer import Recognizer

    set_threads()
    if int8 and precision == "bf16":
        raise UsageError("--int8 and --precision bf16: one or the other.", mend="Leave one of them out.")
    return Recognizer.load(model, device=device, precision=read_precision(precision), int8=int8)


def _transcribe_files(
    load: Callable[[], Loaded],
    model: Path,
    inputs: Sequence[Path],
    format_: str,
    out: Path | None,
    window: float,
    again: bool,
    console: Console,
) -> None:
    from firstwords.cli.transcribe_files import plan, read_formats

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
            more = _work(loaded, jobs, model.resolve().name, formats, window, console)
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
    from firstwords.cli.transcribe_files import made_otherwise

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
    from firstwords.cli.transcribe_files import as_printed, write_results
    from firstwords.cli.transcribe_progress import AudioProgress
    from firstwords.errors import FirstwordsError, WriteError
    from firstwords.inference.journal import Journal

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

        utterances = (job.utterance for job in jobs)
        results = loaded.transcriber.attempt_many(
            utterances, window=window, progress=progress.show, journals=journal
        )
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
                    write_results(job, result, name, formats, identity)
            except WriteError:  # a folder that cannot be written: the next file would not fare better
                raise
            except FirstwordsError as error:
                failures[job.audio] = str(error)
    return failures
