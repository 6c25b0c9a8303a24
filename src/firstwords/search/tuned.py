"""What was chosen for a language model, beside it: ``tuned.toml``, found again by whoever uses the folder.

    [[tuned]]
    model = "5e0c..."        fingerprint of the recogniser's weights
    together = ""            and of the models that read along, where any do
    lm = "91ab..."           fingerprint of the language model
    search = "ctc_beam"      kind of search, and its beam
    narrow = ""              of a greedy search, how narrow it is beside a language model (NARROW)
    weight = 0.6  ...

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
from firstwords.files import write_atomically
from firstwords.search.interface import Weight
from firstwords.search.language_models import TUNED

Rate = Annotated[float, Field(ge=0.0)]


class TunedSetting(Config):
    """Weight and bonus, for what they were chosen, and what they brought there (rates as fractions)."""

    model: str
    together: str = ""
    lm: str
    search: str
    beam: PositiveInt = 1
    narrow: str = ""
    weight: Weight
    bonus: FiniteFloat = 0.0
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


def add_tuned(folder: Path, chosen: TunedSetting) -> None:
    """Write a choice down in the place of an earlier one for the same recogniser and kind of search."""

    def place(setting: TunedSetting) -> tuple[str, str, str]:
        return setting.model, setting.together, setting.search

    others = [s for s in read_tuned(folder).tuned if place(s) != place(chosen)]
    write_atomically(folder / TUNED, dump_config(TunedFile(tuned=(*others, chosen))))


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
