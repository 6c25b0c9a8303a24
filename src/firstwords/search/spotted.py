"""Phrases to be spotted, with what their scores are where nobody says them: a file of ``firstwords phrases``.

kind = "spotted phrases"
model = "5e0c..."        fingerprint of the recogniser's weights
threshold = 3.1  ...
[[phrases]]
text = "kolanut"
mean = -23.4
deviation = 4.2
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, FiniteFloat

from firstwords.config import Config, dump_config, read_config
from firstwords.errors import CheckpointError, ConfigError, SearchError
from firstwords.files import write_atomically
from firstwords.search.phrase_rows import SPOTTED, read_phrases, spelled_phrases
from firstwords.search.spotting import Background, PhraseSpotter, PhraseTable
from firstwords.search.words import WordBoundaries
from firstwords.text.tokenizer import Tokenizer

_LOOKED_AT = 200  # bytes


class SpottedPhrase(Config):
    """A phrase as the recogniser would write it, and its scores where it is not said."""

    text: Annotated[str, Field(min_length=1)]
    mean: FiniteFloat
    deviation: Annotated[FiniteFloat, Field(gt=0)]


class SpottedFile(Config):
    """Phrases, decoys, and from which z on a phrase is taken as said."""

    format: Literal[1] = 1
    kind: Literal["spotted phrases"] = "spotted phrases"
    model: str
    threshold: FiniteFloat
    share: Annotated[FiniteFloat, Field(ge=0)]  # of the mean z of the decoys
    false_alarms: Annotated[FiniteFloat, Field(ge=0)]  # allowed, as a share of the words said
    corpus: str = ""
    split: str = "dev"
    phrases: Annotated[tuple[SpottedPhrase, ...], Field(min_length=1)]
    decoys: tuple[SpottedPhrase, ...] = ()


def is_spotted_file(path: Path) -> bool:
    """Is this what ``write_spotted`` has written, and no list of phrases?"""
    try:
        with path.open("rb") as file:
            return SPOTTED.encode() in file.read(_LOOKED_AT)
    except OSError:
        return False  # whoever reads it as a list says so


def write_spotted(path: Path, spotted: SpottedFile) -> None:
    """Write the file whole, or leave what was there."""
    write_atomically(path, dump_config(spotted))


def read_spotted(path: Path) -> SpottedFile:
    """The file, checked; CheckpointError names what is wrong with it."""
    try:
        return read_config(path, SpottedFile, name=path.name)
    except ConfigError as error:
        raise CheckpointError(error.what, mend=f"Make '{path}' again with 'firstwords phrases'.") from None


def spotter_of(spotted: SpottedFile, tokenizer: Tokenizer) -> PhraseSpotter:
    """What looks for the phrases in the frames of a recogniser with these pieces."""
    listed = (*spotted.phrases, *spotted.decoys)
    spelled = [spelled_phrases({one.text: 1.0}, tokenizer)[0].tokens for one in listed]
    background = Background(
        np.array([one.mean for one in listed]), np.array([one.deviation for one in listed])
    )
    return PhraseSpotter(
        PhraseTable(spelled, WordBoundaries.of(tokenizer.pieces)),
        background,
        phrases=len(spotted.phrases),
        share=spotted.share,
        threshold=spotted.threshold,
        identity=hashlib.sha256(dump_config(spotted).encode(errors="surrogatepass")).hexdigest()[:16],
    )


def open_spotter(path: Path, tokenizer: Tokenizer, weights: str) -> PhraseSpotter:
    """A file for a recogniser with these pieces and this fingerprint of its weights, or SearchError."""
    spotted = read_spotted(path)
    if spotted.model != weights:
        raise SearchError(
            f"'{path}' was made for another model, or for another state of this one.",
            mend="Make it again: firstwords phrases MODEL PHRASES --corpus CORPUS --to FILE.",
        )
    return spotter_of(spotted, tokenizer)


def listed_phrases(path: Path, normalize: Callable[[str], str]) -> list[str]:
    """The phrases of a file of either kind, normalized."""
    if is_spotted_file(path):
        return [normalize(one.text) for one in read_spotted(path).phrases]
    return list(read_phrases(path, normalize))
