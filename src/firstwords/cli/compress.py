"""``firstwords compress``: smaller models of trained ones, step by step."""

from __future__ import annotations

import typer

from firstwords.cli import compress_quantize

app = typer.Typer(help="Make a trained model smaller: folder in, smaller folder out.", no_args_is_help=True)
app.command("quantize")(compress_quantize.run)
