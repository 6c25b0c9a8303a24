"""``firstwords inspect``: what a model sees in one recording, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    audio: Annotated[Path, typer.Argument(help="Recording.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="SVG file to write. Default: beside the recording's name, here."),
    ] = None,
    start: Annotated[float, typer.Option("--start", help="Seconds to leave out at the beginning.")] = 0.0,
    duration: Annotated[
        float | None, typer.Option("--duration", help="Seconds to look at. Default: all, at most 60.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Draw what the model hears: spectrogram with words, CTC posteriors, attention."""
    from firstwords.errors import UsageError
    from firstwords.files import write_atomically
    from firstwords.inference.recognizer import Recognizer
    from firstwords.inference.sight import look
    from firstwords.report.picture import draw

    target = to or Path(f"{audio.stem}.svg")
    if target.suffix.lower() != ".svg":
        raise UsageError(
            f"--to {target}: pictures are written as SVG.", mend=f"For example --to {target.stem}.svg"
        )
    sight = look(Recognizer.load(model, device=device), audio, start=start, duration=duration)
    write_atomically(target, draw(sight))
    typer.echo(f"{sight.title}\nPicture: {target}")
