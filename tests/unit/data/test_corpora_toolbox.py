"""Toolbox files: records, markers, times of both kinds; never taken for a transcript."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from firstwords.data.corpora import LAYOUTS, Imported, Options, detect_layout
from firstwords.data.corpora.toolbox import is_standard_format
from firstwords.errors import CorpusError

Tree = Callable[..., Path]
Take = Callable[..., Imported]

TALK = r"""\_sh v3.0  400  Text
\_DateStampHasFourDigitYear

\id talk
\ref talk.001
\ELANBegin 0.500
\ELANEnd 2.250
\ELANParticipant Amina
\tx mtoto  anakula
\mb m-toto  a-na-kul-a
\ge CL1-child 3SG-PRS-eat-FV
\tx wali
\ge rice
\ft The child eats
rice.

\ref talk.002
\tx bila saa
\ref talk.003
\aud C:\field\other.wav 0:01,5 2.5
\sp Juma
\tx ndiyo
\ref talk.004
\aud clip.wav
\tx sawa
\ref talk.005
\ELANBegin soon
\tx kesho
\ref talk.006
\ELANBegin 1
\ELANEnd 2
\ge nobody wrote the text
"""
FILES = {"talk.wav": 4.0, "talk.txt": TALK, "more/other.wav": 3.0, "clip.wav": 1.0}


def test_records_with_times_or_a_recording_are_utterances(tree: Tree, take: Take) -> None:
    root = tree(FILES)
    imported = take(root, "toolbox", tiers=("tx",))
    found = [(u.audio.name, u.start, u.duration, u.text, u.speaker) for u in imported.utterances]
    assert found == [
        ("talk.wav", 0.5, 1.75, "mtoto anakula wali", "Amina"),
        ("other.wav", 1.5, 1.0, "ndiyo", "Juma"),
        ("clip.wav", 0.0, 1.0, "sawa", None),
    ]
    skipped = {s.where: s.reason for s in imported.skipped}
    assert set(skipped) == {"line 17 of talk.txt", "line 26 of talk.txt"}
    assert "has no times" in skipped["line 17 of talk.txt"]
    assert "'soon'" in skipped["line 26 of talk.txt"]


def test_the_marker_of_the_transcript_is_suggested(tree: Tree, take: Take) -> None:
    with pytest.raises(CorpusError) as caught:
        take(tree(FILES), "toolbox")
    assert caught.value.mend.endswith("--tier 'tx'")
    assert "ge: 2 with text" in caught.value.what
    assert "'The child eats rice.' (looks like a translation)" in caught.value.what
    assert "aud" not in caught.value.what


def test_records_that_begin_with_another_marker(tree: Tree, take: Take) -> None:
    text = "\\utt 1\n\\begin 0\n\\end 1\n\\txt moja\n\\utt 2\n\\begin 1\n\\end 2\n\\txt mbili\n"
    imported = take(tree({"a.wav": 3.0, "a.sfm": text}), "toolbox", tiers=("txt",))
    assert [(u.start, u.text) for u in imported.utterances] == [(0.0, "moja"), (1.0, "mbili")]


def test_it_is_never_taken_for_a_transcript(tree: Tree) -> None:
    root = tree({**FILES, "clip.txt": "habari ya leo"})
    with pytest.raises(CorpusError, match="--layout toolbox"):
        detect_layout(root)
    imported = LAYOUTS["folder"].read(root, Options())
    assert [u.text for u in imported.utterances] == ["habari ya leo"]
    assert any("--layout toolbox" in s.reason for s in imported.skipped)


@pytest.mark.parametrize(
    "text", ["habari \\ya leo", "\\tx only one line", "", "a\tb\nc\td", "0.5\t1.0\tmoja\n"]
)
def test_other_texts_are_no_records(text: str) -> None:
    assert not is_standard_format(text)
