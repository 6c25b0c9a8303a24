"""The record of what was made: files of others are told from ours, what is another thing today is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.errors import WriteError
from firstwords.inference.made import RECORD, changed, made_in, note_made

GREEDY = {"model": "m", "search": "greedy", "language model or list of phrases": "", "second pass": ""}
FUSED = GREEDY | {"search": "beam", "language model or list of phrases": "lm 1"}


def test_what_was_written_is_known_and_nothing_else(tmp_path: Path) -> None:
    note_made(tmp_path, {"a.txt": b"one", "a.srt": b"1 one"}, GREEDY)
    known = made_in(tmp_path)
    assert set(known) == {"a.txt", "a.srt"}
    (tmp_path / "a.txt").write_bytes(b"one")
    assert known["a.txt"].is_in(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b"won")  # somebody has corrected it
    assert not known["a.txt"].is_in(tmp_path / "a.txt")
    note_made(tmp_path, {"a.txt": b"two"}, GREEDY)  # a kill between the record and the file: both are ours
    for data in (b"one", b"two"):
        (tmp_path / "a.txt").write_bytes(data)
        assert made_in(tmp_path)["a.txt"].is_in(tmp_path / "a.txt")


def test_the_last_record_of_a_file_counts(tmp_path: Path) -> None:
    note_made(tmp_path, {"a.txt": b"a", "a.srt": b"s"}, FUSED)
    note_made(tmp_path, {"b.txt": b"b"}, FUSED | {"second pass": "x"})
    known = {name: made.marks for name, made in made_in(tmp_path).items()}
    assert set(known) == {"a.txt", "a.srt", "b.txt"}
    assert changed(known["a.txt"], FUSED) == []
    assert changed(known["b.txt"], FUSED) == ["second pass"]
    assert changed(known["a.srt"], FUSED | {"model": "n"}) == ["model"]
    assert changed(known["a.srt"], GREEDY) == ["search", "language model or list of phrases"]
    note_made(tmp_path, {"a.txt": b"c"}, GREEDY)
    assert changed(made_in(tmp_path)["a.txt"].marks, GREEDY) == []
    assert changed(made_in(tmp_path)["a.srt"].marks, FUSED) == []


def test_a_torn_or_foreign_record_harms_nothing(tmp_path: Path) -> None:
    note_made(tmp_path, {"ሰላም.txt": b"a"}, FUSED)
    whole = (tmp_path / RECORD).read_bytes()
    (tmp_path / RECORD).write_bytes(
        b'[1]\n{"files": 1, "with": 2}\n{"files": ["x"], "with": {}}\n\xff\xfe\nnull\n' + whole + whole[:-20]
    )
    assert set(made_in(tmp_path)) == {"ሰላም.txt"}
    note_made(tmp_path, {"b.txt": b"b"}, FUSED)  # behind a line that a kill has torn
    assert set(made_in(tmp_path)) == {"ሰላም.txt", "b.txt"}
    (tmp_path / RECORD).unlink()
    (tmp_path / RECORD).mkdir()
    with pytest.raises(WriteError, match=RECORD):  # before anything is written that nobody would know
        note_made(tmp_path, {"a.txt": b"a"}, FUSED)
    assert made_in(tmp_path) == {}
