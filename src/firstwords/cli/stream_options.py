"""The options of ``firstwords transcribe --stream``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from firstwords.errors import UsageError

FORMATS = ("txt", "jsonl")
CHUNK_MS = 640.0  # of sound that a model reads at a time


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What these options were given; None: not said."""

    wanted: Annotated[
        bool,
        typer.Option(
            "--stream", help="Read raw samples (s16le, mono) from standard input; text as they come."
        ),
    ] = False
    microphone: Annotated[
        bool,
        typer.Option("--microphone", help="With --stream: listen to a microphone, DEVICE in place of FILES."),
    ] = False
    rate: Annotated[
        int | None,
        typer.Option("--rate", help="Sample rate of the stream in hertz; default: the model's.", min=1),
    ] = None
    chunk_ms: Annotated[
        float | None, typer.Option("--chunk-ms", help="Of a stream, read at a time; default 640.")
    ] = None
    left_ms: Annotated[
        float | None,
        typer.Option("--left-ms", help="Of a stream, how far to look back; default: as far as trained."),
    ] = None
    partials: Annotated[
        bool, typer.Option("--partials", help="Of a stream, print unfinished text into pipes and files, too.")
    ] = False
    report: Annotated[
        bool, typer.Option("--report", help="At the end of a stream, say how late the text came.")
    ] = False

    def check(self, inputs: Sequence[Path], out: Path | None) -> None:
        """Which arguments go together: recordings, or a stream."""
        if self.wanted:
            self._check_stream(inputs, out)
            return
        of_streams = {
            "--microphone": self.microphone,
            "--rate": self.rate,
            "--chunk-ms": self.chunk_ms,
            "--left-ms": self.left_ms,
            "--partials": self.partials,
            "--report": self.report,
        }
        if given := [name for name, value in of_streams.items() if value is not None and value is not False]:
            raise UsageError(f"{given[0]} belongs to --stream.", mend="Add --stream, or leave it out.")
        if not inputs:
            raise UsageError(
                "There is nothing to transcribe.",
                mend="Name recordings or folders, or add --stream to listen to standard input.",
            )

    def _check_stream(self, inputs: Sequence[Path], out: Path | None) -> None:
        if out is not None:
            raise UsageError("--stream prints its text: it takes no --out.", mend="Use > FILE.")
        if self.microphone and len(inputs) > 1:
            raise UsageError(f"--microphone takes one device, got {len(inputs)}.", mend="Name one.")
        if inputs and not self.microphone:
            raise UsageError(
                f"--stream reads standard input, not '{inputs[0]}'.",
                mend="Leave --stream out to transcribe recordings, or add --microphone if this names a "
                "device.",
            )

    def check_sound(self, format_: str) -> None:
        """UsageError where text is asked for that a stream cannot give, or no sound can come."""
        if format_ not in FORMATS:
            raise UsageError(
                f"--format {format_}: a stream is written as {' or '.join(FORMATS)}.",
                mend="Other formats need a whole recording: leave --stream out.",
            )
        if not self.microphone and sys.stdin.isatty():
            raise UsageError(
                "--stream reads raw samples from standard input, which is the keyboard here.",
                mend="Use --microphone, or: ffmpeg -i FILE -f s16le -ac 1 -ar RATE - | firstwords transcribe "
                "...",
            )
