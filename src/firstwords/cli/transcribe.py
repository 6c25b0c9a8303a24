"""``firstwords transcribe``: recordings or a stream in, text or subtitles or annotations out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.loading_options import LoadingOptions
from firstwords.cli.option_group import grouped
from firstwords.cli.reading_options import ReadingOptions
from firstwords.cli.shared_options import ModelOrBundle
from firstwords.cli.stream_options import StreamOptions
from firstwords.cli.terminal import plain_console

if TYPE_CHECKING:
    from firstwords.audio.waveform import ChannelPolicy
    from firstwords.cli.transcribe_with import Opener, Wanted

_Inputs = Annotated[
    list[Path] | None,
    typer.Argument(help="Recordings, or folders of them. With --microphone: the device.", metavar="FILES..."),
]
_Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="txt, json, srt, vtt, ctm, textgrid, eaf; several with commas. With --stream: txt or jsonl.",
    ),
]
_Out = Annotated[
    Path | None, typer.Option("--out", help="Folder for the results. Without it, they are printed.")
]
_Window = Annotated[
    float,
    typer.Option(
        "--window",
        help="Longest recording decoded as a whole, in seconds; longer ones in stretches of speech.",
        min=2.0,
    ),
]
_Channel = Annotated[
    str | None,
    typer.Option(
        "--channel",
        help="Of recordings with several: 0 (left), 1 (right), ... or mix. Default: as in training.",
    ),
]
_Again = Annotated[bool, typer.Option("--again", help="Do files again that are done already.")]


@grouped
def run(
    model: ModelOrBundle,
    inputs: _Inputs = None,
    *,
    format_: _Format = "txt",
    out: _Out = None,
    window: _Window = 30.0,
    channel: _Channel = None,
    loading: LoadingOptions,
    again: _Again = False,
    reading: ReadingOptions,
    stream: StreamOptions,
) -> None:
    """Transcribe recordings. Files that are done are skipped; unreadable ones are named, the others done.

    With --out, the same command goes on where it was stopped, in the middle of a long recording too.

    With --stream, speech is transcribed as it comes; the model must be causal.
    """
    console = plain_console(stderr=True)
    files = inputs or []
    reading.check(stream=stream.wanted)
    stream.check(files, out)
    channels = None if channel is None else _read_channel(channel, stream=stream.wanted)
    if stream.wanted:
        stream.check_sound(format_)
    from firstwords.cli.transcribe_with import Wanted

    wanted = Wanted(folder=model, loading=loading, reading=reading, stream=stream, channels=channels)
    opener = _opener(wanted, console.print)
    if stream.wanted:
        from firstwords.cli.transcribe_stream import transcribe_stream

        device = str(files[0]) if files else None
        transcribe_stream(opener.for_stream(), stream, console.print, format_=format_, device=device)
        return
    from firstwords.cli.transcribe_recordings import transcribe_recordings

    transcribe_recordings(
        opener.for_recordings,
        files,
        name=model.resolve().name,
        format_=format_,
        out=out,
        window=window,
        again=again,
        console=console,
    )


def _opener(wanted: Wanted, say: Callable[[str], None]) -> Opener:
    """What loads the folder, a model or a bundle; UsageError for an option that it cannot honour."""
    from firstwords.export.bundle import is_bundle

    if is_bundle(wanted.folder):
        from firstwords.cli.transcribe_bundle import BundleOpener

        return BundleOpener(wanted, say)
    from firstwords.cli.transcribe_model import ModelOpener

    return ModelOpener(wanted, say)


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
