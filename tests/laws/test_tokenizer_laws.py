"""Laws of every tokenizer kind: decode(encode(t)) == t, blank is never produced, saving changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstwords.data.manifest import load_corpus
from firstwords.text.characters import GraphemeConfig
from firstwords.text.load import load_tokenizer, train_tokenizer
from firstwords.text.normalize import NORMALIZERS, normalizer
from firstwords.text.subwords import SubwordConfig
from firstwords.text.tokenizer import BLANK, Tokenizer

TEXTS = [
    "ọlọ́run ń bọ̀",
    "नमस्ते दुनिया क्षि",
    "안녕하세요 세계",
    "it's a well-known word",
    "the word is a word",
    "ภาษาไทย",
] * 3
CONFIGS = {
    "graphemes": GraphemeConfig(),
    "unigram": SubwordConfig(),
    "bpe": SubwordConfig(model="bpe", vocabulary=60),
}
KINDS = list(CONFIGS)
TOKENIZERS: dict[str, Tokenizer] = {kind: train_tokenizer(config, TEXTS) for kind, config in CONFIGS.items()}
AWKWARD = [
    "",
    " ",
    "  a  b ",
    "▁",
    "a▁b ▁",
    "<blank>",
    "<0x41>",
    "a\nb\r\n",
    "\u0301",
    " \u0301a",
    "👨‍👩‍👧 👍🏽",
    "\u202ea\u200d",
    "\x00\x1f",
    "a\u2028b\u0085",
    "\ufffd",
    "⁇",
]


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text())
def test_any_text_comes_back(kind: str, text: str) -> None:
    tokens = TOKENIZERS[kind].encode(text)
    assert 0 not in tokens
    assert TOKENIZERS[kind].decode(tokens) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_come_back(kind: str, text: str) -> None:
    assert TOKENIZERS[kind].decode(TOKENIZERS[kind].encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_blank_is_first_skipped_and_pieces_are_unique(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    assert tokenizer.pieces[0] == BLANK
    assert len(set(tokenizer.pieces)) == len(tokenizer.pieces)
    tokens = tokenizer.encode("a word")
    assert tokenizer.decode([0, *[t for token in tokens for t in (token, 0)]]) == "a word"


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]
    tokenizer.save(tmp_path / "tokenizer")
    again = load_tokenizer(tmp_path / "tokenizer")
    assert type(again) is type(tokenizer)
    assert again.pieces == tokenizer.pieces
    assert again.piece_hash == tokenizer.piece_hash
    for text in (*TEXTS, *AWKWARD):
        assert again.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic_and_the_hash_tells_texts_apart(kind: str) -> None:
    again = train_tokenizer(CONFIGS[kind], TEXTS)
    other = train_tokenizer(CONFIGS[kind], [*TEXTS, "ξένος"])
    assert again.piece_hash == TOKENIZERS[kind].piece_hash
    assert other.piece_hash != again.piece_hash


@pytest.mark.parametrize("make", [GraphemeConfig, SubwordConfig])
@pytest.mark.parametrize("name", ["nfc", "default", "formatted"])
def test_thirty_languages_come_back(
    make: Callable[[], GraphemeConfig | SubwordConfig], name: str, corpora: Path
) -> None:
    normalize = normalizer(name)
    by_language: dict[str, list[str]] = {}
    for utterance in load_corpus(corpora / "thirty_languages").utterances:
        by_language.setdefault(utterance.language or "", []).append(normalize(utterance.text or ""))
    assert len(by_language) == 30
    for texts in by_language.values():
        tokenizer = train_tokenizer(make(), texts[:25])  # the other half brings unseen letters
        for text in texts:
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", list(NORMALIZERS))
@given(text=st.text())
def test_normalizers_are_idempotent(name: str, text: str) -> None:
    once = normalizer(name)(text)
    assert normalizer(name)(once) == once


@pytest.mark.parametrize("name", list(NORMALIZERS))
@given(text=st.text(alphabet="aA1İIßΣ'’‘‚ʼ·״-‐—\"._ \u0301\u0345\u00ad\u200b\u200dשב\u0640ک"))
def test_normalizers_are_idempotent_around_apostrophes_and_hyphens(name: str, text: str) -> None:
    once = normalizer(name)(text)
    assert normalizer(name)(once) == once
