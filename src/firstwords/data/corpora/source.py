"""What lies in the folder (or file) a user wants to import: files, text of any encoding, audio by reference.

Nothing here changes a file. Hidden files, macOS shadow files and folders made by an earlier 'firstwords
import' are left out, so that ``firstwords import . --to corpus`` can be run twice.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from firstwords.errors import CorpusError

IMPORT_RECORD = "import.json"
# Names under which recordings are looked for; what a file really holds is decided by its content.
AUDIO_SUFFIXES = frozenset(
    [
        ".wav",
        ".wave",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".sph",
        ".m4a",
        ".mp4",
        ".webm",
        ".aac",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".caf",
        ".w64",
        ".rf64",
        ".wma",
        ".mka",
        ".mkv",
        ".mov",
        ".mpg",
        ".mpeg",
        ".avi",
        ".amr",
        ".3gp",
    ]
)
ARCHIVE_SUFFIXES = frozenset([".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"])
_AUDIO_FOLDERS = ("clips", "audio", "wav", "wavs", "recordings")


@dataclass
class Source:
    """``path`` as given; ``root`` is the folder below which files and audio are looked for."""

    path: Path
    root: Path
    found_by_name: list[str] = field(default_factory=list[str])
    respelled: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # as written, on the disk
    chosen: list[Path] = field(default_factory=list[Path])
    closed: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])  # what, and why

    @classmethod
    def of(cls, path: Path) -> Source:
        """An existing file or folder -> Source; anything else is an error that says what is there."""
        path = path.expanduser()
        if ".." in path.parts:  # names below it must compare as they stand
            path = path.resolve()
        if path.is_dir():
            return cls(path.absolute(), path.absolute())
        if path.is_file():
            return cls(path.absolute(), path.absolute().parent)
        near = [p.name for p in sorted(path.parent.iterdir())[:8]] if path.parent.is_dir() else []
        raise CorpusError(
            f"'{path}' does not exist.",
            mend=f"Beside it lie: {', '.join(near)}." if near else "Check the path.",
        )

    @property
    def is_file(self) -> bool:
        return self.path != self.root

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The given file, or every file below the given folder, sorted."""
        return (self.path,) if self.is_file else self.tree

    @cached_property
    def tree(self) -> tuple[Path, ...]:
        """Every file below ``root``, sorted by path."""
        found = tuple(sorted(_walk(self.root, self.closed)))
        if not found and self.closed and self.closed[0][0] == self.root:
            raise CorpusError(
                f"'{self.root}': {self.closed[0][1]}.",
                mend="Check your rights to the folder.",
            )
        return found

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Files whose name ends so, in either case."""
        return [p for p in self.files if p.name.lower().endswith(suffixes)]

    @cached_property
    def audio(self) -> tuple[Path, ...]:
        """Files below ``root`` that are named like recordings."""
        return tuple(p for p in self.tree if p.suffix.lower() in AUDIO_SUFFIXES)

    def named(self, path: Path) -> str:
        """The path as shown to the user: relative to the source where it lies inside."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        index: dict[str, list[Path]] = {}
        for path in self.audio:
            for key in {spelling(path.name), spelling(path.stem)}:
                index.setdefault(key, []).append(path)
        return index

    @cached_property
    def _by_place(self) -> dict[tuple[Path, str], list[Path]]:
        index: dict[tuple[Path, str], list[Path]] = {}
        for path in self.audio:
            index.setdefault((path.parent, spelling(path.stem)), []).append(path)
        return index

    def audio_of(self, annotation: Path, *, stem: str | None = None) -> Path:
        """The recording an annotation file belongs to: same stem beside it, else the only one below root."""
        stem = stem if stem is not None else annotation.stem
        beside = self._by_place.get((annotation.parent, spelling(stem)))
        named = beside or self._by_name.get(spelling(stem), [])
        if not named:
            raise CorpusError(f"its audio '{stem}.*' does not exist beside it or below '{self.root.name}'")
        found = self._only(named, f"'{stem}.*'")
        if stem not in (found.stem, found.name):
            self.respelled.append((stem, found.name))
        return found

    def find_audio(self, reference: str, base: Path) -> Path:
        """A reference as written in a table or manifest -> the existing file, or CorpusError with the reason.

        Tried in turn: as it stands (absolute or relative to ``base``, then to the source), below the usual
        audio folders, with the usual suffixes; there with capitals or composed letters (NFC, NFD) that are
        written otherwise; and last any recording of that name below the source. These two only if there is
        exactly one such recording (manifests written on another machine).
        """
        given = reference.strip()
        if not given:
            raise CorpusError("no audio file is named")
        if "://" in given:
            parts = _path_of_address(given)
            if parts is None:
                raise CorpusError(f"audio '{given}' is a web address: download it first")
            given = parts
        elif given.startswith("file:"):
            given = unquote(given.removeprefix("file:"))
        for form in dict.fromkeys((given, given.replace("\\", "/"))):
            for folder in dict.fromkeys((base, self.root)):
                for inner in ("", *_AUDIO_FOLDERS):
                    path = existing(folder / inner / form)
                    if path is not None:
                        return path
        form = given.replace("\\", "/")
        same_name = self._by_name.get(spelling(form.rsplit("/", 1)[-1]), [])
        places = {
            spelling(os.path.normpath(folder / inner / form))
            for folder in (base, self.root)
            for inner in ("", *_AUDIO_FOLDERS)
        }
        there = [p for p in same_name if not places.isdisjoint((spelling(str(p)), spelling(_bare(p))))]
        path = self._only(there or same_name, f"'{given}'")
        if there:
            self.respelled.append((given, self.named(path)))
        else:
            self.found_by_name.append(given)
        return path

    def _only(self, paths: list[Path], what: str) -> Path:
        match paths:
            case [one]:
                return one
            case []:
                raise CorpusError(f"audio {what} does not exist")
            case _ if len({(p.parent, p.stem) for p in paths}) == 1:
                best = preferred(paths)  # talk.wav and talk.mp4: one recording in two forms
                self.chosen.append(best)
                return best
            case _:
                shown = ", ".join(self.named(p) for p in paths[:3])
                raise CorpusError(f"audio {what} could be any of {len(paths)} files: {shown}")

    def suffix_counts(self) -> str:
        """What lies there, for messages: '120 .wav, 3 .docx'."""
        counts = Counter(p.suffix.lower() or "without suffix" for p in self.files)
        return ", ".join(f"{n} {suffix}" for suffix, n in counts.most_common(6)) or "no files"


def recordings_in(folders: Iterable[Path]) -> list[Path]:
    """Files named like recordings right in these folders; what may not be listed is passed over."""
    found: list[Path] = []
    for folder in sorted(folders):
        with contextlib.suppress(OSError):
            found += sorted(p for p in folder.iterdir() if p.suffix.lower() in AUDIO_SUFFIXES)
    return [p for p in found if not p.name.startswith(".")]


def spelling(name: str) -> str:
    """A file name -> the same for all ways to write it: small letters, composed (macOS writes NFD)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _bare(path: Path) -> str:
    return str(path.with_suffix(""))


def preferred(paths: Sequence[Path]) -> Path:
    """Of one recording in several forms the one that lost least: wav and flac before all others."""
    order = (".wav", ".flac")
    return min(paths, key=lambda p: (order.index(s) if (s := p.suffix.lower()) in order else 9, p.name))


def _path_of_address(address: str) -> str | None:
    """A file:// address -> its path; None for every other scheme."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    if parts.scheme.lower() != "file":
        return None
    path = unquote(parts.path)
    # file:///C:/talk.wav names C:/talk.wav
    return path[1:] if len(path) > 2 and path[0] == "/" and path[2] == ":" else path


def existing(path: Path) -> Path | None:
    """The file, or the file with one of the audio suffixes added; paths come back without '..'."""
    try:
        if path.is_file():
            return Path(os.path.normpath(path))
        if path.suffix.lower() not in AUDIO_SUFFIXES and path.parent.is_dir():
            for suffix in (".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph", ".m4a", ".WAV", ".MP3"):
                longer = path.with_name(path.name + suffix)
                if longer.is_file():
                    return Path(os.path.normpath(longer))
    except (OSError, ValueError):  # a name too long, a NUL: no such file
        pass
    return None


def _walk(root: Path, closed: list[tuple[Path, str]]) -> Iterator[Path]:
    """Files below ``root``; what cannot be opened, or is no file, is added to ``closed`` with the reason."""

    def note(error: OSError) -> None:
        reason = f"this folder cannot be opened: {error.strerror or error}"
        closed.append((Path(str(error.filename or root)), reason))

    for folder, inner, names in os.walk(root, onerror=note):
        here = Path(folder)
        inner[:] = [
            d for d in sorted(inner) if not d.startswith(".") and d != "__MACOSX" and not _is_import(here / d)
        ]
        for name in names:
            if name.startswith("."):
                continue
            if _is_special(here / name):
                closed.append((here / name, "is a pipe, socket or device, not a file"))
            else:
                yield here / name


def _is_special(path: Path) -> bool:
    """Whether opening it might wait for ever (a pipe) or never end (a device)."""
    try:
        mode = path.stat().st_mode
    except OSError:  # a link that leads nowhere: whoever needs it says so
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _is_import(folder: Path) -> bool:
    try:
        return (folder / IMPORT_RECORD).is_file()
    except OSError:  # nobody may look into it: the walk says so
        return False


def read_text(path: Path, *, lenient: bool = False) -> str:
    """Text file -> text with plain newlines. UTF-8 with or without BOM, and UTF-16, are recognised.

    Args:
        lenient: a table with a few broken lines is given back with U+FFFD in them (utterances with that
            sign are skipped one by one); with more than a tenth of them broken it is refused.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"'{path.name}' cannot be read: {error.strerror or error}") from None
    return decode_text(data, path.name, lenient=lenient)


def decode_text(data: bytes, name: str, *, lenient: bool = False) -> str:
    """Bytes -> text. No legacy code page is guessed: a wrong guess would corrupt letters in silence."""
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        text = data.decode(encoding, errors="replace")
        lines = text.split("\n")
        if not lenient or 10 * sum("\ufffd" in line for line in lines) > len(lines):
            line = 1 + data[: error.start].count(b"\n")
            raise CorpusError(
                f"'{name}' is not {encoding.removesuffix('-sig').upper()}: line {line} cannot be decoded",
                mend="Save the file as UTF-8 (in the program that wrote it) and run the import again.",
            ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _encoding(data: bytes) -> str:
    if data.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = data[:400]
    # UTF-16 without a mark: the line breaks and digits of any such file leave every other byte zero
    if len(head) >= 4 and head[1::2].count(0) > len(head) // 5 and head[::2].count(0) == 0:
        return "utf-16-le"
    if len(head) >= 4 and head[::2].count(0) > len(head) // 5 and head[1::2].count(0) == 0:
        return "utf-16-be"
    return "utf-8"
