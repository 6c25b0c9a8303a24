"""Kaldi data directories: wav.scp, text, and if given segments, utt2spk or spk2utt, utt2lang, utt2gender.

    wav.scp   rec1 audio/rec1.wav         segments  utt1 rec1 0.50 3.20
    text      utt1 habari ya asubuhi      utt2spk   utt1 amina

A wav.scp entry that is a command ('sph2pipe ... |') is refused: importing data must never run programs of
the data's choosing. A relative path is looked for below the directory and below each of the three folders
above it, since Kaldi resolves it from wherever a recipe was started.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firstwords.data.corpora.imported import Collector, Found, Imported, Options
from firstwords.data.corpora.source import Source, existing, read_text
from firstwords.data.split import split_in_name
from firstwords.errors import CorpusError

_PIPE = (
    "is a command ('... |'), and commands from data are never run: "
    "write the recordings to files and name those in wav.scp"
)


@dataclass(frozen=True)
class _Segment:
    recording: str
    start: float
    end: float | None
    where: str


def _folders(source: Source) -> list[Path]:
    files = [source.path.parent / "wav.scp"] if source.is_file else source.files
    found = [p.parent for p in files if p.name == "wav.scp" and p.is_file()]
    # data/train/split4/1: parts of a directory that is itself there
    return [f for f in found if not any(above in f.parents for above in found)]


def detect(source: Source) -> str | None:
    """Folders that hold wav.scp."""
    if source.is_file and source.path.name != "wav.scp":
        return None
    folders = _folders(source)
    names = ", ".join(source.named(f) if f != source.root else f.name for f in folders[:5])
    return f"Kaldi data director{'ies' if len(folders) > 1 else 'y'} ({names})" if folders else None


def read(path: Path, options: Options) -> Imported:
    """Every data directory below the source -> utterances; with several, their names say the split."""
    source = Source.of(path)
    collector = Collector(source, options)
    folders = _folders(source)
    for folder in folders:
        _read_folder(folder, source, collector, folder.name if len(folders) > 1 else None)
    return collector.finish()


def _read_folder(folder: Path, source: Source, collector: Collector, subset: str | None) -> None:
    refused = len(collector.skipped)
    recordings = _recordings(folder, source, collector)
    broken = {s.where.rsplit(" ", 1)[-1] for s in collector.skipped[refused:]}
    texts = _table(folder / "text", collector)
    speakers = _speakers(folder, collector)
    languages, genders = (_table(folder / name, collector) for name in ("utt2lang", "utt2gender"))
    segments = _segments(folder, source, collector)
    if segments is None:
        segments = {name: _Segment(name, 0.0, None, f"{name} of wav.scp") for name in recordings}
    for name, segment in segments.items():
        where = f"{segment.where} ({source.named(folder)})" if folder != source.root else segment.where
        if segment.recording not in recordings:
            if segment.recording not in broken:
                collector.skip(where, f"recording '{segment.recording}' is not in wav.scp")
            else:
                collector.skip(where, f"its recording '{segment.recording}' was left out")
            continue
        if texts and name not in texts:
            collector.skip(where, f"utterance '{name}' has no line in text")
            continue
        collector.add(
            Found(
                where=where,
                audio=recordings[segment.recording],
                text=texts[name] if texts else None,
                start=segment.start,
                end=segment.end,
                id=name,
                speaker=speakers.get(name),
                language=languages.get(name),
                split=(split_in_name(subset) or subset) if subset else None,
                labels={"gender": genders[name]} if name in genders else {},
            )
        )
    for name in texts:
        if name not in segments:
            collector.skip(f"{name} of text", "no such utterance in segments or wav.scp")
    if not texts:
        collector.note(f"'{source.named(folder)}' has no text: its utterances are without transcripts.")


def _recordings(folder: Path, source: Source, collector: Collector) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, rest in _table(folder / "wav.scp", collector).items():
        where = f"wav.scp entry {name}"
        if rest.endswith("|") or rest.startswith("|"):
            collector.skip(where, _PIPE)
            continue
        if rest == "-" or (":" in rest and ".ark" in rest):
            collector.skip(where, f"'{rest}' is no audio file but a Kaldi archive or standard input")
            continue
        try:
            found[name] = _audio(rest, folder, source)
        except CorpusError as error:
            collector.skip(where, error)
    return found


def _audio(reference: str, folder: Path, source: Source) -> Path:
    for base in (folder, *folder.parents[:3]):
        path = existing(base / reference)
        if path is not None:
            return path
    return source.find_audio(reference, folder)


def _segments(folder: Path, source: Source, collector: Collector) -> dict[str, _Segment] | None:
    if not (folder / "segments").is_file():
        return None
    found: dict[str, _Segment] = {}
    for name, rest in _table(folder / "segments", collector).items():
        where = f"{name} of segments"
        parts = rest.split()
        try:
            recording, start, end = parts[0], float(parts[1]), float(parts[2])
        except (ValueError, IndexError):
            collector.skip(where, f"'{rest}' does not read: recording start end")
            continue
        if len(parts) > 3:
            collector.skip(where, f"takes channel '{parts[3]}' of a recording: split the channels first")
            continue
        # an end of -1 means the end of the recording
        found[name] = _Segment(recording, start, None if end < 0 else end, where)
    return found


def _speakers(folder: Path, collector: Collector) -> dict[str, str]:
    if (folder / "utt2spk").is_file():
        return _table(folder / "utt2spk", collector)
    spoken = _table(folder / "spk2utt", collector)
    return {utterance: speaker for speaker, names in spoken.items() for utterance in names.split()}


def _table(path: Path, collector: Collector) -> dict[str, str]:
    """Lines 'key rest' -> mapping; a missing file is an empty one, a key that stands twice is skipped."""
    if not path.is_file():
        return {}
    lines = read_text(path, lenient=True).split("\n")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        key, _, rest = line.strip().partition("\t" if "\t" in line.split(" ", 1)[0] else " ")
        if key in found:
            collector.skip(f"line {number} of {path.name}", f"'{key}' stands twice")
        elif key:
            found[key] = rest.strip()
    return found
