"""From a source of any layout to a corpus folder: manifest.jsonl and import.json.

The recordings stay where they are and are named by their path; ``copy`` puts copies below CORPUS/audio, so
that the folder can be moved as a whole, ``channels`` the channels of recordings with a speaker in each.
Nothing in the source is ever written to.

A folder that is not empty is refused, unless an import from the same source made it: then the manifest is
replaced in one step (a reader sees the old or the new one, never half). An old quarantine.jsonl belongs to
the old manifest and is kept aside as quarantine.previous.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from firstwords import __version__
from firstwords.data.continued_split import continue_split
from firstwords.data.corpora import LAYOUTS, detect_layout, layout_named
from firstwords.data.corpora.copies import choose_channels, copied, copy_places, whole_copy
from firstwords.data.corpora.imported import Options, Skipped
from firstwords.data.corpora.source import IMPORT_RECORD, Source
from firstwords.data.decisions import WRITTEN, by_hand, start_anew
from firstwords.data.manifest import (
    MANIFEST,
    QUARANTINE,
    Corpus,
    Utterance,
    load_corpus,
    with_splits,
    write_manifest,
)
from firstwords.data.split import DEV, TEST, TRAIN, Rule, SplitResult, check_shares, split_corpus
from firstwords.errors import CorpusError, ManifestError, WriteError, quoted
from firstwords.files import WRITING, claimed, staged, write_atomically

FORMAT = 1
_KNOWN = (TRAIN, DEV, TEST)
_FLAGS = {"tiers": "tier", "columns": "column", "channels": "channel"}  # named otherwise in import.json
_NOT_OURS = (None, "source", "none")  # rules of splits that no import made


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How an import is to be made; the shares are of the whole duration.

    Args:
        layout: a name of ``LAYOUTS`` or 'auto'.
        copy: copy the recordings into the corpus folder.
        channels: speaker or tier -> the channel that is theirs in recordings with several.
        resplit: make train, dev and test anew although the source has splits.
        move_texts: put dev and test utterances whose text stands in train into train.
    """

    layout: str = "auto"
    options: Options = field(default_factory=Options)
    dev: float = 0.1
    test: float = 0.1
    seed: int = 0
    copy: bool = False
    channels: Mapping[str, int] = field(default_factory=dict[str, int])
    resplit: bool = False
    move_texts: bool = False


@dataclass(frozen=True)
class ImportReport:
    """The corpus as written, how it was understood, what was left out, and what the user should know."""

    corpus: Corpus
    layout: str
    found: str
    rule: Rule
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def import_corpus(source: Path, target: Path, plan: Plan = Plan()) -> ImportReport:
    """Source of any layout -> corpus folder ``target``."""
    check_shares(plan.dev, plan.test)
    if plan.layout == "auto":
        detected = detect_layout(source)
        name, found = detected.name, detected.found
    else:
        layout = layout_named(plan.layout)
        name, found = plan.layout, layout.detect(Source.of(source)) or f"{layout.title}, as you said"
    with claimed(target):
        _check_target(source, target)
        imported = LAYOUTS[name].read(source, plan.options)
        moved = _check_moved(source, target, imported.utterances)
        before = _record_of(target) or {}
        continued = _continued(imported.utterances, source, target, plan)
        split = continued or split_corpus(
            imported.utterances,
            dev=plan.dev,
            test=plan.test,
            seed=plan.seed,
            move_texts=plan.move_texts,
            resplit=plan.resplit,
        )
        utterances = with_splits(imported.utterances, split.splits)
        channels, told = choose_channels(utterances, plan.channels) if plan.channels else ({}, [])
        notes = [*moved, *_otherwise(before, plan), *imported.notes, *split.notes, *told]
        if continued is None and before.get("split_rule") not in _NOT_OURS:
            notes.append(
                "The split is not that of the import before: a model trained then may have heard what is dev "
                "or test now, and would look better on it than it is."
            )
        record: dict[str, Any] = {
            "format": FORMAT,
            "source": source.expanduser().absolute().as_posix(),
            "layout": name,
            "found": found,
            "options": _options(plan),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "firstwords": __version__,
            "split_rule": split.rule,
            "counts": counts(utterances),
            "skipped": [{"where": s.where, "reason": s.reason} for s in imported.skipped],
            "repaired": [{"where": s.where, "reason": s.reason} for s in imported.repaired],
        }
        try:
            _write(target, source, plan, utterances, channels, record, notes)
        except WriteError as error:
            raise CorpusError(
                f"'{target}': the corpus cannot be written there: {error.what}",
                mend="Name another folder with --to, or check the rights and the free space there.",
            ) from None
        return ImportReport(load_corpus(target), name, found, split.rule, imported.skipped, tuple(notes))


def _otherwise(before: Mapping[str, Any], plan: Plan) -> list[str]:
    """What to tell of options that the import before had, and this one has not."""
    options = before.get("options")
    if not isinstance(options, dict):
        return []
    now = _as_typed(_options(plan))
    gone = [option for option in _as_typed(cast("dict[str, Any]", options)) if option not in now]
    return [f"The import before had other options: {' '.join(gone)}."] if gone else []


def _as_typed(options: Mapping[str, Any]) -> list[str]:
    """Options as import.json has them -> as they stand on a command line."""
    typed: list[str] = []
    for name, value in options.items():
        if name == "resplit":  # was asked for once
            continue
        flag = f"--{_FLAGS.get(name, name)}".replace("_", "-")
        match value:
            case dict():
                pairs = cast("dict[str, Any]", value).items()
                typed += [f"{flag} {quoted(f'{key}={inner}')}" for key, inner in pairs]
            case list():
                typed += [f"{flag} {quoted(inner)}" for inner in cast("list[Any]", value)]
            case bool():
                typed += [flag] * value
            case None:
                pass
            case _:
                typed.append(f"{flag} {quoted(value)}")
    return typed


def _continued(utterances: Sequence[Utterance], source: Path, target: Path, plan: Plan) -> SplitResult | None:
    """The split of the import before, if there was one of the same wishes and the source has none."""
    record = _record_of(target)
    if record is None or plan.resplit or any(u.split for u in utterances):
        return None
    options, rule = record.get("options"), record.get("split_rule")
    same = isinstance(options, dict) and all(
        cast("dict[str, Any]", options).get(name) == getattr(plan, name) for name in ("dev", "test", "seed")
    )
    if not same or rule in _NOT_OURS:
        return None
    try:
        before = load_corpus(target).utterances
    except CorpusError:
        return None
    root, there = Source.of(source).root, Path(str(record["source"]))
    there = there.parent if source.is_file() else there
    places = copy_places((u.audio for u in utterances), root, target)
    origins = {place: audio for audio, place in places.items()}

    def now(audio: Path) -> Path:
        """Where a recording of then lies in the source of now."""
        audio = origins.get(whole_copy(audio), audio)
        return root / audio.relative_to(there) if audio.is_relative_to(there) else audio

    before = [replace(u, audio=now(u.audio)) for u in before]
    return continue_split(utterances, before, rule=cast("Rule", rule), move_texts=plan.move_texts)


def counts(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Utterances, hours and speakers, of the whole and of each split; languages with utterances."""
    present = dict.fromkeys(u.split or "" for u in utterances)
    names = sorted(present, key=lambda name: _KNOWN.index(name) if name in _KNOWN else len(_KNOWN))
    languages: dict[str, int] = {}
    for utterance in utterances:
        languages[utterance.language or ""] = languages.get(utterance.language or "", 0) + 1
    return {
        **_sizes(utterances),
        "languages": languages,
        "splits": {name: _sizes([u for u in utterances if (u.split or "") == name]) for name in names},
    }


def _sizes(utterances: Sequence[Utterance]) -> dict[str, Any]:
    return {
        "utterances": len(utterances),
        "hours": round(sum(u.duration for u in utterances) / 3600, 6),
        "speakers": len({u.speaker for u in utterances if u.speaker}),
        "recordings": len({u.audio for u in utterances}),
    }


def _options(plan: Plan) -> dict[str, Any]:
    options = plan.options
    return {
        "tiers": list(options.tiers),
        "language": options.language,
        "drop_empty": options.drop_empty,
        "speakers": options.speakers,
        "columns": dict(options.columns),
        "remove_marks": list(options.remove_marks),
        "dev": plan.dev,
        "test": plan.test,
        "seed": plan.seed,
        "copy": plan.copy,
        "channels": dict(plan.channels),
        "resplit": plan.resplit,
        "move_texts": plan.move_texts,
    }


def _check_target(source: Path, target: Path) -> None:
    """Refuse a target that holds anything but an import of the same source."""
    here = source.expanduser().absolute()
    if target.absolute().resolve() == here.resolve():
        raise CorpusError(
            f"'{target}' is the source itself, and originals are never changed.",
            mend="Name another folder, for example --to corpus",
        )
    if target.is_file():
        raise CorpusError(f"'{target}' is a file.", mend="Name a folder for the corpus.")
    if not target.is_dir() or all(p.suffix == WRITING for p in target.iterdir()):
        return
    before = _record_of(target)
    if before is None:
        names = ", ".join(sorted(p.name for p in target.iterdir())[:6])
        raise CorpusError(
            f"'{target}' is not empty and was not made by 'firstwords import' (it holds {names}).",
            mend="Name another folder, or empty this one.",
        )
    if (there := Path(str(before["source"]))).resolve() != here.resolve() and there.exists():
        raise CorpusError(
            f"'{target}' was imported from '{there}', not from '{here}'.",
            mend="Name another folder for this source, or delete the old corpus.",
        )


def _check_moved(source: Path, target: Path, utterances: Sequence[Utterance]) -> list[str]:
    """Where the source of the import before is gone, this one must be the same at another place; a note."""
    before, here = _record_of(target), source.expanduser().absolute()
    if before is None or (there := Path(str(before["source"]))).resolve() == here.resolve():
        return []
    try:
        known = {u.id for u in load_corpus(target).utterances}
    except CorpusError:
        known = set[str]()
    same = len(known & {u.id for u in utterances})
    if 2 * same < len(known) or not known:
        raise CorpusError(
            f"'{target}' was imported from '{there}', which is gone, and '{here}' is not the same at another "
            f"place: it has {same} of the {len(known)} utterances.",
            mend="Name another folder for this source, or delete the old corpus.",
        )
    return [f"The source was '{there}' before and has moved: {same} of {len(known)} utterances are the same."]


def _record_of(target: Path) -> Mapping[str, Any] | None:
    try:
        record = json.loads((target / IMPORT_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return cast("Mapping[str, Any]", record) if isinstance(record, dict) and "source" in record else None


def _write(
    target: Path,
    source: Path,
    plan: Plan,
    utterances: Sequence[Utterance],
    channels: Mapping[str, int],
    record: dict[str, Any],
    notes: list[str],
) -> None:
    if plan.copy or channels:
        if not (target / IMPORT_RECORD).is_file():
            # an interrupted copy must be known as ours when the import is started again
            _write_record(target, {"format": FORMAT, "source": record["source"], "finished": False})
        root = Source.of(source).root
        utterances = copied(utterances, root, target, channels, whole=plan.copy)
    old = target / QUARANTINE
    kept_lines, lost_lines = _decided_before(target, utterances)
    gone = () if kept_lines else (QUARANTINE,)
    # A kill must not look as if a person had deleted lines: what the check wrote is forgotten first.
    with staged(target, last=(WRITTEN.as_posix(), QUARANTINE, IMPORT_RECORD), gone=gone) as new:
        write_manifest(new / MANIFEST, utterances, folder=target)
        if kept_lines:
            start_anew(new, kept_lines)
            notes.append(f"{len(kept_lines)} lines that somebody wrote into {QUARANTINE} stay there.")
        if lost_lines:
            notes.append(
                f"{len(lost_lines)} lines that somebody wrote into {QUARANTINE} name utterances that are no "
                f"longer there, such as '{lost_lines[0]}': where only their times were corrected, write them "
                "again with the new ids."
            )
        if old.is_file():
            kept = QUARANTINE.replace(".jsonl", ".previous.jsonl")
            write_atomically(new / kept, old.read_bytes())
            notes.append(f"The old {QUARANTINE} is now {kept}: run 'firstwords check' again.")
        _write_record(new, record | {"notes": notes, "finished": True})


def _decided_before(target: Path, utterances: Sequence[Utterance]) -> tuple[dict[str, str], list[str]]:
    """What somebody put aside by hand and is still there; ids of what is not."""
    try:
        lines = by_hand(target)
    except ManifestError:  # the file is kept aside as it is
        return {}, []
    there = {u.id for u in utterances}
    return {name: reason for name, reason in lines.items() if name in there}, sorted(lines.keys() - there)


def _write_record(target: Path, record: Mapping[str, Any]) -> None:
    # where and reason may quote bytes that are no text: ASCII escapes hold them all
    write_atomically(target / IMPORT_RECORD, json.dumps(record, indent=1) + "\n")
