"""The subword tokenizer: any vocabulary size works, ids agree with sentencepiece, hostile files."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.errors import TextError
from firstwords.text.load import load_tokenizer
from firstwords.text.subwords import MODEL, SubwordConfig, SubwordTokenizer, fit_vocabulary

TEXTS = ["the more the merrier", "the other the mother", "more and more others"] * 5


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("vocabulary", [1, 20, 5000, "auto"])
@pytest.mark.parametrize("texts", [["a"], ["aa ab"], TEXTS])
def test_no_vocabulary_size_fails(model: str, vocabulary: int | str, texts: list[str]) -> None:
    config = SubwordConfig.model_validate({"model": model, "vocabulary": vocabulary})
    tokenizer = SubwordTokenizer.train(texts, config)
    letters = len(set(" ".join(texts)) | {" "})
    learned = len(tokenizer.pieces) - 257
    assert letters <= learned
    if isinstance(vocabulary, int):
        assert learned <= max(vocabulary, letters)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_subwords_are_longer_than_letters(model: str) -> None:
    tokenizer = SubwordTokenizer.train(
        TEXTS, SubwordConfig.model_validate({"model": model, "vocabulary": 60})
    )
    tokens = tokenizer.encode("the mother")
    assert len(tokens) < len("the mother")
    assert "the" in [tokenizer.pieces[t].lstrip("▁") for t in tokens]


def test_empty_text_is_no_token() -> None:
    assert SubwordTokenizer.train(TEXTS).encode("") == []


def test_long_lines_are_not_dropped() -> None:
    """sentencepiece by default skips lines over 4192 bytes, with their letters."""
    tokenizer = SubwordTokenizer.train(["ab " * 5000 + "ξ"])
    assert "ξ" in tokenizer.pieces


def test_auto_grows_slowly() -> None:
    assert fit_vocabulary(30, 50_000) == 142
    assert fit_vocabulary(30, 5_000_000) == 1148
    assert fit_vocabulary(30, 10**9) == 2030


def test_no_text_is_refused() -> None:
    with pytest.raises(TextError, match="no text"):
        SubwordTokenizer.train([" ", ""])


@pytest.mark.parametrize("content", [None, b"", b"junk", b"\x00" * 64])
def test_hostile_model_files(tmp_path: Path, content: bytes | None) -> None:
    SubwordTokenizer.train(TEXTS).save(tmp_path)
    if content is None:
        (tmp_path / MODEL).unlink()
    else:
        (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(TextError):
        load_tokenizer(tmp_path)


def test_a_model_of_other_pieces_is_refused(tmp_path: Path) -> None:
    SubwordTokenizer.train(TEXTS).save(tmp_path)
    (tmp_path / MODEL).write_bytes(SubwordTokenizer.train(["quite other text"]).model)
    with pytest.raises(TextError, match="different tokenizers"):
        load_tokenizer(tmp_path)
