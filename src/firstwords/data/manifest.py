"""Utterances and the corpus folder that holds them.

A corpus is one folder: ``manifest.jsonl`` (one JSON object a line, audio paths relative to the file),
``quarantine.jsonl`` (ids with reasons, written by 'firstwords check') and ``import.json`` (where it came
from). Times are seconds. Originals are never edited.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from firstwords.errors import CorpusError, ManifestError, quoted
from firstwords.files import write_atomically
from firstwords.folders import kind_of_folder

MANIFEST = "manifest.jsonl"
QUARANTINE = "quarantine.jsonl"
_TEXT_FIELDS = ("text", "language", "speaker", "split")
FIELDS = ("id", "audio", "start", "duration", *_TEXT_FIELDS)


def _no_labels() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A stretch of one audio file and what was said in it; times in seconds, ``audio`` absolute."""

    id: str
    audio: Path
    duration: float
    start: float = 0.0
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    split: str | None = None
    labels: Mapping[str, str] = field(default_factory=_no_labels)


@dataclass(frozen=True)
class Corpus:
    """All utterances of a folder, those the check put aside (id -> reason), and lines that are no utterance.

    ``broken`` (line number -> what is wrong) is left out of everything, and counted by all who use it.
    """

    folder: Path
    utterances: tuple[Utterance, ...]
    quarantine: Mapping[str, str]
    broken: Mapping[int, str] = field(default_factory=dict[int, str])

    @property
    def broken_note(self) -> str:
        """One sentence about the broken lines; empty where there are none."""
        if not self.broken:
            return ""
        first = self.broken[min(self.broken)]
        count = len(self.broken)
        return f"{count} line{'s' if count > 1 else ''} of {MANIFEST} left out as no utterance: {first}"

    @property
    def usable(self) -> tuple[Utterance, ...]:
        return tuple(u for u in self.utterances if u.id not in self.quarantine)

    def split(self, name: str) -> tuple[Utterance, ...]:
        """Usable utterances of one split ('train', 'dev', 'test', ...)."""
        return tuple(u for u in self.usable if u.split == name)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(u.split for u in self.utterances if u.split is not None))


def parse_utterance(record: Mapping[str, Any], *, folder: Path, where: str) -> Utterance:
    """One JSON object -> Utterance; fields other than ours become labels."""
    name = record.get("id")
    shown = f"utterance '{name}' ({where})" if name else where
    for key in ("id", "audio"):
        if not isinstance(record.get(key), str) or not record[key]:
            raise ManifestError(
                f"{shown}: '{key}' is missing or not text.", mend=f'Add "{key}": "..." to the line.'
            )
    numbers: dict[str, float] = {}
    for key, default in (("start", 0.0), ("duration", None)):
        value = record.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
            raise ManifestError(
                f"{shown}: '{key}' must be a number of seconds, got {value!r}.", mend="Mend the line."
            )
        numbers[key] = float(value)
    words: dict[str, str | None] = {}
    for key in _TEXT_FIELDS:
        value = record.get(key)
        if value is not None and not isinstance(value, str):
            raise ManifestError(f"{shown}: '{key}' must be text, got {value!r}.", mend="Put it in quotes.")
        words[key] = value
    extra = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in record.items() if k not in FIELDS}
    audio = Path(str(record["audio"]))
    return Utterance(
        id=str(name),
        audio=audio if audio.is_absolute() else folder / audio,
        start=numbers["start"],
        duration=numbers["duration"],
        text=words["text"],
        language=words["language"],
        speaker=words["speaker"],
        split=words["split"],
        labels=extra,
    )


def read_manifest(path: Path) -> Iterator[Utterance]:
    """Lines of a manifest -> utterances; lines that are none end in one error that names them all.

    ``load_corpus`` and an import of the manifest leave them out instead, and count them.
    """
    utterances, faults = _read_lines(path)
    yield from utterances
    if faults:
        raise _joined(path, faults)


def _read_lines(path: Path) -> tuple[list[Utterance], dict[int, ManifestError]]:
    """A manifest -> its utterances, and line number -> fault of the other lines."""
    try:
        # not splitlines(): a transcript may hold U+2028 or U+0085, which JSON leaves as they are
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise ManifestError(
            f"'{path}' does not exist.", mend="Make a corpus with 'firstwords import'."
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"'{path}' is not UTF-8: {error}.", mend="Save it as UTF-8.") from None
    seen: dict[str, int] = {}
    utterances: list[Utterance] = []
    faults: dict[int, ManifestError] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            utterance = _parse_line(line, path, number)
            if utterance.id in seen:
                raise ManifestError(
                    f"utterance '{utterance.id}' stands twice in {path.name}: "
                    f"lines {seen[utterance.id]} and {number}.",
                    mend="Give each utterance an id of its own.",
                )
        except ManifestError as error:
            faults[number] = error
            continue
        seen[utterance.id] = number
        utterances.append(utterance)
    return utterances, faults


def _parse_line(line: str, path: Path, number: int) -> Utterance:
    where = f"line {number} of {path.name}"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where} is not JSON: {error}.", mend="Mend or remove the line.") from None
    if not isinstance(record, dict):
        raise ManifestError(f"{where} is not a JSON object.", mend="Mend or remove the line.")
    return parse_utterance(cast("dict[str, Any]", record), folder=path.parent, where=where)


def _joined(path: Path, faults: Mapping[int, ManifestError]) -> ManifestError:
    """Line -> what is wrong with it, as one error: the first in full, the others by their numbers."""
    first, *others = faults
    what = faults[first].what
    if others:
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        shown = ", ".join(map(str, others[:10])) + more
        what += f" Lines with a fault of their own: {shown} ({len(faults)} in all)."
    return ManifestError(
        what,
        mend=f"{faults[first].mend} 'firstwords import {quoted(path)} --to CORPUS' leaves such lines out and "
        "names each.",
    )


def to_record(utterance: Utterance, *, folder: Path) -> dict[str, Any]:
    """Utterance -> JSON object; audio below ``folder`` is written relative to it, with forward slashes."""
    audio, base = utterance.audio.absolute(), folder.absolute()
    inside = audio.is_relative_to(base)
    record: dict[str, Any] = {
        "id": utterance.id,
        "audio": (audio.relative_to(base) if inside else audio).as_posix(),
    }
    if utterance.start:
        record["start"] = round(utterance.start, 6)
    record["duration"] = round(utterance.duration, 6)
    for key in _TEXT_FIELDS:
        value = getattr(utterance, key)
        if value is not None:
            record[key] = value
    return record | dict(utterance.labels)


def write_manifest(path: Path, utterances: Iterable[Utterance], *, folder: Path | None = None) -> None:
    """Utterances -> JSONL, written aside and renamed, so a reader never sees half a file.

    Args:
        folder: where the file will lie, if not where it is written; audio is named relative to it.
    """
    home = path.parent if folder is None else folder
    lines = [json.dumps(to_record(u, folder=home), ensure_ascii=False) + "\n" for u in utterances]
    write_atomically(path, "".join(lines))


def load_corpus(folder: Path) -> Corpus:
    """Corpus folder (or the manifest inside it) -> Corpus; other lines than utterances are its ``broken``."""
    manifest = folder / MANIFEST if folder.is_dir() else folder
    if not manifest.is_file():
        if kind := kind_of_folder(folder):
            raise ManifestError(
                f"'{folder}' is {kind}, not a corpus.", mend="Give the folder that 'firstwords import' wrote."
            )
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else "nothing"
        raise ManifestError(
            f"'{folder}' is no corpus: {MANIFEST} is missing (found: {found or 'nothing'}).",
            mend=f"Run 'firstwords import {quoted(folder)} --to CORPUS' first.",
        )
    utterances, faults = _read_lines(manifest)
    if faults and not utterances:
        raise _joined(manifest, faults)
    broken = {number: fault.what for number, fault in faults.items()}
    return Corpus(manifest.parent, tuple(utterances), read_quarantine(manifest.parent), broken)


def require_recordings(corpus: Corpus) -> None:
    """CorpusError where not one recording is there: their folder has moved, a disk is not connected."""
    recordings = dict.fromkeys(u.audio for u in corpus.utterances)
    if recordings and not any(_is_there(audio) for audio in recordings):
        raise CorpusError(
            f"None of the {len(recordings)} recordings of '{corpus.folder}' is there, such as "
            f"'{next(iter(recordings))}'.",
            mend="Connect the disk they are on; or, if they have moved, import them from where they are now: "
            f"firstwords import SOURCE --to {quoted(corpus.folder)} goes on with the corpus as it was.",
        )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # nobody may look: whoever reads it says so
        return True


def read_quarantine(folder: Path) -> dict[str, str]:
    """Utterances put aside by the check: id -> reason."""
    path = folder / QUARANTINE
    if not path.is_file():
        return {}
    lines = path.read_bytes().split(b"\n")
    return dict(_put_aside(line, f"line {n} of '{path}'") for n, line in enumerate(lines, 1) if line.strip())


def _put_aside(line: bytes, where: str) -> tuple[str, str]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
        return str(record["id"]), str(record["reason"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ManifestError(
            f'{where} does not read {{"id": ..., "reason": ...}}: {error!r}.',
            mend="Mend or delete the line, or run 'firstwords check' to write the file anew.",
        ) from None


def write_quarantine(folder: Path, reasons: Mapping[str, str]) -> None:
    """id -> reason, one JSON object a line; delete a line to let the utterance back in."""
    lines = [json.dumps({"id": k, "reason": v}, ensure_ascii=False) + "\n" for k, v in reasons.items()]
    write_atomically(folder / QUARANTINE, "".join(lines))


def with_splits(utterances: Sequence[Utterance], splits: Mapping[str, str]) -> tuple[Utterance, ...]:
    """The same utterances with the split of each id set."""
    return tuple(replace(u, split=splits[u.id]) for u in utterances)
