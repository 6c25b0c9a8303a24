"""The table of layouts: how speech and its transcripts may lie on a disk.

A new corpus is one file in this folder (``detect`` and ``read``) and its line here. ``covers`` names layouts
whose signs also stand in this one: a Common Voice folder holds tables, a Kaldi directory text files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firstwords.data.corpora import (
    audacity,
    audiofolder,
    common_voice,
    elan,
    fleurs,
    folder,
    kaldi,
    lhotse,
    librispeech,
    manifest_lines,
    nemo,
    subtitles,
    table,
    textgrid,
    toolbox,
)
from firstwords.data.corpora.imported import Imported, Options, Skipped
from firstwords.data.corpora.source import ARCHIVE_SUFFIXES, Source
from firstwords.errors import CorpusError, UsageError

__all__ = ["LAYOUTS", "Detected", "Imported", "Layout", "Options", "Skipped", "detect_layout", "layout_named"]


@dataclass(frozen=True)
class Layout:
    """``detect`` gives the sentence of what was found, or None; ``read`` gives the utterances."""

    title: str
    detect: Callable[[Source], str | None]
    read: Callable[[Path, Options], Imported]
    covers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Detected:
    """The layout's name and what was found of it."""

    name: str
    found: str


_TEXTS = frozenset({"folder"})
_TABLES = frozenset({"table"})

LAYOUTS: dict[str, Layout] = {
    "common_voice": Layout("Mozilla Common Voice", common_voice.detect, common_voice.read, _TABLES | _TEXTS),
    "fleurs": Layout("FLEURS", fleurs.detect, fleurs.read, _TABLES),
    "librispeech": Layout("LibriSpeech", librispeech.detect, librispeech.read, _TEXTS),
    "kaldi": Layout("Kaldi data directory", kaldi.detect, kaldi.read, _TEXTS),
    "audiofolder": Layout("Hugging Face audiofolder", audiofolder.detect, audiofolder.read, _TABLES),
    "lhotse": Layout("Lhotse cuts, or recordings and supervisions", lhotse.detect, lhotse.read),
    "manifest": Layout("firstwords manifest", manifest_lines.detect, manifest_lines.read, _TEXTS),
    "nemo": Layout("NeMo manifest", nemo.detect, nemo.read, _TEXTS),
    "elan": Layout("ELAN annotations", elan.detect, elan.read),
    "textgrid": Layout("Praat TextGrids", textgrid.detect, textgrid.read),
    "subtitles": Layout("SRT or WebVTT subtitles", subtitles.detect, subtitles.read),
    "audacity": Layout("Audacity label tracks", audacity.detect, audacity.read),
    "toolbox": Layout("Toolbox (standard format)", toolbox.detect, toolbox.read),
    "table": Layout("CSV or TSV", table.detect, table.read),
    "folder": Layout("recordings with text files of the same names", folder.detect, folder.read),
}


def layout_named(name: str) -> Layout:
    """'kaldi' -> its layout; an unknown name lists the known ones."""
    if name not in LAYOUTS:
        raise UsageError(f"--layout {name}: no such layout.", mend=f"Known: auto, {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def detect_layout(path: Path) -> Detected:
    """The one layout that a source has. Several or none is an error that lists what was found."""
    source = Source.of(path)
    found = {name: said for name, layout in LAYOUTS.items() if (said := layout.detect(source))}
    covered = {inner for name in found for inner in LAYOUTS[name].covers}
    left = [Detected(name, said) for name, said in found.items() if name not in covered]
    match left:
        case [only]:
            return only
        case []:
            if said := table.detect_lone(source):
                return Detected("table", said)
            raise _unknown(source)
        case _:
            lines = "\n".join(f"    --layout {d.name:<13} {d.found}" for d in left)
            raise CorpusError(
                f"'{path}' could be several things, and only you know which is meant:\n{lines}",
                mend=f"Choose one of them, for example: --layout {left[0].name}",
            )


def _unknown(source: Source) -> CorpusError:
    here = f"'{source.path}' holds {source.suffix_counts()}; no layout was recognised."
    if any(p.suffix.lower() in ARCHIVE_SUFFIXES for p in source.files) and (
        source.is_file or not source.audio
    ):
        return CorpusError(here, mend="Unpack the archive first, then import the folder.")
    if source.with_suffix(".parquet"):
        return CorpusError(
            here,
            mend="Parquet holds the audio inside: save it as an audiofolder (files and metadata.csv) first.",
        )
    if source.with_suffix(".xlsx", ".xls", ".ods"):
        return CorpusError(here, mend="Save the sheet as 'CSV UTF-8', with the columns file and text.")
    known = "; ".join(f"{layout.title} ({name})" for name, layout in LAYOUTS.items())
    if source.audio and not source.is_file:
        return CorpusError(
            here,
            mend="Put a text file beside each recording (001.wav, 001.txt), or a table with the columns "
            f"file and text. Known layouts: {known}.",
        )
    if source.audio:
        return CorpusError(here, mend="Give the folder in which recordings and transcripts lie.")
    return CorpusError(here, mend=f"Known layouts: {known}.")
