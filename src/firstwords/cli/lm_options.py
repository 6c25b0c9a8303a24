"""What several commands of ``firstwords lm`` are told: texts, models, and the units that these count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.errors import TextError, UsageError

if TYPE_CHECKING:
    from firstwords.lm.language_model import NgramHeader
    from firstwords.text.tokenizer import Tokenizer

Text = Annotated[
    list[Path],
    typer.Argument(
        help="Text files (one sentence a line; .txt, .txt.gz), folders of them, or corpus folders.",
        show_default=False,
    ),
]
Lm = Annotated[Path, typer.Argument(help="Folder of a language model.", show_default=False)]
To = Annotated[Path, typer.Option("--to", help="Folder of the language model.", show_default=False)]

UNIT_NAMES = {"word": "words", "char": "letters", "piece": "pieces"}
ONE = {"word": "word", "char": "letter", "piece": "piece"}


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """How text is written before it is counted: like that of a recogniser, or as a normalizer has it."""

    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer", help="Model folder (or its tokenizer) whose pieces and normalizer to use."
        ),
    ] = None
    normalizer: Annotated[
        str | None,
        typer.Option(
            "--normalizer",
            help="Normalizer of the text; that of --tokenizer's recipe, otherwise 'default'.",
        ),
    ] = None

    def read(self) -> tuple[Tokenizer | None, str | None]:
        """The tokenizer, and the name of the normalizer; None where neither the options nor a recipe tell."""
        from firstwords.config import read_toml
        from firstwords.text.load import load_tokenizer

        source, normalizer = self.tokenizer, self.normalizer
        if source is None:
            return None, normalizer
        if not source.is_dir():
            raise TextError(f"'{source}' is not a folder.", mend="Give --tokenizer the folder of a model.")
        pieces = load_tokenizer(source / "tokenizer" if (source / "tokenizer").is_dir() else source)
        if normalizer is None and (source / "recipe.toml").is_file():
            # one line of a resolved recipe; reading it as a Recipe would load every architecture
            settings = read_toml(source / "recipe.toml").get("text")
            named_there = settings.get("normalizer") if isinstance(settings, dict) else None
            normalizer = str(named_there) if named_there is not None else None
        return pieces, normalizer


def ngram_header(unit: str, order: int, writing: WritingOptions) -> tuple[NgramHeader, Tokenizer | None]:
    """What the options say the model is, and the tokenizer where its pieces are the units."""
    from firstwords.lm.language_model import NgramHeader
    from firstwords.lm.ngram_text import UNITS
    from firstwords.text.normalize import normalizer as named

    if unit not in UNITS:
        raise UsageError(f"--unit {unit}: no such unit.", mend=f"Known: {', '.join(UNITS)}.")
    chosen = UNITS[UNITS.index(unit)]
    if chosen == "piece" and writing.tokenizer is None:
        raise UsageError("--unit piece needs --tokenizer.", mend="Add --tokenizer MODEL, a model's folder.")
    pieces, named_there = writing.read()
    normalizer = named_there or "default"
    named(normalizer)
    if chosen != "piece":
        pieces = None
    header = NgramHeader(
        unit=chosen,
        order=max(1, min(order, 20)),
        normalizer=normalizer,
        pieces=pieces.piece_hash if pieces else "",
    )
    return header, pieces


def refuse(options: dict[str, object], why: str, mend: str) -> None:
    """UsageError for the first option that was given, by its name."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name}: {why}", mend=mend)
