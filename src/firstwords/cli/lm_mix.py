"""``firstwords lm mix``: several language models as one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstwords.errors import quoted


def run(
    lms: Annotated[
        list[Path], typer.Argument(help="Folders of language models, two or more.", show_default=False)
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder of the mixture.", show_default=False)],
    share: Annotated[
        list[float] | None,
        typer.Option("--share", help="Of each model, in their order; default: equal ones. May be repeated."),
    ] = None,
) -> None:
    """Have several language models help a search together: their scores are added, each with its share.

    The models are copied; what was tuned for one of them alone stays behind.
    """
    from firstwords.lm.mixture import mix_language_models

    header = mix_language_models(lms, to, share or None)
    for folder, part in zip(lms, header.parts, strict=True):
        typer.echo(f"{part.share:.0%} {folder}")
    typer.echo(f"Wrote {to}.\nNext: firstwords lm tune MODEL {quoted(to)} --corpus CORPUS")
