"""Recordings below CORPUS/audio: single channels of recordings in which each channel is one speaker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from firstwords.audio.waveform import probe, read
from firstwords.data.corpora.copies import parse_channels
from firstwords.data.corpora.importing import ImportReport, Plan, import_corpus
from firstwords.errors import CorpusError, UsageError

Tree = Callable[..., Path]
RATE = 44100


def stereo(path: Path, seconds: float = 2.0, subtype: str = "PCM_16") -> np.ndarray:
    """Two tones, the second one quieter -> samples (S, 2) as they stand in the file."""
    times = np.arange(round(seconds * RATE)) / RATE
    sound = np.stack([0.4 * np.sin(1300 * times), 0.2 * np.sin(2100 * times)], axis=1)
    soundfile.write(path, sound, RATE, subtype)
    return soundfile.read(path, dtype="float32")[0]


def calls(tree: Tree, rows: str) -> Path:
    root = tree({"calls/mono.wav": 2.0, "list.csv": "file,speaker,start,end,text\n" + rows})
    stereo(root / "calls/call.wav")
    return root


ROWS = """calls/call.wav,Eva,0.0,1.0,habari
calls/call.wav,Ade,0.5,1.5,nzuri
calls/call.wav,,1.5,2.0,asante
calls/mono.wav,Eva,0.0,1.0,karibu
"""


def of_text(report: ImportReport) -> dict[str | None, Any]:
    return {u.text: u for u in report.corpus.utterances}


def test_each_speaker_is_heard_on_the_channel_that_is_theirs(tree: Tree, tmp_path: Path) -> None:
    root, corpus = calls(tree, ROWS), tmp_path / "corpus"
    report = import_corpus(root, corpus, Plan(channels={"Eva": 0, "A*": 1}))
    sound = soundfile.read(root / "calls/call.wav", dtype="float32")[0]
    found = of_text(report)
    for text, channel in (("habari", 0), ("nzuri", 1)):
        utterance = found[text]
        assert utterance.audio == corpus / f"audio/calls/call.wav.channel{channel}.wav"
        heard = read(
            utterance.audio, sample_rate=None, start=utterance.start, duration=utterance.duration
        ).samples
        first = round(utterance.start * RATE)
        assert np.array_equal(heard, sound[first : first + len(heard), channel])  # not a bit is lost
    assert found["asante"].audio == root / "calls/call.wav"
    assert found["karibu"].audio == root / "calls/mono.wav"
    notes = "\n".join(report.notes)
    assert "1 recordings were divided into their channels, 2 utterances hear theirs" in notes
    assert "1 recordings have one channel" in notes
    assert "1 utterances of recordings with several channels" in notes
    assert "'(not named)' (1)" in notes
    assert {u.id for u in report.corpus.utterances} == {
        u.id for u in import_corpus(root, tmp_path / "mixed").corpus.utterances
    }


def test_channels_and_copies_make_a_folder_that_can_be_moved(tree: Tree, tmp_path: Path) -> None:
    report = import_corpus(calls(tree, ROWS), tmp_path / "corpus", Plan(channels={"Eva": 0}, copy=True))
    assert {u.audio.relative_to(tmp_path / "corpus").as_posix() for u in report.corpus.utterances} == {
        "audio/calls/call.wav.channel0.wav",
        "audio/calls/call.wav",
        "audio/calls/mono.wav",
    }


def test_a_channel_is_written_again_only_where_its_recording_has_changed(tree: Tree, tmp_path: Path) -> None:
    root, corpus, plan = calls(tree, ROWS), tmp_path / "corpus", Plan(channels={"*": 1})
    place = of_text(import_corpus(root, corpus, plan))["habari"].audio
    before = place.stat().st_ino
    import_corpus(root, corpus, plan)
    assert place.stat().st_ino == before
    stereo(root / "calls/call.wav", 3.0, "PCM_24")
    os.utime(root / "calls/call.wav", (1, 1))  # an older version, taken from a backup
    import_corpus(root, corpus, plan)
    assert probe(place).duration == 3.0


def test_both_channels_of_a_call_and_corrected_times_stay_in_one_split(tree: Tree, tmp_path: Path) -> None:
    def table(late: float) -> dict[str, str]:
        rows = [
            f"c{n}.wav,{who},{at + late * (n % 2)},{at + 1},{who} {n}\n"
            for n in range(10)
            for at, who in ((0.0, "a"), (0.5, "b"))
        ]
        return {"list.csv": "file,speaker,start,end,text\n" + "".join(rows)}

    root, corpus = tree(table(0.0)), tmp_path / "corpus"
    for n in range(10):
        stereo(root / f"c{n}.wav")
    plan = Plan(channels={"a": 0, "b": 1})
    before = of_text(import_corpus(root, corpus, plan))
    calls_of: dict[str, set[str]] = {}
    for text, utterance in before.items():
        calls_of.setdefault(text.split()[1], set()).add(utterance.split)
    assert all(len(splits) == 1 for splits in calls_of.values())
    assert {u.split for u in before.values()} == {"train", "dev", "test"}
    tree(table(0.1))
    after = of_text(import_corpus(root, corpus, plan))
    assert sum(after[text].id != u.id for text, u in before.items()) == 10
    assert {text: u.split for text, u in after.items()} == {text: u.split for text, u in before.items()}


def test_names_that_nobody_has_and_channels_that_are_not_there(tree: Tree, tmp_path: Path) -> None:
    root = calls(tree, ROWS)
    with pytest.raises(CorpusError, match=r"Tunde=1: no speaker(.|\n)*'Ade', 'Eva'"):
        import_corpus(root, tmp_path / "corpus", Plan(channels={"Tunde": 1}))
    with pytest.raises(CorpusError, match=r"'call\.wav' has 2 channels, counted from 0"):
        import_corpus(root, tmp_path / "corpus", Plan(channels={"Eva": 2}))
    assert not (tmp_path / "corpus").exists()


def test_channels_as_they_are_given() -> None:
    assert parse_channels(["Eva=0", "a=b=1"]) == {"Eva": 0, "a=b": 1}
    for wish in ("Eva", "=1", "Eva=left", "Eva=", "Eva=-1", "Eva=\u0661"):
        with pytest.raises(UsageError, match="expected SPEAKER=NUMBER"):
            parse_channels([wish])
