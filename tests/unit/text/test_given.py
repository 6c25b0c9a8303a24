"""Foreign piece lists: ids as they are, fewest pieces, hostile files."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.errors import TextError
from firstwords.text.given import GivenTokenizer
from firstwords.text.load import load_tokenizer

NAMES = ["<blk>", "<sos/eos>", "<unk>", "▁", "▁THE", "T", "H", "E", "HE", "▁T", "RE", "R", "<0xC3>", "<0x89>"]
BPE = "".join(f"{name} {number}\n" for number, name in enumerate(NAMES))


def read(tmp_path: Path, text: str) -> GivenTokenizer:
    path = tmp_path / "tokens.txt"
    path.write_bytes(text.encode())
    return GivenTokenizer.read(path)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("THE", [4]),
        ("THE THERE", [4, 4, 10]),
        ("HE", [3, 8]),
        ("", []),
        ("TÉ", [9, 12, 13]),
        ("T T ", [9, 9, 3]),
    ],
)
def test_fewest_pieces_and_back(tmp_path: Path, text: str, tokens: list[int]) -> None:
    tokenizer = read(tmp_path, BPE)
    assert tokenizer.encode(text) == tokens
    assert tokenizer.decode(tokens) == text


def test_marks_are_no_text(tmp_path: Path) -> None:
    assert read(tmp_path, BPE).decode([1, 4, 2, 0, 10, 1]) == "THERE"


def test_letters_without_word_pieces_get_no_space_before_the_first_word(tmp_path: Path) -> None:
    tokenizer = read(tmp_path, "<eps> 0\n▁ 1\na 2\nb 3\n")
    assert tokenizer.encode("a b") == [2, 1, 3]
    assert tokenizer.decode([2, 1, 3]) == "a b"
    assert read(tmp_path, "b 2\r\n<blk> 0\r\na 1\r\n").pieces == ("<blank>", "a", "b")


def test_saved_and_loaded(tmp_path: Path) -> None:
    tokenizer = read(tmp_path, BPE)
    tokenizer.save(tmp_path / "tokenizer")
    again = load_tokenizer(tmp_path / "tokenizer")
    assert isinstance(again, GivenTokenizer)
    assert (again.pieces, again.piece_hash) == (tokenizer.pieces, tokenizer.piece_hash)


def test_what_cannot_be_spelled_is_named(tmp_path: Path) -> None:
    tokenizer = read(tmp_path, BPE)
    for text, name in (("THX", r"'X' \(U\+0058\)"), ("THÊ", "U\\+00CA")):
        with pytest.raises(TextError, match=name):
            tokenizer.encode(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "id 0 is None"),
        ("a 0\nb 1\n", "id 0 is 'a'"),
        ("<blk> 0\na 2\n", "id 1 is missing"),
        ("<blk> 0\na 1\nb 1\n", "line 3"),
        ("<blk> 0\na\n", "line 2"),
        ("<blk> 0\na x\n", "line 2"),
        ("<blk> 0\na 1\na 2\n", "stands twice"),
    ],
)
def test_hostile_lists(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        read(tmp_path, content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="cannot be read"):
        GivenTokenizer.read(tmp_path / "none.txt")
