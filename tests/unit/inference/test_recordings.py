"""Recordings in, transcripts out: order, groups and errors, with a decoder that only measures its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from firstwords.audio.waveform import AudioReader, write
from firstwords.data.manifest import Utterance
from firstwords.errors import AudioError, FirstwordsError, RemoteError, SearchError
from firstwords.inference.journal import Journal, journal_header
from firstwords.inference.recordings import Decoder, Progress, attempt_recordings, or_raise
from firstwords.inference.transcript import Token, Transcript

RATE = 16000


class Measure:
    """Hears a token of the length of the samples, in seconds; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[float]] = []
        self.long: list[tuple[str, float, Journal | None]] = []
        self.fails: Callable[[float], FirstwordsError | None] = lambda _: None

    def decode(self, stretches: Sequence[np.ndarray]) -> list[list[Token]]:
        lengths = [len(samples) / RATE for samples in stretches]
        self.asked.append(lengths)
        for length in lengths:
            if (error := self.fails(length)) is not None:
                raise error
        return [[Token(1, 0.0, length, 1.0)] for length in lengths]

    def transcript(
        self, tokens: Sequence[Token], duration: float, audio: str, repairs: tuple[str, ...]
    ) -> Transcript:
        assert [token.end for token in tokens] == [duration]
        return Transcript("", (), "und", duration, audio, repairs)

    def transcribe(
        self,
        audio: Path,
        *,
        start: float,
        duration: float | None,
        window: float,
        progress: Progress | None,
        journal: Journal | None,
    ) -> Transcript:
        assert (window, progress) == (9.0, print)
        self.long.append((audio.name, start, journal))
        return Transcript("", (), "und", duration or 0.0, str(audio))


@pytest.fixture
def measure() -> Measure:
    return Measure()


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """1, 2, 30, 3 and 1 s; the third is too long for the decoder, the fourth no recording."""
    made: list[Utterance] = []
    for number, seconds in enumerate([1.0, 2.0, 30.0, 3.0, 1.0]):
        path = tmp_path / f"{number}.wav"
        if number == 3:
            path.write_text("no audio")
        else:
            write(path, np.zeros(round(seconds * RATE), np.float32), RATE)
        made.append(Utterance(id=str(number), audio=path, duration=seconds))
    return made


def attempt(
    measure: Measure, utterances: list[Utterance], *, group: float = 600.0, journals: bool = False
) -> list[Transcript | FirstwordsError]:
    decoder = Decoder(
        sample_rate=RATE,
        open=lambda path, start, duration: AudioReader(
            path, sample_rate=RATE, start=start, duration=duration
        ),
        whole=10.0,
        decode=measure.decode,
        transcript=measure.transcript,
        long=measure.transcribe,
        group_seconds=group,
        readers=2,
    )
    kept = (lambda utterance: Journal(utterance.audio.with_suffix(".kept"))) if journals else None
    return list(attempt_recordings(utterances, decoder, window=9.0, progress=print, journals=kept))


def shown(found: list[Transcript | FirstwordsError]) -> list[object]:
    return [one.duration if isinstance(one, Transcript) else type(one) for one in found]


def test_what_was_read_comes_in_order_and_short_ones_are_decoded_together(
    measure: Measure, utterances: list[Utterance]
) -> None:
    found = attempt(measure, utterances)
    assert shown(found) == [1.0, 2.0, 30.0, AudioError, 1.0]
    assert measure.asked == [[1.0, 2.0, 1.0]]
    assert measure.long == [("2.wav", 0.0, None)]


def test_no_more_is_held_than_a_group(measure: Measure, utterances: list[Utterance]) -> None:
    assert shown(attempt(measure, utterances, group=3.0)) == [1.0, 2.0, 30.0, AudioError, 1.0]
    assert [lengths for lengths in measure.asked if lengths] == [[1.0, 2.0], [1.0]]


def test_only_long_ones_have_journals(measure: Measure, utterances: list[Utterance]) -> None:
    attempt(measure, utterances, journals=True)
    ((name, _, journal),) = measure.long
    assert name == "2.wav"
    assert journal is not None
    assert journal.path.name == "2.kept"


def test_one_that_cannot_be_decoded_leaves_the_others(measure: Measure, utterances: list[Utterance]) -> None:
    measure.fails = lambda length: SearchError("No.", mend="None.") if length == 2.0 else None
    assert shown(attempt(measure, utterances)) == [1.0, SearchError, 30.0, AudioError, 1.0]
    with pytest.raises(SearchError):
        list(or_raise(attempt(measure, utterances)))


def test_a_server_that_is_gone_ends_all(measure: Measure, utterances: list[Utterance]) -> None:
    measure.fails = lambda _: RemoteError("No answer.", mend="None.")
    with pytest.raises(RemoteError):
        attempt(measure, utterances)
    assert len(measure.asked) == 1


def test_a_journal_belongs_to_all_but_the_formatting(utterances: list[Utterance]) -> None:
    audio = utterances[0].audio
    header = journal_header({"model": "m", "formatting": "f"}, audio, 1.0, None, "9.0 60.0")
    assert header["model"] == "m"
    assert "formatting" not in header
    assert header["stretch of it"] == "1.0 None"
    before = header["state of the recording"]
    write(audio, np.ones(RATE, np.float32), RATE)
    assert journal_header({}, audio, 1.0, None, "9.0 60.0")["state of the recording"] != before
