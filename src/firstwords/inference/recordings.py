"""Recordings in, transcripts out, for whatever decodes stretches of samples: a model, or a bundle.

    fits a window    read side by side ─> one call of decode for a group of them ─> transcripts
    longer           one by one, stretch of speech by stretch of speech (longform.py)

They come out in the order in which they went in, and what cannot be read leaves the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from firstwords.audio.source import Samples
from firstwords.audio.waveform import AudioReader
from firstwords.data.manifest import Utterance
from firstwords.errors import FirstwordsError, RemoteError
from firstwords.inference.journal import Journal
from firstwords.inference.longform import Decode, utterance_groups
from firstwords.inference.transcript import Token, Transcript

T = TypeVar("T")

Attempt: TypeAlias = Transcript | FirstwordsError
Journals: TypeAlias = Callable[[Utterance], Journal | None]
Progress: TypeAlias = Callable[[float], None]  # seconds that are done of one recording
_Sound: TypeAlias = tuple[Samples, tuple[str, ...]]  # all samples and the repairs of a recording

_BLOCK_SECONDS = 10.0  # read at a time


class TranscribesLong(Protocol):
    """One recording of any length -> its transcript: ``Recognizer.transcribe``, ``Runtime.transcribe``."""

    def __call__(
        self,
        audio: Path,
        *,
        start: float,
        duration: float | None,
        window: float,
        progress: Progress | None,
        journal: Journal | None,
    ) -> Transcript: ...


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """What makes transcripts of recordings.

    Args:
        sample_rate: of the samples that it takes, in hertz.
        open: recording, start and duration in seconds -> its samples.
        whole: seconds of the longest recording that is decoded as a whole.
        decode: stretches of samples -> the tokens of each, many at once.
        transcript: tokens, duration in seconds, name of the recording and repairs -> its transcript.
        long: for recordings that are longer.
        group_seconds: of recordings that are held at once.
        readers: threads that read files.
    """

    sample_rate: int
    open: Callable[[Path, float, float | None], AudioReader]
    whole: float
    decode: Decode
    transcript: Callable[[Sequence[Token], float, str, tuple[str, ...]], Transcript]
    long: TranscribesLong
    group_seconds: float
    readers: int


def attempt_recordings(
    utterances: Iterable[Utterance],
    decoder: Decoder,
    *,
    window: float,
    progress: Progress | None = None,
    journals: Journals | None = None,
) -> Iterator[Attempt]:
    """Utterances -> for each its transcript or the error that kept it from one, in the same order.

    RemoteError is of no recording, and is raised: the next one would not fare better.

    Args:
        window: seconds, as ``decoder.long`` takes it.
        progress: called with the seconds that are done of the next utterance, if it is a long one.
        journals: the journal of an utterance, if it shall have one; asked for long ones alone.
    """

    def long(utterance: Utterance) -> Attempt:
        try:
            return decoder.long(
                utterance.audio,
                start=utterance.start,
                duration=utterance.duration,
                window=window,
                progress=progress,
                journal=journals(utterance) if journals is not None else None,
            )
        except RemoteError:
            raise
        except FirstwordsError as error:
            return error

    with ThreadPoolExecutor(decoder.readers) as readers:
        for group in utterance_groups(utterances, decoder.group_seconds):
            done = _attempt_short(group, decoder, readers)
            for i, utterance in enumerate(group):
                yield done.pop(i) if i in done else long(utterance)


def _attempt_short(
    group: Sequence[Utterance], decoder: Decoder, readers: ThreadPoolExecutor
) -> dict[int, Attempt]:
    """A group -> what came of those that are decoded as a whole, by their places in it."""

    def load(utterance: Utterance) -> _Sound | FirstwordsError:
        try:
            reader = decoder.open(utterance.audio, utterance.start, utterance.duration)
            return reader.whole(), reader.repairs
        except FirstwordsError as error:
            return error

    done: dict[int, Attempt] = {}
    sounds: dict[int, _Sound] = {}
    short = [i for i, utterance in enumerate(group) if utterance.duration <= decoder.whole]
    for i, found in zip(short, readers.map(load, [group[i] for i in short]), strict=True):
        if isinstance(found, FirstwordsError):
            done[i] = found
        else:
            sounds[i] = found
    heard = _attempt_each(decoder.decode, [samples for samples, _ in sounds.values()])
    for (i, (samples, repairs)), tokens in zip(sounds.items(), heard, strict=True):
        if isinstance(tokens, FirstwordsError):
            done[i] = tokens
        else:
            duration = len(samples) / decoder.sample_rate
            done[i] = decoder.transcript(tokens, duration, str(group[i].audio), repairs)
    return done


def _attempt_each(
    decode: Callable[[Sequence[Samples]], list[T]], stretches: Sequence[Samples]
) -> list[T | FirstwordsError]:
    """``decode(stretches)``; where that fails, of each alone, so that the error of one leaves the others."""
    try:
        return list[T | FirstwordsError](decode(stretches))
    except RemoteError:
        raise
    except FirstwordsError as error:
        if len(stretches) == 1:
            return [error]
    return [found for one in stretches for found in _attempt_each(decode, [one])]


def or_raise(attempts: Iterable[Attempt]) -> Iterator[Transcript]:
    """Attempts -> their transcripts; the first error is raised."""
    for found in attempts:
        if isinstance(found, FirstwordsError):
            raise found
        yield found


def in_blocks(reader: AudioReader) -> Iterator[Samples]:
    """A recording -> its samples in blocks of ten seconds."""
    return reader.blocks(round(_BLOCK_SECONDS * reader.sample_rate))
