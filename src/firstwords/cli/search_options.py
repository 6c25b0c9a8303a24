"""The options by which language models and phrases take part in the search, the same for every verb."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from firstwords.inference.recognizer import Recognizer

Lm = Annotated[
    Path | None, typer.Option("--lm", help="Folder of a language model that helps the search.", metavar="LM")
]
LmWeight = Annotated[
    float | None,
    typer.Option(
        "--lm-weight", help="With --lm: how much it says; default: what 'firstwords lm tune' chose.", min=0.0
    ),
]
LmBonus = Annotated[
    float | None, typer.Option("--lm-bonus", help="With --lm: nats for every token, against lost words.")
]
SourceLm = Annotated[
    Path | None,
    typer.Option(
        "--source-lm",
        help="With --lm: a language model of the training transcripts, taken off; default: the one that "
        "'firstwords lm tune' was given, if that helped.",
        metavar="LM",
    ),
]
SourceWeight = Annotated[
    float | None,
    typer.Option(
        "--source-weight",
        help="With --source-lm: how much; default: what 'firstwords lm tune' chose with it, else 0.2.",
        min=0.0,
    ),
]
InternalWeight = Annotated[
    float | None,
    typer.Option(
        "--internal-weight",
        help="With --lm: how much of what a transducer or attention decoder itself knows of text is taken "
        "off; default: what 'firstwords lm tune' chose, else as in the recipe.",
        min=0.0,
    ),
]
Phrases = Annotated[
    Path | None,
    typer.Option(
        "--phrases",
        help="File of names and terms to expect: one a line, a boost behind a tab (default: by length).",
    ),
]
Search = Annotated[
    str | None,
    typer.Option(
        "--search",
        help="How words are found: greedy, ctc_beam, transducer_greedy, transducer_beam, attention_beam or "
        "rescoring, by the heads of the model; default: as in the recipe.",
        metavar="KIND",
    ),
]
Beam = Annotated[
    int | None,
    typer.Option("--beam", help="Width of the search; 1 is greedy. Default: as in the recipe.", min=1),
]
Others = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        help="Another model folder that reads along, all weigh every reading; may be given several times.",
        metavar="MODEL",
    ),
]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What these options were given."""

    lm: Lm = None
    weight: LmWeight = None
    bonus: LmBonus = None
    source: SourceLm = None
    source_weight: SourceWeight = None
    internal: InternalWeight = None
    phrases: Phrases = None
    kind: Search = None
    beam: Beam = None
    others: Others = None

    @property
    def given(self) -> bool:
        """Was anything said of the search?"""
        return self._helped or bool(self.others)

    @property
    def _helped(self) -> bool:
        return any(value is not None for value in (self.lm, self.phrases, self.kind, self.beam))

    def check(self, *, stream: bool = False) -> None:
        """Which options go together."""
        from firstwords.errors import UsageError

        if stream and self.others:
            raise UsageError(
                "--with needs whole utterances: it cannot be used with --stream.", mend="Leave one out."
            )
        of_lm = {
            "--lm-weight": self.weight,
            "--lm-bonus": self.bonus,
            "--source-lm": self.source,
            "--internal-weight": self.internal,
        }
        if self.lm is None and (lone := [name for name, value in of_lm.items() if value is not None]):
            raise UsageError(f"{lone[0]} belongs to --lm.", mend="Name a language model with --lm.")
        if self.source is None and self.source_weight is not None:
            raise UsageError(
                "--source-weight belongs to --source-lm.", mend="Name a language model with --source-lm."
            )
        numbers = {
            "--lm-weight": self.weight,
            "--lm-bonus": self.bonus,
            "--source-weight": self.source_weight,
            "--internal-weight": self.internal,
        }
        for name, value in numbers.items():
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{name} {value}: no number.", mend="Give one such as 0.5.")

    def apply(
        self,
        recognizer: Recognizer,
        say: Callable[[str], None],
        *,
        n_best: bool = False,
        stream: bool = False,
        int8: bool = False,
    ) -> None:
        """Have the recogniser search as wished, and say in a line with which weights."""
        if self.others:  # first: weights may have been tuned for all of them together
            from firstwords.inference.together import convene

            _check_different(recognizer.folder, self.others)
            for line in convene(recognizer, self.others, int8=int8):
                say(line)
        if self._helped:
            self._help(recognizer, say, n_best=n_best, stream=stream)

    def _help(
        self, recognizer: Recognizer, say: Callable[[str], None], *, n_best: bool, stream: bool
    ) -> None:
        from firstwords.inference.fused import SearchHelp, add_help

        wanted = SearchHelp(
            language_model=self.lm,
            weight=self.weight,
            bonus=self.bonus,
            source=self.source,
            source_weight=self.source_weight,
            internal_weight=self.internal,
            phrases=self.phrases,
            search=self.kind,
            beam=self.beam,
        )
        for line in add_help(recognizer, wanted, n_best=n_best, stream=stream):
            say(line)

    @property
    def suffix(self) -> str:
        """For the name of a report's folder."""
        parts = {
            "-lm": self.lm,
            "-phrases": self.phrases,
            f"-{self.kind}": self.kind,
            f"-beam{self.beam}": self.beam,
        }
        names = [name for name, value in parts.items() if value is not None]
        return "".join((*names, f"-with{len(self.others)}" if self.others else ""))


def _check_different(first: Path, others: Sequence[Path]) -> None:
    """UsageError for a model that would read twice."""
    from firstwords.errors import UsageError

    seen = {first.resolve()}
    for folder in others:
        if folder.resolve() in seen:
            raise UsageError(
                f"--with {folder}: this model reads already.",
                mend="Name another one, of another seed or recipe.",
            )
        seen.add(folder.resolve())
