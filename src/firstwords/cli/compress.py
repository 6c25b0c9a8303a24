"""``firstwords compress``: smaller models of trained ones, step by step."""

from __future__ import annotations

import typer

from firstwords.cli import compress_distil, compress_prune, compress_report

app = typer.Typer(help="Make a trained model smaller: folder in, smaller folder out.", no_args_is_help=True)
app.command("prune")(compress_prune.run)
app.command("distil")(compress_distil.distil)
app.command("low-rank")(compress_distil.low_rank)
app.command("fold")(compress_distil.fold)
app.command("skip-layers")(compress_distil.skip_layers)
app.command("early-exit")(compress_distil.early_exit)
app.command("report")(compress_report.run)
