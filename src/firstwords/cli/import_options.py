"""The options of ``firstwords import``: how recordings are found, read and split."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.errors import UsageError

if TYPE_CHECKING:
    from firstwords.data.corpora.importing import Plan

_SPEAKERS = ("auto", "folder", "prefix", "none")


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What these options were given."""

    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="auto, folder, table, manifest, nemo, kaldi, common_voice, fleurs, librispeech, lhotse, "
            "audiofolder, elan, textgrid, toolbox, subtitles or audacity.",
        ),
    ] = "auto"
    tier: Annotated[
        list[str] | None,
        typer.Option(
            "--tier",
            help="ELAN or Praat tier, Toolbox marker: a name, '*_orth' or 'type:NAME'. May be repeated.",
        ),
    ] = None
    language: Annotated[
        str | None, typer.Option("--language", help="Language tag (sw, yo, ...) where the source has none.")
    ] = None
    dev: Annotated[float, typer.Option("--dev", help="Share of the duration for the dev split.")] = 0.1
    test: Annotated[float, typer.Option("--test", help="Share of the duration for the test split.")] = 0.1
    seed: Annotated[int, typer.Option("--seed", help="Another seed gives another split.")] = 0
    drop_empty: Annotated[bool, typer.Option("--drop-empty", help="Leave out utterances without text.")] = (
        False
    )
    copy: Annotated[bool, typer.Option("--copy", help="Copy the recordings into the corpus folder.")] = False
    speakers: Annotated[
        str,
        typer.Option(
            "--speakers", help="Plain folders: speaker = folder, prefix (of the name), none or auto."
        ),
    ] = "auto"
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Tables: field=column, such as text=Satz. May be repeated."),
    ] = None
    remove_marks: Annotated[
        list[str] | None,
        typer.Option(
            "--remove-marks",
            help="Take annotators' marks out of transcripts: brackets and words, such as '[] (()) <> xxx'.",
        ),
    ] = None
    channel: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            help="Whose voice is on which channel of stereo recordings: Eva=0 (left), 'tx@SPK=1' (a tier). "
            "May be repeated.",
        ),
    ] = None
    resplit: Annotated[bool, typer.Option("--resplit", help="Split anew although the source has splits.")] = (
        False
    )
    move_texts: Annotated[
        bool, typer.Option("--move-texts", help="Move dev and test utterances whose text train has to train.")
    ] = False

    def check(self) -> None:
        """What is wrong with an option is said before minutes of looking at recordings."""
        from firstwords.data.marks import parse_marks

        if self.speakers not in _SPEAKERS:
            raise UsageError(
                f"--speakers {self.speakers}: no such rule.", mend=f"Known: {', '.join(_SPEAKERS)}."
            )
        tag = r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*"
        if self.language is not None and not re.fullmatch(tag, self.language):
            raise UsageError(
                f"--language {self.language}: not a BCP 47 tag.", mend="For example sw, yo or pt-BR."
            )
        parse_marks(self.remove_marks or [])

    def plan(self, progress: Callable[[int, int], None]) -> Plan:
        """The same for the importer, which calls ``progress`` with what is done, and of how many."""
        from firstwords.data.corpora.copies import parse_channels
        from firstwords.data.corpora.imported import Options
        from firstwords.data.corpora.importing import Plan

        options = Options(
            tiers=tuple(self.tier or ()),
            language=self.language,
            drop_empty=self.drop_empty,
            speakers=_SPEAKERS[_SPEAKERS.index(self.speakers)],
            columns=_columns(self.column or []),
            remove_marks=tuple(self.remove_marks or ()),
            progress=progress,
        )
        return Plan(
            layout=self.layout,
            options=options,
            dev=self.dev,
            test=self.test,
            seed=self.seed,
            copy=self.copy,
            channels=parse_channels(self.channel or []),
            resplit=self.resplit,
            move_texts=self.move_texts,
        )


def _columns(assignments: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for assignment in assignments:
        field, sign, column = assignment.partition("=")
        if not sign or not column.strip():
            raise UsageError(
                f"--column {assignment}: expected field=column.", mend="For example --column text=Satz"
            )
        columns[field.strip()] = column.strip()
    return columns
