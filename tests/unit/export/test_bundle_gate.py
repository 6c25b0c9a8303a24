"""A bundle keeps as silent as its model: the speech gate goes along."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_graphs import facts_of

from firstwords.export.make import Made, make_bundle
from firstwords.export.runtime import Runtime
from firstwords.export.write import describe
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import save_model
from firstwords.search.speech_gate import SpeechGate
from streaming_model import talk

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
