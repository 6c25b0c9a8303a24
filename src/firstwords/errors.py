"""Every error a user can meet, as one tree.

    FirstwordsError            what went wrong, and how to mend it
    ├── ConfigError            a recipe or --set names something that does not exist or cannot be
    ├── AudioError             a recording cannot be read, or would be read wrongly in silence
    ├── ManifestError          a manifest line is not an utterance
    ├── CorpusError            a folder cannot become a corpus
    ├── TextError              a transcript or a tokenizer cannot be used
    ├── CheckpointError        a folder is not a model, or not this model
    ├── TrainingError          a run cannot start, resume or go on
    ├── CompressionError       a model cannot be made as small, fast and accurate as was asked
    ├── SearchError            a decoder was asked for something impossible
    ├── DependencyError        an optional part is not installed
    ├── RemoteError            a server that was asked does not answer, or not as expected
    ├── WriteError             a file cannot be written: disk full, disk broken, no rights, in use
    └── UsageError             the command line contradicts itself (exit code 2)

The command line prints ``what`` and ``mend`` and exits with ``exit_code``; anything that is not a
FirstwordsError is a bug of ours (exit code 3).
"""

from __future__ import annotations

from typing import ClassVar


class FirstwordsError(Exception):
    """What is wrong (naming the file, key or utterance) and the next step.

    Args:
        what: one sentence with the name of the thing, what was expected and what was found.
        mend: the next step, as a command or an edit; empty only where there is none.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, mend: str = "") -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}\n  {self.mend}" if self.mend else self.what

    def __reduce__(self) -> tuple[object, ...]:  # errors cross from loader workers to the parent
        return _rebuild, (type(self), self.what, self.mend)


def quoted(path: object) -> str:
    """A path as it is typed on a command line of any system, for commands that messages name."""
    name = str(path)
    return f'"{name}"' if any(c.isspace() or c in "'&;()" for c in name) else name


def _rebuild(kind: type[FirstwordsError], what: str, mend: str) -> FirstwordsError:
    return kind(what, mend=mend)


class ConfigError(FirstwordsError):
    """A recipe or an override names something that does not exist or cannot be."""


class AudioError(FirstwordsError):
    """A recording cannot be read, or would be read wrongly in silence."""


class ManifestError(FirstwordsError):
    """A manifest line is not an utterance."""


class CorpusError(FirstwordsError):
    """A folder cannot become a corpus, or a corpus cannot be used."""


class TextError(FirstwordsError):
    """A transcript or a tokenizer cannot be used."""


class CheckpointError(FirstwordsError):
    """A folder is not a model, or not this model."""


class RemoteError(FirstwordsError):
    """A server that was asked does not answer, or not as expected; the next question would fare no better."""


class TrainingError(FirstwordsError):
    """A run cannot start, resume or go on."""


class CompressionError(FirstwordsError):
    """A model cannot be made as small, fast and accurate as was asked."""


class SearchError(FirstwordsError):
    """A decoder was asked for something impossible."""


class DependencyError(FirstwordsError):
    """An optional part is not installed."""


class WriteError(FirstwordsError):
    """A file cannot be written: disk full, disk broken, no rights, or another process works there."""


class UsageError(FirstwordsError):
    """The command line contradicts itself."""

    exit_code: ClassVar[int] = 2
