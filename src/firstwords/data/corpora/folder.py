"""A folder of recordings, each with its transcript in a text file of the same name.

    talks/amina/001.wav   talks/amina/001.txt        beside it, or
    corpus/wav/001.wav    corpus/txt/001.txt         elsewhere below the folder, if the name is unique

Speakers: with ``auto``, two or more folders that hold recordings are taken as speakers, and that is said;
``folder`` always takes the innermost folder, ``prefix`` what stands before the first '_' or '-' of the file
name, ``none`` nothing. Folders named train, dev or test are splits.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.source import Source, preferred, read_text, spelling
from firstwords.data.corpora.toolbox import is_standard_format
from firstwords.data.split import TRAIN, split_in_name
from firstwords.errors import CorpusError, quoted

_SUFFIXES = (".txt", ".lab")


class _Transcripts:
    """Text files by the name of the recording they belong to."""

    def __init__(self, source: Source) -> None:
        # 001.txt goes before 001.lab where both are there
        files = [p for p in source.tree if p.suffix.lower() in _SUFFIXES]
        self.files = sorted(files, key=lambda p: _SUFFIXES.index(p.suffix.lower()))
        self.beside = {(p.parent, spelling(p.stem)): p for p in reversed(self.files)}
        self.exact = {(p.parent, p.stem): p for p in reversed(self.files)}
        places = {(p.parent, p.stem) for p in source.audio}
        self.alike = Counter((folder, spelling(stem)) for folder, stem in places)
        self.by_stem: dict[str, list[Path]] = {}
        for path in self.files:
            self.by_stem.setdefault(spelling(path.stem), []).append(path)
        self.stems = Counter(spelling(p.stem) for p in source.audio)

    def of(self, audio: Path) -> Path | None:
        """001.txt or 001.wav.txt beside 001.wav; else the only 001.txt, if 001 is the only such recording."""
        for name in (audio.stem, audio.name):
            if (audio.parent, name) in self.exact:
                return self.exact[audio.parent, name]
        if self.alike[audio.parent, spelling(audio.stem)] > 1:  # x.wav and X.wav: whose is x.txt?
            return None
        for stem in (spelling(audio.stem), spelling(audio.name)):
            if (audio.parent, stem) in self.beside:
                return self.beside[audio.parent, stem]
            paths = self.by_stem.get(stem, ())
            if len(paths) == 1 and self.stems[spelling(audio.stem)] == 1:
                return paths[0]
        return None


def is_label_track(text: str) -> bool:
    """Whether a text is an Audacity label track (times in front of most lines) and no transcript."""
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("\\")]
    timed = sum(re.match(r"^\d+([.,]\d+)?\t\d+([.,]\d+)?(\t|$)", line) is not None for line in lines)
    return 0 < len(lines) <= 2 * timed


def detect(source: Source) -> str | None:
    """Recordings with text files of the same names."""
    if source.is_file:
        return None
    transcripts = _Transcripts(source)
    pairs = [(audio, text) for audio in source.audio if (text := transcripts.of(audio)) is not None]
    if not pairs or all(_is_track(text) for _, text in pairs[:3]):
        return None
    return f"{len(pairs)} recordings with a text file of the same name (of {len(source.audio)} recordings)"


def _is_track(path: Path) -> bool:
    try:
        text = read_text(path)
    except CorpusError:
        return False
    return is_label_track(text) or is_standard_format(text)


def read(path: Path, options: Options) -> Imported:
    """Pairs of recording and text file -> utterances; whatever has no partner is listed."""
    source = Source.of(path)
    if source.is_file:
        raise CorpusError(
            f"'{path}' is a file, and this layout is a folder.",
            mend=f"firstwords import {quoted(source.root)}",
        )
    collector = Collector(source, options)
    forms: dict[tuple[Path, str], list[Path]] = {}
    for audio in source.audio:
        forms.setdefault((audio.parent, audio.stem), []).append(audio)
    transcripts = _Transcripts(source)
    used: set[Path] = set()
    folders = {p.parent for p in source.audio if transcripts.of(p) is not None}
    splits = _split_folders(source, folders)
    speakers = {f for f in folders if f != source.root and f not in splits}
    by_folder = options.speakers == "folder" or (options.speakers == "auto" and len(speakers) > 1)
    if by_folder and options.speakers == "auto":
        names = ", ".join(sorted(f.name for f in speakers)[:4])
        collector.note(
            f"The {len(speakers)} folders that hold recordings were taken as speakers ({names}, ...): "
            "--speakers none if they are not."
        )
    for audio in source.audio:
        best = preferred(forms[audio.parent, audio.stem])
        if audio != best:
            collector.skip(source.named(audio), f"'{best.name}' of the same name was taken instead")
            continue
        text_path = transcripts.of(audio)
        if text_path is None:
            collector.skip(source.named(audio), "no text file of the same name")
            continue
        used.add(text_path)
        if text_path.stem not in (audio.stem, audio.name):
            source.respelled.append((text_path.name, audio.name))
        try:
            text = read_text(text_path)
            if is_label_track(text):
                raise CorpusError(
                    f"'{text_path.name}' holds times, not a transcript: import with --layout audacity"
                )
            if is_standard_format(text):
                raise CorpusError(
                    f"'{text_path.name}' holds records with markers, not a transcript: import with "
                    "--layout toolbox"
                )
        except CorpusError as error:
            collector.skip(source.named(text_path), error)
            continue
        speaker = None
        if by_folder and audio.parent in speakers:
            speaker = audio.parent.name
        elif options.speakers == "prefix":
            speaker = re.split(r"[_\-]", audio.stem, maxsplit=1)[0]
        collector.add(
            Found(
                where=source.named(audio),
                audio=audio,
                text=text,
                speaker=speaker,
                split=_split_of(audio, source, splits),
            )
        )
    for text_path in transcripts.files:
        if text_path not in used and text_path.stem.casefold() not in ("readme", "license", "licence"):
            rival = transcripts.beside.get((text_path.parent, spelling(text_path.stem)))
            taken = f"'{rival.name}' was read instead" if rival is not None and rival in used else ""
            collector.skip(source.named(text_path), taken or "no recording of the same name")
    return collector.finish()


def _split_folders(source: Source, folders: set[Path]) -> dict[Path, str]:
    """Folders whose own name is a split's, if one of them is train."""
    named = {
        above: split
        for folder in folders
        for above in (folder, *folder.parents)
        if above != source.root
        and above.is_relative_to(source.root)
        and (split := split_in_name(above.name)) is not None
    }
    return named if TRAIN in named.values() else {}


def _split_of(audio: Path, source: Source, splits: dict[Path, str]) -> str | None:
    for above in audio.parents:
        if above in splits:
            return splits[above]
        if above == source.root:
            break
    return None
