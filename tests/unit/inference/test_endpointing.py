"""Endpoint rules on constructed tokens and sounds."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from firstwords.audio.activity import Stretch
from firstwords.inference.endpointing import Cut, EndpointConfig, Energy, Spoken, find_cut, longest_silence

RATE = 16000
LONGEST_ALONE: dict[str, float | None] = {"trailing_silence": None, "trailing_blank": None}


def tokens(text: str, *times: float) -> list[Spoken]:
    """Letters and spaces at these times, each 40 ms long; ' ' is a space, a capital begins a word."""
    return [
        Spoken(time, time + 0.04, letter == " ", letter.isupper())
        for letter, time in zip(text, times, strict=True)
    ]


def cut(
    spoken: list[Spoken],
    now: float,
    *,
    speech: list[Stretch] | None = None,
    since: float = 0.0,
    **rules: float | None,
) -> Cut | None:
    config = EndpointConfig.model_validate(rules)
    return find_cut(spoken, since=since, now=now, speech=speech or [], known=now, config=config)


def test_silence_after_speech_ends_it_and_nothing_before() -> None:
    spoken = tokens("ab", 1.0, 1.3)
    assert cut(spoken, 2.1, trailing_silence=0.8) is None
    assert cut(spoken, 2.2, trailing_silence=0.8) == Cut(2, "trailing_silence")
    assert cut(spoken, 9.9, trailing_silence=None, trailing_blank=None) is None


def test_energy_must_be_silent_too() -> None:
    """The model has written all it knows of, but somebody still speaks: a long vowel, an unknown word."""
    spoken = tokens("ab", 1.0, 1.3)
    assert cut(spoken, 2.2, speech=[(0.9, 2.1)]) is None
    assert cut(spoken, 2.8, speech=[(0.9, 2.1)]) is None
    assert cut(spoken, 2.95, speech=[(0.9, 2.1)]) == Cut(2, "trailing_silence")
    # noise without end: blanks alone, when there are many
    assert cut(spoken, 3.3, speech=[(0.0, 3.3)], trailing_blank=2.0) is None
    assert cut(spoken, 3.4, speech=[(0.0, 3.4)], trailing_blank=2.0) == Cut(2, "trailing_blank")


def test_silence_not_known_yet_is_no_silence() -> None:
    spoken, config = tokens("a", 1.0), EndpointConfig(trailing_silence=0.8)
    for known, found in ((1.5, None), (1.84, Cut(1, "trailing_silence"))):
        assert find_cut(spoken, since=0, now=2.0, speech=[], known=known, config=config) == found


def test_a_pause_inside_one_chunk_parts_utterances() -> None:
    """Later tokens came with the same chunk: the end is where the pause is; a space goes with the first."""
    spoken = tokens("ab cd", 1.0, 1.2, 1.3, 2.5, 2.6)
    assert cut(spoken, 2.7, trailing_silence=0.8) == Cut(3, "trailing_silence")
    middle = tokens("ab cd", 1.0, 1.2, 1.7, 2.2, 2.3)  # a space in the middle of the pause does not halve it
    assert cut(middle, 2.4, trailing_silence=0.8) == Cut(3, "trailing_silence")


def test_long_speech_is_parted_at_its_widest_gap_between_words() -> None:
    #                0    1    2    3    4    5    6    7
    spoken = tokens("ab cd ef", 0.0, 1.0, 1.5, 2.0, 3.9, 4.4, 4.6, 5.0)
    assert cut(spoken, 4.99, longest=5.0, **LONGEST_ALONE) is None
    # between d and e, though c and d lie further apart: they are one word
    assert cut(spoken, 5.1, longest=5.0, **LONGEST_ALONE) == Cut(6, "longest")
    # words that begin with their own mark, without a space
    marked = tokens("ABC", 0.0, 3.0, 4.0)
    assert cut(marked, 5.1, longest=5.0, **LONGEST_ALONE) == Cut(3, "longest")
    assert cut(marked, 4.5, longest=4.5, **LONGEST_ALONE) == Cut(2, "longest")
    # no word ends in the second half: the widest gap there is
    letters = tokens("abcd", 0.0, 2.0, 4.0, 4.9)
    assert cut(letters, 5.0, longest=5.0, **LONGEST_ALONE) == Cut(3, "longest")


def test_nobody_speaks() -> None:
    assert cut([], 9.9, no_speech=10.0) is None
    assert cut([], 10.0, no_speech=10.0) == Cut(0, "no_speech")
    assert cut([], 12.0, since=5.0, no_speech=10.0) is None
    assert cut(tokens(" ", 3.0), 10.0, no_speech=10.0) == Cut(1, "no_speech")


@pytest.mark.parametrize(
    ("speech", "start", "end", "longest"),
    [
        ([], 1.0, 3.0, 2.0),
        ([(0.0, 5.0)], 1.0, 3.0, 0.0),
        ([(0.0, 1.5)], 1.0, 3.0, 1.5),
        ([(1.2, 1.3), (2.5, 2.6)], 1.0, 3.0, 1.2),
        ([(2.5, 9.0)], 1.0, 3.0, 1.5),
        ([(4.0, 5.0)], 1.0, 3.0, 2.0),
        ([], 3.0, 1.0, 0.0),
    ],
)
def test_longest_silence(speech: list[Stretch], start: float, end: float, longest: float) -> None:
    assert longest_silence(speech, start, end) == pytest.approx(longest)


def test_energy_of_a_stream() -> None:
    generator = np.random.default_rng(0)
    sound = 0.001 * generator.standard_normal(8 * RATE)
    sound[2 * RATE : 3 * RATE] += 0.3 * np.sin(np.arange(RATE) * 0.2)
    energy = Energy(RATE)
    for at in range(0, len(sound), 1000):
        energy.push(sound[at : at + 1000].astype(np.float32))
    assert energy.known == pytest.approx(7.9)
    assert len(energy.speech) == 1
    start, end = energy.speech[0]
    assert start == pytest.approx(2.0, abs=0.1)
    assert end == pytest.approx(3.0, abs=0.1)
    energy.forget(3.5)
    assert energy.speech == []


def test_rules_have_believable_numbers() -> None:
    for wrong in ({"longest": 0}, {"longest": 1e9}, {"no_speech": None}, {"trailing": 1}):
        with pytest.raises(ValidationError):
            EndpointConfig.model_validate(wrong)
