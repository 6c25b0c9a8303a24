"""Which recordings 'firstwords transcribe' does, where the results go, and how they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from firstwords.audio.waveform import probe
from firstwords.data.manifest import Utterance
from firstwords.errors import AudioError, UsageError, WriteError
from firstwords.files import staged, write_atomically
from firstwords.folders import kind_of_folder
from firstwords.inference.formats import WRITERS
from firstwords.inference.journal import journal_path, recording_fingerprint
from firstwords.inference.made import Made, changed, made_in, note_made
from firstwords.inference.transcript import Transcript

# In folders only files that are named like recordings are taken; a file named on the command line always is.
SUFFIXES = frozenset(
    {".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".sph", ".nist", ".aif"}
    | {".aiff", ".aifc", ".au", ".snd", ".caf", ".voc", ".m4a", ".mp4", ".mov", ".aac", ".3gp", ".amr"}
    | {".webm", ".mka", ".mkv", ".wma"}
)
FORMATS = (*WRITERS, "eaf")
_PRINTABLE = ("txt", "json", "ctm")  # several recordings in one stream stay apart only in these


@dataclass(frozen=True)
class Job:
    """One recording; ``target`` is its results' path without suffix, None where they are printed."""

    audio: Path
    duration: float  # seconds, 0 where it could not be told
    target: Path | None

    @property
    def utterance(self) -> Utterance:
        return Utterance(id=str(self.audio), audio=self.audio, duration=self.duration)

    @property
    def journal(self) -> Path | None:
        """Where is written down how far it is; there only until the results are written."""
        return None if self.target is None else journal_path(self.target)


def read_formats(text: str, out: Path | None) -> list[str]:
    """``txt,srt`` -> the formats, each known and possible without --out where there is none."""
    formats = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(
            f"--format {text}: '{unknown[0] if unknown else text}' is no format.",
            mend=f"Known: {', '.join(FORMATS)}.",
        )
    if out is None and (len(formats) > 1 or formats[0] == "eaf"):
        raise UsageError(f"--format {text} needs files to write to.", mend="Add --out FOLDER.")
    return formats


def plan(
    inputs: Sequence[Path], formats: Sequence[str], out: Path | None, *, again: bool = False
) -> tuple[list[Job], dict[Path, str], list[Job]]:
    """Files and folders -> (what is to do, recordings that cannot be read and why, what is done)."""
    found = _recordings(inputs)
    if out is None and len(found) > 1 and formats[0] not in _PRINTABLE:
        raise UsageError(
            f"{len(found)} recordings as {formats[0]} cannot be told apart when printed.",
            mend="Add --out FOLDER.",
        )
    jobs: list[Job] = []
    failures: dict[Path, str] = {}
    done: list[Job] = []
    foreign: list[Path] = []
    records: dict[Path, dict[str, Made]] = {}
    for audio, target in _targets(found, out):
        whole = False
        if target is not None:
            whole = all(_file(target, f).exists() for f in formats)
            known = records.setdefault(target.parent, made_in(target.parent))
            if (other := _foreign(target, formats, known, replaced=again or not whole)) is not None:
                foreign.append(other)
                continue
        if target is not None and whole and not again:
            journal_path(target).unlink(missing_ok=True)  # killed after the results, before this
            done.append(Job(audio, 0.0, target))
            continue
        try:
            jobs.append(Job(audio, probe(audio).duration, target))
        except AudioError as error:
            failures[audio] = str(error)
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise UsageError(
            f"'{foreign[0]}'{more} stands where a transcript would be written, and is not as 'firstwords "
            "transcribe' has written it: it may be somebody's work and is not touched.",
            mend="Give another --out FOLDER, or move it away.",
        )
    return jobs, failures, done


def _recordings(inputs: Iterable[Path]) -> list[tuple[Path, Path]]:
    """(recording, its path as it shall appear below --out), each recording once."""
    found: dict[Path, tuple[Path, Path]] = {}
    for given in inputs:
        if given.is_dir():
            inside = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            inside = [
                p for p in inside if not any(part.startswith(".") for part in p.relative_to(given).parts)
            ]
            if not inside:
                kind = kind_of_folder(given)
                raise AudioError(
                    f"'{given}' holds no recordings (nothing named *.wav, *.mp3, *.m4a, ...).",
                    mend="Name the files themselves if they are called otherwise."
                    if kind is None
                    else f"It is {kind}. Give the recordings, or the folder where they lie.",
                )
            pairs = [(p, p.relative_to(given)) for p in inside]
        else:
            pairs = [(given, Path(given.name))]
        for path, shown in pairs:
            found.setdefault(path.absolute(), (path, shown))
    return list(found.values())


def _targets(found: Sequence[tuple[Path, Path]], out: Path | None) -> list[tuple[Path, Path | None]]:
    """Results are named after the recording; a.wav beside a.mp3 keep their suffixes: a.wav.txt, a.mp3.txt."""
    if out is None:
        return [(audio, None) for audio, _ in found]
    stems = Counter(_folded(shown.with_suffix("")) for _, shown in found)
    named = [
        (audio, shown if stems[_folded(shown.with_suffix(""))] > 1 else shown.with_suffix(""))
        for audio, shown in found
    ]
    first: dict[str, Path] = {}
    for audio, shown in named:
        other = first.setdefault(_folded(shown), audio)
        if other != audio:
            raise UsageError(
                f"'{other}' and '{audio}' would both be written to '{out / shown}'.",
                mend="Transcribe them into different folders.",
            )
    return [(audio, out / shown) for audio, shown in named]


def _folded(path: Path) -> str:
    """As a file system that ignores case sees it."""
    return path.as_posix().casefold()


def _file(target: Path, format_: str) -> Path:
    suffix = ".eaf" if format_ == "eaf" else WRITERS[format_][0]
    return target.with_name(target.name + suffix)


def _foreign(
    target: Path, formats: Sequence[str], known: Mapping[str, Made], *, replaced: bool
) -> Path | None:
    """A file that stands where a result would and is not ours to replace, or to be taken for one."""
    for format_ in formats:
        path = _file(target, format_)
        if not path.exists():
            continue
        made = known.get(path.name)
        if made is None or (replaced and not made.is_in(path)):
            return path
    return None


def result_files(job: Job, formats: Sequence[str]) -> list[Path]:
    """Where the results of a recording lie; none where they are printed."""
    return [] if job.target is None else [_file(job.target, format_) for format_ in formats]


def made_otherwise(
    done: Sequence[Job], formats: Sequence[str], identity: Mapping[str, str]
) -> dict[Path, list[str]]:
    """Recordings that are done, but with other things than ``identity`` -> the names of these things."""
    found: dict[Path, list[str]] = {}
    records: dict[Path, dict[str, Made]] = {}
    for job in done:
        for file in result_files(job, formats):
            known = records.setdefault(file.parent, made_in(file.parent))
            if others := changed(known[file.name].marks, _with_recording(identity, job.audio)):
                found[job.audio] = others
    return found


def _with_recording(identity: Mapping[str, str], audio: Path) -> dict[str, str]:
    try:
        return {**identity, "state of the recording": recording_fingerprint(audio)}
    except OSError:  # nothing can be said of it
        return dict(identity)


def write_results(
    job: Job, transcript: Transcript, model: str, formats: Sequence[str], identity: Mapping[str, str]
) -> None:
    """Write a transcript beside ``job.target`` in every format: all files appear whole, or none does.

    Args:
        model: its name, for tiers.
        identity: what the text depends on beside the recording.
    """
    assert job.target is not None
    data = {
        _file(job.target, f).name: _eaf(job.audio, transcript, model)
        if f == "eaf"
        else WRITERS[f][1](transcript).encode()
        for f in formats
    }
    try:
        note_made(job.target.parent, data, _with_recording(identity, job.audio))
        with staged(job.target.parent, name=job.target.name) as new:
            for name, content in data.items():
                write_atomically(new / name, content)
        journal_path(job.target).unlink(missing_ok=True)
    except WriteError as error:
        raise WriteError(error.what, mend=f"{error.mend} Or give another folder with --out.") from None


def _eaf(audio: Path, transcript: Transcript, model: str) -> bytes:
    """The recording's own .eaf with one more tier, or a new one. The original is never touched."""
    from firstwords.inference.elan_writer import add_tier, new_eaf

    beside = audio.with_suffix(".eaf")
    if beside.is_file():
        return add_tier(beside.read_bytes(), transcript, model, source=f"'{beside}'")
    return new_eaf(transcript, audio, model).encode()


def as_printed(transcript: Transcript, audio: Path, format_: str, *, several: bool) -> str:
    """What goes to the terminal: the text itself, or one line per recording when there are several."""
    if format_ == "txt":
        shown = transcript.shown.text
        return f"{audio}\t{shown}" if several else shown
    text = WRITERS[format_][1](transcript)
    if several and format_ == "json":
        text = " ".join(text.split("\n"))  # JSON lines; line ends inside strings are escaped anyway
    return text.rstrip("\n")
