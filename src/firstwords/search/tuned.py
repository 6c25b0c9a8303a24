"""What was chosen for a language model, beside it: ``tuned.toml``, found again by whoever uses the folder.

    [[tuned]]
    model = "5e0c..."        fingerprint of the recogniser's weights
    together = ""            and of the models that read along, where any do
    lm = "91ab..."           fingerprint of the language model
    search = "ctc_beam"      kind of search, and its beam
    narrow = ""              of a greedy search, how narrow it is beside a language model (NARROW)
    weight = 0.6  ...
    source = "77c0..."       fingerprint of a model of the training transcripts that may be taken off, and
    source_weight = 0.2      how much; its copy is sources/77c0..., unless that is 0

One section for each recogniser, alone or with others, and kind of search; the latest choice replaces the one
before. Of a section made for another state of the language model, or for a greedy search of another width, is
only said that it is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, PositiveInt

from firstwords.config import Config, dump_config, read_config
from firstwords.errors import CheckpointError, ConfigError
from firstwords.files import staged, write_atomically
from firstwords.lm.language_model import HEADER
from firstwords.lm.mixture import copy_language_model
from firstwords.search.interface import Weight
from firstwords.search.language_models import SOURCES, TUNED, language_model_fingerprint

Rate = Annotated[float, Field(ge=0.0)]


class TunedSetting(Config):
    """Weights and bonus, for what they were chosen, and what they brought there (rates as fractions).

    A weight that is None was not looked for: it is as the recipe says.
    """

    model: str
    together: str = ""
    lm: str
    search: str
    beam: PositiveInt = 1
    narrow: str = ""
    weight: Weight
    bonus: FiniteFloat = 0.0
    source: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] = ""
    source_weight: Weight | None = None
    internal_weight: Weight | None = None
    by: Literal["wer", "cer"] = "wer"
    corpus: str = ""
    split: str = "dev"
    utterances: int = 0
    without: Rate = 0.0
    best: Rate = 0.0


class TunedFile(Config):
    """``tuned.toml``."""

    format: Literal[1] = 1
    tuned: tuple[TunedSetting, ...] = ()


def read_tuned(folder: Path) -> TunedFile:
    """The choices for a language model; none where there is no file."""
    if not (folder / TUNED).is_file():
        return TunedFile()
    try:
        return read_config(folder / TUNED, TunedFile, name=TUNED)
    except ConfigError as error:
        raise CheckpointError(
            error.what, mend=f"Mend or delete '{folder / TUNED}', then run 'firstwords lm tune' again."
        ) from None


def add_tuned(folder: Path, chosen: TunedSetting, source: Path | None = None) -> None:
    """Write a choice down in the place of an earlier one for the same recogniser and kind of search.

    Args:
        source: folder of the model that it takes off, if there is one; it is copied.
    """

    def place(setting: TunedSetting) -> tuple[str, str, str]:
        return setting.model, setting.together, setting.search

    others = [s for s in read_tuned(folder).tuned if place(s) != place(chosen)]
    if chosen.source_weight and source is not None:
        _keep(source, source_folder(folder, chosen))
    write_atomically(folder / TUNED, dump_config(TunedFile(tuned=(*others, chosen))))


def source_folder(folder: Path, chosen: TunedSetting) -> Path:
    """Where the model lies that a choice takes off."""
    return folder / SOURCES / chosen.source


def check_source(folder: Path, chosen: TunedSetting) -> Path:
    """``source_folder``; CheckpointError where it is gone, or is another model by now."""
    path = source_folder(folder, chosen)
    if not path.is_dir() or language_model_fingerprint(path) != chosen.source:
        fate = "has changed" if path.is_dir() else "is missing"
        raise CheckpointError(
            f"'{path}' {fate}: the model of the training transcripts that '{folder / TUNED}' takes off.",
            mend="Delete what is left of it and run 'firstwords lm tune' again, or give --lm-weight and "
            "--lm-bonus yourself.",
        )
    return path


def find_tuned(
    found: TunedFile, *, model: str, lm: str, search: str, narrow: str = "", together: str = ""
) -> TunedSetting | None:
    """The choice for these weights of a recogniser, this state of the language model and this search.

    Args:
        narrow: of ``narrowness``.
        together: of the models that read along; where there is no choice for them, that of the recogniser
            alone.
    """
    wanted = (model, lm, search, narrow)
    fitting = {s.together: s for s in found.tuned if (s.model, s.lm, s.search, s.narrow) == wanted}
    return fitting.get(together, fitting.get(""))


# -- one step below


def _keep(source: Path, to: Path) -> None:
    """A copy of the model, unless it is there; ``to`` is called by its fingerprint."""
    if to.is_dir() and language_model_fingerprint(to) == to.name:
        return
    with staged(to, last=(HEADER,)) as new:
        copy_language_model(source, new)
