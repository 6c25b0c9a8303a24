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
HISS = (0.1 * np.random.default_rng(3).standard_normal(3 * RATE)).astype(np.float32)
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
    opened = Runtime.load(first.folder)
    assert opened.transcribe(HISS, RATE).text  # what the gate is for
    noise, speech = sureness(opened, HISS), sureness(opened, TALK)
    gate = SpeechGate((noise + speech) / 2)
    loaded = first.loaded
    save_model(tmp_path / "model", loaded.model, loaded.tokenizer, card="", speech_gate=gate)
    made = make_bundle(tmp_path / "model", tmp_path / "b", kind="ctc", streaming=streaming, chunk_ms=320)
    assert facts_of(made)["speech_gate"] == {
        "threshold": pytest.approx(gate.threshold, abs=1e-3),
        "words": [],
    }
    runtime = Runtime.load(made.folder)
    recognizer = Recognizer.load(tmp_path / "model", device="cpu")
    texts: list[str] = []
    for samples in (SILENCE, HISS, TALK):
        texts.append(runtime.transcribe(samples, RATE).text)
        if not streaming:  # a streaming bundle reads in chunks, the recognizer a whole recording at once
            assert texts[-1] == recognizer.transcribe_samples(samples, RATE).text
    assert texts[0] == ""
    assert [bool(text) for text in texts[1:]] == [noise > speech, speech > noise]
    stream = runtime.stream() if streaming else None
    if stream is not None:
        stream.accept(HISS, RATE)
        stream.finish()
        assert bool(stream.text) == (noise > speech)


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
