"""The grapheme tokenizer: what becomes a piece, the fall to code points and bytes, hostile files."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.config import parse_config
from firstwords.errors import ConfigError, TextError
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.text.load import load_tokenizer
from firstwords.text.pieces import BYTES, PIECES, SETTINGS

SMALL = GraphemeConfig(bytes=False)


def test_pieces_by_hand() -> None:
    """ọ̀ is seen three times and is one piece; ọ́ twice, so it is spelled ọ + U+0301."""
    tokenizer = GraphemeTokenizer.train(["bọ̀ bọ̀", "bọ̀ ọ́ ọ́"], SMALL)
    assert tokenizer.pieces == ("<blank>", "▁", "b", "\u0301", "ọ", "ọ\u0300")
    assert tokenizer.encode("bọ̀ ọ́") == [2, 5, 1, 4, 3]
    assert tokenizer.decode([0, 2, 0, 5, 1, 4, 3, 0]) == "bọ̀ ọ́"


def test_a_letter_seen_once_is_still_a_piece_of_its_own() -> None:
    tokenizer = GraphemeTokenizer.train(["aaa z"], SMALL)
    assert tokenizer.pieces == ("<blank>", "▁", "a", "z")


def test_bytes_spell_what_training_never_saw() -> None:
    tokenizer = GraphemeTokenizer.train(["abc"])
    assert tokenizer.pieces[-256:] == BYTES
    tokens = tokenizer.encode("aé")
    assert [tokenizer.pieces[t] for t in tokens] == ["a", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokens) == "aé"
    assert tokenizer.decode(tokens[:2]) == "a\ufffd"
    assert tokenizer.decode([tokens[1], tokens[0], tokens[2]]) == "\ufffda\ufffd"


def test_without_bytes_the_unknown_letter_is_named() -> None:
    with pytest.raises(TextError, match=r"'é' \(U\+00E9\)"):
        GraphemeTokenizer.train(["abc"], SMALL).encode("aé")


def test_order_of_texts_and_counts_do_not_change_the_pieces() -> None:
    one = GraphemeTokenizer.train(["abc", "cba", "abc"])
    other = GraphemeTokenizer.train(["ccc bbb aaa"] * 7)
    assert one.piece_hash == other.piece_hash


def test_no_text_is_refused() -> None:
    for texts in ([], ["", "  "]):
        with pytest.raises(TextError, match="no text"):
            GraphemeTokenizer.train(texts)


def test_half_a_utf16_pair_is_named() -> None:
    with pytest.raises(TextError, match=r"U\+D83D"):
        GraphemeTokenizer.train(["ab\ud83d"])
    with pytest.raises(TextError, match=r"U\+D83D"):
        GraphemeTokenizer.train(["ab"]).encode("ab\ud83d")


def test_foreign_ids_are_refused() -> None:
    tokenizer = GraphemeTokenizer.train(["ab"], SMALL)
    for token in (-1, 4, 99):
        with pytest.raises(TextError, match="not in this vocabulary of 4"):
            tokenizer.decode([token])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (PIECES, None, "pieces.txt is missing"),
        (PIECES, b"\xff\xfe", "cannot be read"),
        (PIECES, b"", "first piece"),
        (PIECES, b"a\n<blank>\n", "first piece"),
        (PIECES, b"<blank>\na\na\n", "stands twice"),
        (PIECES, b"<blank>\n\na\n", "empty or has white space"),
        (PIECES, b"<blank>\r\na\r\n", "first piece"),
        (PIECES, "<blank>\n▁\na\nc\n".encode(), "was changed"),
        (SETTINGS, None, "tokenizer.toml is missing"),
        (SETTINGS, b"kind = ", "not TOML"),
        (SETTINGS, b"format = 1\nkind = 3\nhash = 'x'", "'kind' is missing"),
        (SETTINGS, b"format = 2\nkind = 'graphemes'\nhash = 'x'", "format is 2"),
        (SETTINGS, b"format = 1\nkind = 'phones'\nhash = 'x'", "kind 'phones'"),
    ],
)
def test_hostile_folders(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    GraphemeTokenizer.train(["ab"], SMALL).save(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TextError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.mend


def test_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    GraphemeTokenizer.train(["ab"]).save(tmp_path)
    (tmp_path / SETTINGS).write_text(
        (tmp_path / SETTINGS).read_text(encoding="utf-8").replace("graphemes", "subwords"), encoding="utf-8"
    )
    with pytest.raises(TextError, match="subwords"):
        load_tokenizer(tmp_path)


def test_settings_are_strict() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'min_count'"):
        parse_config({"min_cuont": 2}, GraphemeConfig, name="recipe.tokenizer", source="r.toml")
