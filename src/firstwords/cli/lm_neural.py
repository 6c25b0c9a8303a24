"""``firstwords lm train --kind lstm`` and ``--kind transformer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from firstwords.text.tokenizer import Tokenizer
    from firstwords.training.lm.recipe import LmWanted
    from firstwords.training.lm.texts import Sources


def train_neural(
    sources: Sources, to: Path, wanted: LmWanted, *, tokenizer: Tokenizer | None, device: str
) -> None:
    """Train, or go on training; say what came of it."""
    from firstwords.training.lm.run import train_language_model

    if wanted.unit == "word":
        raise UsageError(
            "--unit word: an LSTM or a Transformer knows letters or pieces.",
            mend="Use --unit char, or --unit piece with --tokenizer MODEL.",
        )
    result = train_language_model(sources, to, wanted, tokenizer=tokenizer, device=device)
    if not result.finished:
        typer.echo(f"Saved after step {result.steps}. The same command goes on from there.")
        raise typer.Exit(130)
    typer.echo(f"Wrote {to}.\nNext: firstwords lm perplexity {quoted(to)} TEXT")
