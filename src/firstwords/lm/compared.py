"""With which corpora the text of a language model was compared before it was learned: ``compared.toml``.

    lines = 2                  of the text stood in dev or test
    leaks = "drop"             what became of them: refuse (there were none), drop (left out), allow (KEPT)
    [[corpora]]                none: the text was compared with nothing
    name = "corpus"
    utterances = 300           of dev and test, with a transcript
    fingerprint = "91ab..."    of what they say

A folder without the file was written by an earlier version, or imported: then nothing is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt

from firstwords.config import Config, dump_config, read_config
from firstwords.data.manifest import Corpus
from firstwords.data.rules import is_evaluation
from firstwords.errors import FirstwordsError
from firstwords.files import write_atomically

COMPARED = "compared.toml"


class ComparedCorpus(Config):
    """A corpus whose dev and test the text was looked through for."""

    name: str
    utterances: NonNegativeInt
    fingerprint: str


class Compared(Config):
    """``compared.toml``."""

    format: Literal[1] = 1
    lines: NonNegativeInt = 0
    leaks: Literal["refuse", "drop", "allow"] = "refuse"
    corpora: tuple[ComparedCorpus, ...] = ()


def compared_with(
    corpora: Iterable[Corpus], lines: int, leaks: Literal["refuse", "drop", "allow"]
) -> Compared:
    """Corpora (``ngram_text.measured_corpora``), how many lines stood in them, and what became of these."""
    found: list[ComparedCorpus] = []
    for corpus in corpora:
        said = [u.text for u in corpus.utterances if u.text is not None and is_evaluation(u.split)]
        mark = hashlib.sha256("\n".join(sorted(said)).encode(errors="surrogatepass")).hexdigest()[:16]
        found.append(
            ComparedCorpus(name=corpus.folder.resolve().name, utterances=len(said), fingerprint=mark)
        )
    return Compared(lines=lines, leaks=leaks, corpora=tuple(found))


def write_compared(folder: Path, compared: Compared) -> None:
    """Into a folder that is being made."""
    write_atomically(folder / COMPARED, dump_config(compared))


def comparison_words(folder: Path) -> str:
    """What the folder of a language model remembers, in a sentence."""
    try:
        known = read_config(folder / COMPARED, Compared, name=COMPARED) if _is_there(folder) else None
    except FirstwordsError as error:
        return f"With which dev and test its text was compared cannot be read: {error.what}"
    if known is None:
        return "With which dev and test its text was compared is not written down."
    if not known.corpora:
        return "Its text was compared with no dev or test."
    names = ", ".join(f"{c.name} ({c.utterances:,} utterances)" for c in known.corpora)
    kept = {"refuse": "", "drop": ", left out", "allow": ", KEPT"}[known.leaks] if known.lines else ""
    return f"Its text was compared with dev and test of {names}: {known.lines:,} lines stood there{kept}."


def _is_there(folder: Path) -> bool:
    return (folder / COMPARED).is_file()
