"""The record of how transcripts were made: what is another thing today is named."""

from __future__ import annotations

from pathlib import Path

from firstwords.inference.made import RECORD, changed, made_with, note_made

PLAIN = {"model": "m", "search": "greedy", "language model or list of phrases": "", "second pass": ""}
FUSED = PLAIN | {"search": "beam", "language model or list of phrases": "lm 1"}


def test_what_was_made_as_the_recipe_says_leaves_nothing(tmp_path: Path) -> None:
    note_made([tmp_path / "a.txt"], PLAIN, PLAIN)
    assert list(tmp_path.iterdir()) == []
    assert made_with(tmp_path) == {}
    assert changed({}, PLAIN, PLAIN) == []
    assert changed({}, FUSED, PLAIN) == ["search", "language model or list of phrases"]
    # Without a record it is not known which model it was.
    assert changed({}, PLAIN | {"model": "n"}, PLAIN | {"model": "n"}) == []


def test_the_last_record_of_a_file_counts(tmp_path: Path) -> None:
    note_made([tmp_path / "a.txt", tmp_path / "a.srt"], FUSED, PLAIN)
    note_made([tmp_path / "b.txt"], FUSED | {"second pass": "x"}, PLAIN)
    known = made_with(tmp_path)
    assert set(known) == {"a.txt", "a.srt", "b.txt"}
    assert changed(known["a.txt"], FUSED, PLAIN) == []
    assert changed(known["b.txt"], FUSED, PLAIN) == ["second pass"]
    assert changed(known["a.srt"], FUSED | {"model": "n"}, PLAIN | {"model": "n"}) == ["model"]
    assert changed(known["a.srt"], PLAIN, PLAIN) == ["search", "language model or list of phrases"]
    note_made([tmp_path / "a.txt"], PLAIN, PLAIN)
    assert set(made_with(tmp_path)) == {"a.srt", "b.txt"}


def test_a_torn_or_foreign_record_harms_nothing(tmp_path: Path) -> None:
    note_made([tmp_path / "ሰላም.txt"], FUSED, PLAIN)
    whole = (tmp_path / RECORD).read_bytes()
    (tmp_path / RECORD).write_bytes(b'[1]\n{"files": 1, "with": 2}\n\xff\xfe\nnull\n' + whole + whole[:-20])
    assert set(made_with(tmp_path)) == {"ሰላም.txt"}
    note_made([tmp_path / "b.txt"], FUSED, PLAIN)  # behind a line that a kill has torn
    assert set(made_with(tmp_path)) == {"ሰላም.txt", "b.txt"}
    (tmp_path / RECORD).unlink()
    (tmp_path / RECORD).mkdir()
    note_made([tmp_path / "a.txt"], FUSED, PLAIN)  # cannot be written: the transcript is there all the same
    assert made_with(tmp_path) == {}
