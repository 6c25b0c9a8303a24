from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.errors import CheckpointError
from firstwords.model.checkpoint import load_model, save_model
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.speech_gate import OPEN, SpeechGate, closed_vocabulary
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from nonsense_model import make_nonsense_model

TOKENIZER = GraphemeTokenizer.train(["one two three seven"] * 3, GraphemeConfig())
DIGITS = frozenset({"one", "two", "three"})


def reading(text: str, *sure: float) -> Hypothesis:
    tokens = tuple(TOKENIZER.encode(text))
    return Hypothesis(tokens, 0.0, {}, confidences=sure if len(sure) > 1 else sure * len(tokens))


def test_any_word_counts_where_the_vocabulary_is_open() -> None:
    assert SpeechGate(0.5).sureness(reading("ven", 0.3, 0.9, 0.9), TOKENIZER) == pytest.approx(0.7)
    assert SpeechGate(0.8).is_speech(reading("ven", 0.9), TOKENIZER)
    assert not SpeechGate(0.8).is_speech(reading("ven", 0.7), TOKENIZER)


def test_tokens_of_unknown_words_count_nothing() -> None:
    gate = SpeechGate(0.5, DIGITS)
    assert gate.sureness(reading("two", 0.9), TOKENIZER) == pytest.approx(0.9)
    assert gate.sureness(reading("ven", 0.9), TOKENIZER) == 0.0
    # t w o, then the space and the letters of "ven": four of seven tokens
    assert gate.sureness(reading("two ven", 0.7), TOKENIZER) == pytest.approx(0.7 * 3 / 7)
    assert gate.sureness(reading("ven two", 0.7), TOKENIZER) == pytest.approx(0.7 * 4 / 7)
    assert gate.sureness(reading("two one", *(0.1,) * 3, *(0.8,) * 4), TOKENIZER) == pytest.approx(0.5)
    assert not gate.is_speech(reading("tw", 0.99), TOKENIZER)
    assert gate.is_speech(reading("two one three", 0.6), TOKENIZER)


def test_what_is_not_known_passes() -> None:
    assert OPEN.sureness(Hypothesis((), 0.0, {}), TOKENIZER) is None
    for gate in (OPEN, SpeechGate(1.0, DIGITS)):
        assert gate.is_speech(Hypothesis((), 0.0, {}), TOKENIZER)
        assert gate.is_speech(Hypothesis((1, 2), 0.0, {}), TOKENIZER)  # a search without confidences


def test_the_identity_is_in_order() -> None:
    assert SpeechGate(0.5, DIGITS).identity == "0.5 one three two"
    assert OPEN.identity == "0.0"


def test_few_and_frequent_words_are_a_closed_vocabulary() -> None:
    assert closed_vocabulary(["one two", "two"] * 20) == {"one", "two"}
    assert closed_vocabulary(["one two", "two"] * 19) == frozenset()
    assert closed_vocabulary(["one two"] * 20 + ["three"]) == frozenset()
    many = [" ".join(f"w{n}" for n in range(51))] * 30
    assert closed_vocabulary(many) == frozenset()
    assert len(closed_vocabulary([many[0].rpartition(" ")[0]] * 30)) == 50
    assert closed_vocabulary([]) == frozenset()


def test_a_model_remembers_its_words(tmp_path: Path) -> None:
    folder = make_nonsense_model(tmp_path / "model")
    assert load_model(folder).speech_gate == OPEN
    loaded = load_model(folder)
    gate = SpeechGate(0.25, frozenset({"one", "àbá"}))
    save_model(folder, loaded.model, loaded.tokenizer, card="", speech_gate=gate)
    assert load_model(folder).speech_gate == gate
    content = (folder / "model.safetensors").read_bytes()
    assert content.count(b'[\\"one') == 1
    (folder / "model.safetensors").write_bytes(content.replace(b'[\\"one', b'{\\"one'))
    with pytest.raises(CheckpointError, match="where a list of words belongs"):
        load_model(folder)
