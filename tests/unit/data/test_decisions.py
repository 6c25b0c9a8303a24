"""What a person did to quarantine.jsonl outlives the next check."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.data.decisions import ALLOW, decide, read_allowed, record
from firstwords.data.manifest import read_quarantine, write_quarantine
from firstwords.errors import ManifestError


def run(folder: Path, reasons: dict[str, str], *, keep: tuple[str, ...] = ()) -> dict[str, str]:
    record(folder, folder, decide(folder, reasons, keep=keep))
    return read_quarantine(folder)


def test_a_first_check_writes_what_it_found(tmp_path: Path) -> None:
    assert run(tmp_path, {"a": "text-empty: x", "b": "overlap: y"}) == {
        "a": "text-empty: x",
        "b": "overlap: y",
    }
    assert not (tmp_path / ALLOW).exists()


def test_what_was_mended_goes(tmp_path: Path) -> None:
    run(tmp_path, {"a": "r: x", "b": "r: y"})
    assert run(tmp_path, {"b": "r: z"}) == {"b": "r: z"}
    assert read_allowed(tmp_path) == set()


def test_a_deleted_line_stays_deleted(tmp_path: Path) -> None:
    found = {"a": "r: x", "b": "r: y"}
    run(tmp_path, found)
    write_quarantine(tmp_path, {"b": "r: y"})
    decided = decide(tmp_path, found)
    assert decided.newly_allowed == ("a",)
    assert decided.allowed == {"a": "r: x"}
    for _ in range(3):
        assert run(tmp_path, found) == {"b": "r: y"}
    assert read_allowed(tmp_path) == {"a"}
    text = (tmp_path / ALLOW).read_text(encoding="utf-8")
    assert text.startswith("#")
    assert text.count("\na\n") == 1
    (tmp_path / ALLOW).unlink()  # the decision is taken back
    assert run(tmp_path, found) == found


def test_an_emptied_list_lets_all_in_and_a_deleted_file_decides_nothing(tmp_path: Path) -> None:
    found = {"a": "r: x", "b": "r: y"}
    run(tmp_path, found)
    (tmp_path / "quarantine.jsonl").unlink()
    assert run(tmp_path, found) == found
    write_quarantine(tmp_path, {})
    assert run(tmp_path, found) == {}
    assert read_allowed(tmp_path) == {"a", "b"}


def test_an_added_line_stays_until_it_is_deleted(tmp_path: Path) -> None:
    run(tmp_path, {"a": "r: x"})
    write_quarantine(tmp_path, {"a": "r: x", "mine": "the speaker withdrew"})
    for _ in range(3):
        assert run(tmp_path, {"a": "r: x"}) == {"a": "r: x", "mine": "the speaker withdrew"}
    assert run(tmp_path, {"a": "r: x", "mine": "r: found too"})["mine"] == "the speaker withdrew"
    write_quarantine(tmp_path, {"a": "r: x"})
    assert run(tmp_path, {"a": "r: x"}) == {"a": "r: x"}
    assert read_allowed(tmp_path) == set()


def test_lines_of_an_import_stay(tmp_path: Path) -> None:
    write_quarantine(tmp_path, {"i": "the source says: rejected"})
    assert run(tmp_path, {}) == {"i": "the source says: rejected"}


def test_allow_txt_can_be_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / ALLOW).write_text("\ufeff# keep these\r\n  a b \r\n\r\nc", encoding="utf-8")
    assert run(tmp_path, {"a b": "r: x", "c": "r: y", "d": "r: z"}) == {"d": "r: z"}
    write_quarantine(tmp_path, {})
    run(tmp_path, {"d": "r: z"})  # grows a file that does not end with a line break
    assert read_allowed(tmp_path) == {"a b", "c", "d"}


def test_a_fast_check_does_not_clear_what_only_listening_finds(tmp_path: Path) -> None:
    heard = ("audio-silent", "duplicate-audio")
    run(tmp_path, {"a": "audio-silent: -80 dB", "b": "text-empty: x"})
    assert run(tmp_path, {}, keep=heard) == {"a": "audio-silent: -80 dB"}
    assert run(tmp_path, {}, keep=heard) == {"a": "audio-silent: -80 dB"}
    assert run(tmp_path, {}) == {}


def test_a_broken_memory_is_no_memory(tmp_path: Path) -> None:
    run(tmp_path, {"a": "r: x"})
    for broken in ("", "[1]", "{"):
        (tmp_path / "check" / "quarantine.json").write_text(broken, encoding="utf-8")
        assert "a" in run(tmp_path, {"a": "r: x"})


def test_allow_txt_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / ALLOW).write_bytes("ọ̀rọ̀\r\n".encode("utf-16"))
    with pytest.raises(ManifestError, match=r"allow\.txt' is not UTF-8") as caught:
        read_allowed(tmp_path)
    assert "Save it as UTF-8" in caught.value.mend
