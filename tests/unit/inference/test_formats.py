"""Transcripts, and what is written of them: read back by other programs where there are some."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from praatio import textgrid

from firstwords.inference.formats import WRITERS, to_ctm, to_json, to_srt, to_textgrid, to_txt, to_vtt
from firstwords.inference.transcript import Token, Transcript, build_transcript, timed_tokens
from firstwords.search.hypothesis import Hypothesis
from firstwords.text.characters import GraphemeTokenizer
from firstwords.text.pieces import join_pieces
from firstwords.text.tokenizer import Tokenizer


class Letters(Tokenizer):
    """Every character a piece; the space is ▁."""

    def __init__(self, letters: str) -> None:
        self.pieces = ("<blank>", "▁", *letters)

    def encode(self, text: str) -> list[int]:
        return [self.pieces.index("▁" if c == " " else c) for c in text]

    def decode(self, tokens: Iterable[int]) -> str:
        return join_pieces(self.pieces, tokens)

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Letters:
        raise NotImplementedError


TOKENIZER = Letters("abcdefghijklmnopqrstuvwxyz<&>\"'é")


def spoken(*timed: tuple[str, float], duration: float, audio: str = "take one.wav") -> Transcript:
    """Texts with the second they start at; a letter takes 0.1 s."""
    tokens = [
        Token(token, start + 0.1 * i, start + 0.1 * i + 0.04, 0.9)
        for text, start in timed
        for i, token in enumerate(TOKENIZER.encode(text))
    ]
    return build_transcript(tokens, TOKENIZER, language="und", duration=duration, audio=audio)


TWO = spoken(("hello there ", 1.0), ("one & <two>", 4.0), duration=10.0)
NOTHING = spoken(duration=3.0)


def test_control_characters_that_a_model_spells_in_bytes_are_left_out() -> None:
    """ESC, BEL and NUL: ELAN could not open the file, and a terminal would obey them."""
    tokenizer = GraphemeTokenizer.train(["ab"])
    pieces = ("a", "<0x1B>", "<0x07>", "<0x00>", "b", "<0xFF>")
    tokens = [Token(tokenizer.pieces.index(p), 0.1 * i, 0.1 * i + 0.05, 0.9) for i, p in enumerate(pieces)]
    made = build_transcript(tokens, tokenizer, language="und", duration=1, audio="a.wav")
    assert made.text == "ab\ufffd"
    only = build_transcript(tokens[1:4], tokenizer, language="und", duration=1, audio="a.wav")
    assert only.text == ""


def test_where_a_decoder_could_write_no_more_words_may_be_missing() -> None:
    heard = Hypothesis(tuple(TOKENIZER.encode("ab")), -1.0, {}, times=(0.1, 0.4), ends=(0.2, 0.52), cut=True)
    for reading, notes in ((heard, 1), (replace(heard, cut=False), 0)):
        tokens = timed_tokens(reading, 3.0)
        made = build_transcript(
            tokens, TOKENIZER, language="und", duration=3.0, audio="a.wav", repairs=("mended",)
        )
        assert made.repairs[0] == "mended"
        assert len(made.repairs) == 1 + notes
        assert all("missing behind 0.5 s" in note and "--window" in note for note in made.repairs[1:])


def test_words_and_segments() -> None:
    assert TWO.text == "hello there one & <two>"
    assert [segment.text for segment in TWO.segments] == ["hello there", "one & <two>"]
    assert [word.word for word in TWO.words] == ["hello", "there", "one", "&", "<two>"]
    hello, there = TWO.segments[0].words
    assert (hello.start, hello.end) == (1.0, 1.44)
    assert (there.start, there.end) == (1.6, 2.04)
    assert hello.confidence == 0.9
    assert (NOTHING.text, NOTHING.segments, NOTHING.words) == ("", (), ())


def test_spaces_make_no_empty_words_and_times_never_go_back() -> None:
    tokens = [
        Token(1, 0.0, 0.1, 1.0),  # a space before anything
        Token(2, 0.1, 0.6, 1.0),
        Token(1, 0.6, 0.7, 1.0),
        Token(1, 0.7, 0.8, 1.0),  # two spaces
        Token(3, 0.5, 0.55, 1.0),  # heard by the next window a little earlier than the word before ends
        Token(1, 5.0, 5.1, 1.0),
    ]
    made = build_transcript(tokens, TOKENIZER, language="und", duration=0.62, audio="")
    assert made.text == "a b"
    a, b = made.words
    assert a.end <= b.start < b.end
    assert made.duration == 0.62


def test_breaks_and_long_gaps_part_words() -> None:
    tokens = [Token(2, 0.0, 0.1, 1.0), Token(3, 0.1, 0.2, 1.0, breaks=True), Token(4, 3.0, 3.1, 1.0)]
    assert build_transcript(tokens, TOKENIZER, language="und", duration=4, audio="").text == "a b c"


def test_long_segments_are_parted_at_their_widest_gap() -> None:
    words = [("ab ", 0.5 * i + (0.2 if i >= 22 else 0.0)) for i in range(40)]
    made = spoken(*words, duration=30.0)
    assert [len(segment.words) for segment in made.segments] == [22, 18]
    assert made.text == " ".join(["ab"] * 40)


def test_txt_and_json() -> None:
    assert to_txt(TWO) == "hello there\none & <two>\n"
    assert to_txt(NOTHING) == ""
    assert Transcript.from_record(json.loads(to_json(TWO))) == TWO


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_srt() -> None:
    blocks = to_srt(TWO).strip().split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == ["1", "2"]
    assert blocks[0].split("\n")[1] == "00:00:01,000 --> 00:00:02,340"
    assert [block.split("\n")[2] for block in blocks] == ["hello there", "one & <two>"]
    assert to_srt(NOTHING) == ""


def test_vtt() -> None:
    text = to_vtt(TWO)
    assert text.startswith("WEBVTT\n\n00:00:01.000 --> 00:00:02.340\nhello there\n\n")
    assert "one &amp; &lt;two&gt;" in text
    assert to_vtt(NOTHING) == "WEBVTT\n\n"


def test_cues_are_short_and_do_not_overlap() -> None:
    made = spoken(*[("abcdefgh ", i) for i in range(60)], duration=61.0)
    cues = re.findall(r"(\S+) --> (\S+)\n(.*)", to_srt(made))
    assert " ".join(text for *_, text in cues) == made.text
    times = [_seconds(t) for start, end, _ in cues for t in (start, end)]
    assert times == sorted(times)
    assert all(len(text) <= 84 for *_, text in cues)
    assert all(_seconds(end) - _seconds(start) < 7.5 for start, end, _ in cues)


def test_clock_of_hours() -> None:
    assert "10:00:59,960 --> 10:01:00,000" in to_srt(spoken(("a", 36_059.96), duration=36_060.0))


def test_ctm() -> None:
    lines = [line.split() for line in to_ctm(TWO).splitlines()]
    assert [line[4] for line in lines] == ["hello", "there", "one", "&", "<two>"]
    assert lines[0] == ["take_one", "1", "1.000", "0.440", "hello", "0.9000"]
    assert {len(line) for line in lines} == {6}


@pytest.mark.parametrize("transcript", [TWO, NOTHING, spoken(('a "b" \'é', 0.0), duration=0.65)])
def test_textgrid_is_read_by_praatio(tmp_path: Path, transcript: Transcript) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(to_textgrid(transcript), encoding="utf-8")
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    assert grid.tierNames == ("segments", "words")
    for name, expected in (
        ("words", [(w.start, w.end, w.word) for w in transcript.words]),
        ("segments", [(s.start, s.end, s.text) for s in transcript.segments]),
    ):
        entries = [tuple(entry) for entry in grid.getTier(name).entries]
        assert [entry for entry in entries if entry[2]] == expected
        assert entries[0][0] == 0
        assert all(one[1] == other[0] for one, other in pairwise(entries))
        assert entries[-1][1] >= transcript.duration


def test_every_writer_takes_every_transcript() -> None:
    for suffix, write in WRITERS.values():
        assert suffix.startswith(".")
        for transcript in (TWO, NOTHING):
            assert isinstance(write(transcript), str)
