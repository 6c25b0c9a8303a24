"""Several language models as one folder: the logarithms of their scores are added, each with its share.

    MIX/lm.toml      kind = "mixture", and for each part its folder and share
    MIX/1/, MIX/2/   copies of the models, whole: the folder can be moved as it is

An n-gram knows what stood in the text word for word, a network what is like it; together they help a search
more than either (LOG.md, 2026-11-22). The sum is no distribution over next tokens (its rows do not add up to
one), so a mixture has no perplexity; a search does not ask for it. Log-linear interpolation: Klakow, 1998,
"Log-linear interpolation of language models".
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from firstwords.config import Config, dump_config
from firstwords.errors import CheckpointError, UsageError
from firstwords.files import staged, write_atomically
from firstwords.folders import COPY_AGAIN, refuse_occupied
from firstwords.lm.language_model import HEADER, header_values, kind_of, parse_header

KIND = "mixture"
_LEAST, _MOST = 0.001, 1000.0  # of a share
# Of a model: what training goes on from, and what was tuned for it alone (search/tuned.py).
_LEFT = ("resume", "tuned.toml", "sources", ".*")


class MixturePart(Config):
    """One of the models; ``folder`` lies in that of the mixture."""

    folder: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}$")]
    share: Annotated[FiniteFloat, Field(gt=0, le=1)]


class MixtureHeader(Config):
    """What a mixture is; its ``lm.toml``."""

    format: Literal[1] = 1
    kind: Literal["mixture"] = "mixture"
    normalizer: str = "default"  # of all parts
    parts: Annotated[tuple[MixturePart, ...], Field(min_length=2)]


def mix_language_models(
    folders: Sequence[Path], to: Path, shares: Sequence[float] | None = None
) -> MixtureHeader:
    """Copy language models into one folder.

    Args:
        shares: of each, 0.001 to 1,000; they are made to add up to one. None: equal ones.

    UsageError where there are fewer than two, or shares that do not fit; CheckpointError where a folder is no
    language model, is a mixture itself, or learned from text of another normalizer than the first.
    """
    if len(folders) < 2:
        raise UsageError("A mixture needs two language models or more.", mend="Name their folders.")
    whole = [1.0] * len(folders) if shares is None else list(shares)
    if len(whole) != len(folders):
        raise UsageError(
            f"{len(whole)} shares for {len(folders)} language models.", mend="Give one for each, or none."
        )
    if wrong := [share for share in whole if not _LEAST <= share <= _MOST]:
        raise UsageError(
            f"A share of {wrong[0]:g}: it must lie between {_LEAST:g} and {_MOST:g}.",
            mend="Leave out a model that is to say nothing.",
        )
    normalizers: list[str] = []
    for folder in folders:
        if kind_of(folder) == KIND:
            raise CheckpointError(
                f"'{folder}' is a mixture itself.", mend="Mix the models that it was made of, all at once."
            )
        normalizers.append(str(header_values(folder).get("normalizer", "default")))
        if normalizers[-1] != normalizers[0]:
            raise CheckpointError(
                f"'{folder}' knows text of normalizer '{normalizers[-1]}', '{folders[0]}' that of "
                f"'{normalizers[0]}': they would write the same words otherwise.",
                mend="Train one of them anew with the --normalizer of the other.",
            )
    refuse_occupied(to, (), kind="a mixture")
    parts = tuple(
        MixturePart(folder=str(number), share=share / sum(whole))
        for number, share in enumerate(whole, start=1)
    )
    header = MixtureHeader(normalizer=normalizers[0], parts=parts)
    with staged(to, last=(HEADER,)) as new:
        for part, folder in zip(parts, folders, strict=True):
            copy_language_model(folder, new / part.folder)
        write_atomically(new / HEADER, dump_config(header))
    return header


def copy_language_model(folder: Path, to: Path) -> None:
    """All that a search needs of a language model of any kind, into a new or empty folder."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(*_LEFT), dirs_exist_ok=True)


def read_mixture(folder: Path) -> list[tuple[Path, float]]:
    """Folder of a mixture -> the folders in it and their shares; CheckpointError where one is missing."""
    header = parse_header(folder, MixtureHeader)
    found = [(folder / part.folder, part.share) for part in header.parts]
    for path, _ in found:
        if not (path / HEADER).is_file():
            raise CheckpointError(f"'{folder}': its part '{path.name}' is not there.", mend=COPY_AGAIN)
        if kind_of(path) == KIND:
            raise CheckpointError(f"'{folder}': its part '{path.name}' is a mixture.", mend=COPY_AGAIN)
        normalizer = str(header_values(path).get("normalizer", "default"))
        if normalizer != header.normalizer:
            raise CheckpointError(
                f"'{folder}': its part '{path.name}' is of normalizer '{normalizer}', the mixture of "
                f"'{header.normalizer}'.",
                mend=COPY_AGAIN,
            )
    return found
