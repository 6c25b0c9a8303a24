"""A bundle keeps as silent as its model: the speech gate goes along."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_graphs import facts_of

from firstwords.errors import CheckpointError
from firstwords.export.card import write_bundle_card
from firstwords.export.left_out import left_out
from firstwords.export.make import Made, make_bundle
from firstwords.export.runtime import Runtime
from firstwords.export.write import describe
from firstwords.formatting.settings import PostConfig
from firstwords.inference.endpointing import EndpointConfig
from firstwords.inference.events import Final, Partial
from firstwords.inference.listener import Listener
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import save_model
from firstwords.search.interface import CtcBeamConfig, TransducerGreedyConfig
from firstwords.search.speech_gate import SpeechGate
from streaming_model import talk
from tone_bundle import read_facts, write_facts

RATE = 16000
SILENCE = np.zeros(3 * RATE, np.float32)
WAVES = 0.5 + 0.5 * np.sin(8 * np.pi * np.arange(3 * RATE) / RATE)
HISS = (0.1 * WAVES * np.random.default_rng(3).standard_normal(3 * RATE)).astype(np.float32)
TALK = talk(4.0, seed=1)


def sureness(runtime: Runtime, samples: np.ndarray) -> float:
    found = runtime.plain_reading(samples, RATE).confidence
    assert found is not None
    return found


@pytest.mark.parametrize("streaming", [False, True], ids=["offline", "streaming"])
def test_a_bundle_is_as_silent_as_the_recognizer(
    bundles: dict[str, Made], tmp_path: Path, streaming: bool
) -> None:
    first = bundles["streaming ctc" if streaming else "ctc"]
    loaded, opened = first.loaded, Runtime.load(first.folder)
    sure = {"hiss": sureness(opened, HISS), "talk": sureness(opened, TALK)}
    threshold = sum(sure.values()) / 2  # this model may well be surer of hiss: one of both is kept back
    save_model(tmp_path / "model", loaded.model, loaded.tokenizer, card="", speech_gate=SpeechGate(threshold))
    made = make_bundle(tmp_path / "model", tmp_path / "b", kind="ctc", streaming=streaming, chunk_ms=320)
    assert facts_of(made)["speech_gate"] == {"threshold": pytest.approx(threshold, abs=1e-4), "words": []}
    gated, recognizer = Runtime.load(made.folder), Recognizer.load(tmp_path / "model", device="cpu")
    for name, samples in (("silence", SILENCE), ("hiss", HISS), ("talk", TALK)):
        text = gated.transcribe(samples, RATE).text
        passes = sure.get(name, 0.0) >= threshold
        assert text == (opened.transcribe(samples, RATE).text if passes else "")
        assert bool(text) == passes
        if not streaming:  # a streaming bundle reads in chunks, the recognizer a recording as a whole
            assert text == recognizer.transcribe_samples(samples, RATE).text
        else:
            stream = gated.stream()
            stream.accept(samples, RATE)
            stream.finish()
            assert bool(stream.text) <= bool(text) or name == "talk"  # talk is parted at pauses


def test_words_travel_and_a_gate_of_ctc_does_not_judge_the_transducer(
    bundles: dict[str, Made], tmp_path: Path
) -> None:
    made = bundles["ctc"]
    words = frozenset({"aei", "ou"})
    gated = replace(made.loaded, speech_gate=SpeechGate(0.5, words))
    files = {path.name: path.read_bytes() for path in made.folder.glob("*.onnx")}
    assert describe(made.plan, gated, files)["speech_gate"] == {"threshold": 0.5, "words": ["aei", "ou"]}
    other = bundles["transducer"].plan
    assert describe(other, gated, files)["speech_gate"] == {"threshold": 0.0, "words": []}
    pieces = made.loaded.tokenizer
    assert [pieces.decode(w) for w in describe(made.plan, gated, files)["known_words"]] == ["aei", "ou"]
    assert describe(other, gated, files)["known_words"] == []


def test_near_misses_of_known_words_are_read_as_the_recognizer_does(
    bundles: dict[str, Made], tmp_path: Path
) -> None:
    first = bundles["ctc"]
    plain = Runtime.load(first.folder).transcribe(TALK, RATE).text
    words = frozenset(word[1:] for word in plain.split() if len(word) > 2) or frozenset({plain[1:]})
    gate = SpeechGate(0.0, words)
    save_model(tmp_path / "model", first.loaded.model, first.loaded.tokenizer, card="", speech_gate=gate)
    made = make_bundle(tmp_path / "model", tmp_path / "b", kind="ctc")
    runtime, recognizer = Runtime.load(made.folder), Recognizer.load(tmp_path / "model", device="cpu")
    assert runtime.closed_words == len(words)
    found = runtime.transcribe(TALK, RATE).text
    assert found == recognizer.transcribe_samples(TALK, RATE).text
    assert found != plain
    runtime.use(beam=2)
    assert runtime.closed_words == 0
    facts = read_facts(made.folder)
    facts["known_words"][0].append(999)
    write_facts(made.folder, facts)
    with pytest.raises(CheckpointError, match="known_words"):
        Runtime.load(made.folder)


def test_streams_read_near_misses_as_those_of_the_model(bundles: dict[str, Made], tmp_path: Path) -> None:
    def finals(listener: Listener) -> list[str]:
        events = [*listener.accept(talk(12.0, seed=1)), *listener.finish()]
        assert closed <= all(event.stable == "" for event in events if isinstance(event, Partial))
        # The last is another even so: a bundle reads silence behind the end.
        return [event.text for event in events if isinstance(event, Final)][:-1]

    rules = EndpointConfig(trailing_silence=0.12, trailing_blank=0.2, longest=2.0)
    first, closed = bundles["streaming ctc"], False
    plain = finals(Runtime.load(first.folder).listener(endpoints=rules))
    words = frozenset(sorted({word for text in plain for word in text.split()}, key=len)[3:6])
    gate, closed = SpeechGate(0.0, words), True
    save_model(tmp_path / "model", first.loaded.model, first.loaded.tokenizer, card="", speech_gate=gate)
    made = make_bundle(tmp_path / "model", tmp_path / "b", kind="ctc", streaming=True, chunk_ms=320)
    runtime, recognizer = Runtime.load(made.folder), Recognizer.load(tmp_path / "model", device="cpu")
    found = finals(runtime.listener(endpoints=rules))
    assert found == finals(recognizer.listener(chunk_ms=320, endpoints=rules))
    assert sum(a != b for a, b in zip(found, plain, strict=True)) >= 3
    runtime.use(beam=2)
    assert runtime.closed_words == 0
    closed = False
    assert finals(runtime.listener(endpoints=rules)) != found


def test_what_stays_behind_is_named(bundles: dict[str, Made]) -> None:
    made = bundles["ctc"]
    assert left_out(made.loaded, made.plan) == ()
    post = PostConfig.model_validate(
        {"stages": ("numbers", "punctuation"), "punctuation": {"model": "marks"}}
    )
    recipe = made.loaded.recipe.with_(post=post, search=CtcBeamConfig(beam=4))
    loaded = replace(made.loaded, recipe=recipe, speech_gate=SpeechGate(0.1, frozenset({"a", "o"})))
    formatting, kept, search, closed = left_out(loaded, made.plan)
    assert "(punctuation) is not in the bundle" in formatting
    assert "(numbers) is in the bundle" in kept
    assert ("sherpa-onnx" in kept) == (not made.plan.alone)
    assert "ctc_beam" in search
    assert "--beam" in search
    assert "2 words" in closed
    assert ("sherpa-onnx" in closed) == (not made.plan.alone)
    assert left_out(loaded, bundles["streaming ctc"].plan)[-1] == closed
    *_, lost = left_out(loaded, bundles["transducer"].plan)
    assert "not in the bundle" in lost
    several = made.loaded.recipe.with_(search=TransducerGreedyConfig(symbols_per_frame=3))
    (fewer,) = left_out(replace(made.loaded, recipe=several), bundles["transducer"].plan)
    assert "one token per frame at most, the model 3" in fewer
    once = made.loaded.recipe.with_(search=TransducerGreedyConfig(symbols_per_frame=1))
    assert left_out(replace(made.loaded, recipe=once), bundles["transducer"].plan) == ()
    told = replace(made, left_out=(formatting, closed))
    card = write_bundle_card(told, ["PyTorch"], "20 utterances", "| |")
    assert formatting in card
    assert closed in card


def test_the_card_speaks_of_what_a_bundle_has(bundles: dict[str, Made]) -> None:
    def card(name: str, gate: SpeechGate) -> str:
        made = bundles[name]
        told = replace(made, loaded=replace(made.loaded, speech_gate=gate))
        return write_bundle_card(told, ["PyTorch"], "20 utterances", "| |")

    few, some = SpeechGate(0.3, frozenset({"a", "o"})), SpeechGate(0.3)
    given = "Language models and phrases are given"
    for name in ("ctc", "streaming ctc"):
        assert "speech gate and the closed vocabulary" in card(name, few)
        assert "The speech gate stands" in card(name, some)
        assert "closed vocabulary" not in card(name, some)
        assert "gate" not in card(name, SpeechGate())
        assert all(given in card(name, gate) for gate in (few, some, SpeechGate()))
    for gate in (few, some):  # that of the CTC head beside it
        found = card("transducer", gate)
        assert "gate" not in found
        assert "closed" not in found
        assert given not in found
        assert "greedily, without language models" in found
