"""What an importer gives back, and the one place where its findings meet the recordings themselves.

An importer only reads annotations and adds what it found to a ``Collector``; ``finish`` then looks at every
recording once (header only, several at a time), fits times to it, makes ids unique, and sorts out what
cannot be used with a reason each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from firstwords.audio.waveform import AudioInfo, probe
from firstwords.data.corpora.source import Source, recordings_in
from firstwords.data.manifest import FIELDS, Utterance
from firstwords.data.marks import parse_marks
from firstwords.errors import CorpusError, FirstwordsError, quoted

SpeakerRule = Literal["auto", "folder", "prefix", "none"]
# A header knows the length better than a rounded number in a table: differences below are rounding.
ROUNDING_SECONDS = 0.25
_WORKERS = 8
_SHORTEST = 0.001  # seconds; a manifest's numbers have six decimals, so less could become nothing


@dataclass(frozen=True, kw_only=True)
class Options:
    """Wishes of the user that importers heed.

    Args:
        tiers: names, patterns ('*_Transcription') or 'type:NAME' of ELAN and Praat tiers.
        language: BCP 47 tag of utterances for which the source names none.
        speakers: what names the speaker in a plain folder (``folder.py``).
        columns: field -> column of a table, where the header is not understood.
        remove_marks: brackets and words to take out of transcripts ('[]', 'xxx'; ``data/marks.py``).
        progress: called with (recordings looked at, of how many).
    """

    tiers: tuple[str, ...] = ()
    language: str | None = None
    drop_empty: bool = False
    speakers: SpeakerRule = "auto"
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    remove_marks: tuple[str, ...] = ()
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Skipped:
    """One thing left out: ``where`` names file and line, ``reason`` says why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Imported:
    """Utterances of a source (audio absolute), what was left out, and sentences the user should read.

    ``repaired`` names every recording whose header had to be mended, and how; the notes sum it up.
    """

    utterances: tuple[Utterance, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    repaired: tuple[Skipped, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """An utterance as annotated, before its recording was looked at; ``end`` None = to the end of it.

    ``id`` None: one is made from the file name and the times.
    """

    where: str
    audio: Path
    text: str | None
    start: float = 0.0
    end: float | None = None
    id: str | None = None
    speaker: str | None = None
    language: str | None = None
    split: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


class Collector:
    """Gathers findings, skips and notes of one import; ``finish`` turns them into ``Imported``."""

    def __init__(self, source: Source, options: Options) -> None:
        self.source = source
        self.options = options
        self.found: list[Found] = []
        self.skipped: list[Skipped] = []
        self.notes: list[str] = []

    def add(self, found: Found) -> None:
        self.found.append(found)

    def skip(self, where: str, reason: str | FirstwordsError) -> None:
        self.skipped.append(Skipped(where, reason if isinstance(reason, str) else _sentence(reason)))

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def finish(self, *, beside: str = "") -> Imported:
        """Look at the recordings and make the utterances; nothing usable at all is an error.

        Args:
            beside: name recordings that lie there without any transcript (where each is not named as a skip),
                and the format in which a draft would lie beside them as the others do.
        """
        self._remove_marks()
        wanted = [f for f in self.found if not (self.options.drop_empty and not (f.text or "").split())]
        if dropped := len(self.found) - len(wanted):
            self.note(f"{dropped} utterances without text were dropped (--drop-empty).")
        for path, reason in self.source.closed:
            self.skip(self.source.named(path), reason)
        infos = probe_all((f.audio for f in wanted), self.options.progress)
        utterances = self._utterances(wanted, infos)
        if not utterances:
            raise self._nothing()
        repaired = self._note_repairs(utterances, infos)
        empty = sum(1 for u in utterances if u.text == "")
        if empty:
            self.note(
                f"{empty} utterances have an empty text: training takes them as non-speech, but 'firstwords "
                "check' puts those aside without a label that says so (kind: non-speech); --drop-empty "
                "leaves all of them out."
            )
        if chosen := list(dict.fromkeys(self.source.chosen)):
            self.note(
                f"{len(chosen)} recordings lie there in several forms; one was taken of each (for example "
                f"'{chosen[0].name}')."
            )
        if respelled := list(dict.fromkeys(self.source.respelled)):
            written, real = respelled[0]
            self.note(
                f"{len(respelled)} recordings are named in the source with other capitals or accents stored "
                f"another way (NFC, NFD) than on the disk, and were matched (for example '{written}' with "
                f"'{real}')."
            )
        if by_name := self.source.found_by_name:
            self.note(
                f"{len(by_name)} recordings do not lie where the source says and were found by their "
                f"name (for example '{by_name[0]}')."
            )
        if beside:
            self._note_untranscribed(beside)
        return Imported(tuple(utterances), tuple(self.skipped), tuple(self.notes), tuple(repaired))

    def _note_untranscribed(self, draft: str) -> None:
        """Count the recordings of which no annotation says anything; with drafts they can be used, too."""
        used = {(f.audio.parent, f.audio.stem) for f in self.found}  # talk.wav and talk.mp4 are one
        if self.source.is_file:  # a table in a home folder: look where its recordings are, and no further
            there = recordings_in({f.audio.parent for f in self.found})
        else:
            there = list(self.source.audio)
        left = list({(p.parent, p.stem): p for p in there if (p.parent, p.stem) not in used}.values())
        if left:
            shown = ", ".join(f"'{self.source.named(p)}'" for p in left[:3])
            self.note(
                f"{len(left)} recordings lie there without a transcript and were left out ({shown}"
                f"{', ...' if len(left) > 3 else ''}). They are no waste: once there is a model, 'firstwords "
                f"transcribe MODEL {quoted(left[0])} --format {draft} --out {quoted(left[0].parent)}' "
                "writes a draft beside the recording, and to correct one takes less time than to transcribe."
            )

    def _remove_marks(self) -> None:
        """Take out of the texts what the user named, and say how much that was."""
        if not self.options.remove_marks:
            return
        marks = parse_marks(self.options.remove_marks)
        counts: Counter[str] = Counter()
        changed = emptied = 0
        for number, found in enumerate(self.found):
            text, marked = marks.removed(found.text or "")
            if marked:
                counts.update(marked)
                changed += 1
                emptied += not text.split()
                self.found[number] = replace(found, text=text)
        shown = ", ".join(f"'{' '.join(mark.split())}' ({n})" for mark, n in counts.most_common(3))
        self.note(
            f"{counts.total()} marks were taken out of {changed} transcripts (--remove-marks)"
            + (f": {shown}" if shown else "")
            + (f"; {emptied} of them hold nothing else." if emptied else ".")
        )

    def _utterances(self, wanted: list[Found], infos: Mapping[Path, AudioInfo | str]) -> list[Utterance]:
        taken: dict[str, str] = {}
        utterances: list[Utterance] = []
        overrun: list[float] = []
        for found in wanted:
            info = infos[found.audio]
            if isinstance(info, str):
                self.skip(found.where, info)
                continue
            span = _fit(found, info.duration)
            if isinstance(span, str):
                self.skip(found.where, span)
                continue
            start, duration, over = span
            if over > ROUNDING_SECONDS:
                overrun.append(over)
            name = "_".join((found.id or "").split())
            if name and name in taken:
                self.skip(found.where, f"id '{name}' stands twice (first: {taken[name]})")
                continue
            name = name or _free(self._made_id(found), taken)
            utterance = _make(found, name, start, duration, self.options.language)
            if fault := _unusable(utterance):
                self.skip(found.where, fault)
                continue
            taken[name] = found.where
            utterances.append(utterance)
        if overrun:
            self.note(
                f"{len(overrun)} utterances were said to end after their recording (by up to "
                f"{max(overrun):.2f} s) and were cut at its end."
            )
        return utterances

    def _made_id(self, found: Found) -> str:
        named = self.source.named(found.audio).removesuffix(found.audio.suffix)
        stem = named if found.audio.is_relative_to(self.source.root) else found.audio.stem
        name = "-".join("_".join(part.split()) for part in stem.split("/"))
        if found.start or found.end is not None:
            end = "end" if found.end is None else f"{round(found.end * 1000):07d}"
            name += f"-{round(found.start * 1000):07d}-{end}"
        return name

    def _nothing(self) -> CorpusError:
        if not self.skipped:
            texts = [p for p in self.source.files if p not in set(self.source.audio)]
            found = ", ".join(f"'{self.source.named(p)}'" for p in texts[:5])
            also = f" Beside recordings it has {found}{', ...' if len(texts) > 5 else ''}." if found else ""
            return CorpusError(
                " ".join([f"'{self.source.path}' holds nothing to import.{also}", *self.notes]),
                mend="Look into the source, or name another --layout.",
            )
        reasons = Counter(_shape(s.reason) for s in self.skipped)
        examples = {_shape(s.reason): s for s in reversed(self.skipped)}
        shown = [
            f"{n} x, for example {examples[shape].where}: {examples[shape].reason}"
            for shape, n in reasons.most_common(3)
        ]
        return CorpusError(
            f"'{self.source.path}' holds nothing that can be imported; {len(self.skipped)} were left out:\n  "
            + "\n  ".join(shown),
            mend="Mend the source, or name another --layout.",
        )

    def _note_repairs(
        self, utterances: list[Utterance], infos: Mapping[Path, AudioInfo | str]
    ) -> list[Skipped]:
        repairs: dict[str, list[str]] = {}
        repaired: list[Skipped] = []
        for audio in dict.fromkeys(u.audio for u in utterances):
            info = infos[audio]
            for repair in info.repairs if not isinstance(info, str) else ():
                repairs.setdefault(repair, []).append(audio.name)
                repaired.append(Skipped(self.source.named(audio), repair))
        for repair, names in repairs.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self.note(f"'{names[0]}'{more}: {repair.rstrip('.')}.")
        return repaired


def probe_all(
    paths: Iterable[Path], progress: Callable[[int, int], None] | None = None
) -> dict[Path, AudioInfo | str]:
    """Each recording once, several at a time -> what its header says, or why it cannot be read."""
    unique = list(dict.fromkeys(paths))
    infos: dict[Path, AudioInfo | str] = {}
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        try:
            for count, (path, info) in enumerate(zip(unique, pool.map(_probe, unique), strict=True), start=1):
                infos[path] = info
                if progress is not None:
                    progress(count, len(unique))
        finally:  # interrupted: the recordings still waiting are not looked at
            pool.shutdown(cancel_futures=True)
    return infos


def _probe(path: Path) -> AudioInfo | str:
    try:
        info = probe(path)
    except FirstwordsError as error:
        return _sentence(error)
    except OSError as error:
        return f"'{path.name}' cannot be read: {error.strerror or error}"
    except Exception as error:  # noqa: BLE001 - a damaged header leads anywhere; one file never ends an import
        return f"'{path.name}' cannot be read: {type(error).__name__}: {error}"
    return info if info.duration > 0 else f"'{path.name}' holds no sound (0 samples)"


def _fit(found: Found, length: float) -> tuple[float, float, float] | str:
    """Times of a finding within a recording -> (start, duration, seconds beyond its end), or why not."""
    start, end = found.start, length if found.end is None else found.end
    if not (0 <= start < float("inf") and 0 <= end < float("inf")):
        return f"times {start} to {end} s are no times"
    if found.end is not None and end <= start:
        return f"ends at {end:.3f} s, not after its start at {start:.3f} s"
    if start >= length:
        return f"starts at {start:.3f} s, but '{found.audio.name}' is only {length:.3f} s long"
    over = end - length
    if over > (end - start) / 2 and over > ROUNDING_SECONDS:
        return f"ends at {end:.3f} s, but '{found.audio.name}' is only {length:.3f} s long"
    if start == 0 and abs(over) <= ROUNDING_SECONDS:
        end = length
    duration = min(end, length) - start
    if duration < _SHORTEST:
        return f"lasts {duration:.6f} s, less than a millisecond"
    return start, duration, max(over, 0.0)


def _make(found: Found, name: str, start: float, duration: float, language: str | None) -> Utterance:
    labels = {(f"source_{k}" if k in FIELDS else k): v for k, v in found.labels.items() if v}
    return Utterance(
        id=name,
        audio=found.audio,
        start=start,
        duration=duration,
        text=None if found.text is None else " ".join(found.text.split()),
        speaker=(found.speaker or "").strip() or None,
        language=(found.language or "").strip() or language,
        split=(found.split or "").strip() or None,
        labels=labels,
    )


def _free(name: str, taken: Mapping[str, str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _unusable(utterance: Utterance) -> str:
    """Why the utterance cannot stand in a manifest, if so: letters lost, half characters, odd file names."""
    if "\ufffd" in (utterance.text or ""):
        return "its text holds U+FFFD, the sign for letters lost in decoding (not UTF-8?)"
    texts = {"id": utterance.id, "text": utterance.text, "speaker": utterance.speaker}
    texts |= {"audio path": str(utterance.audio), "language": utterance.language, "split": utterance.split}
    for key, value in (texts | dict(utterance.labels)).items():
        try:
            (key + (value or "")).encode("utf-8")
        except UnicodeEncodeError:
            return f"its {key!a} holds half a character (lone surrogate)"
    return ""


def _sentence(error: FirstwordsError) -> str:
    return " ".join(f"{error.what} {error.mend}".split())


def _shape(reason: str) -> str:
    """Reasons that differ only in names and numbers count as one."""
    return re.sub(r"'[^']*'|[\d.]+", "…", reason)
