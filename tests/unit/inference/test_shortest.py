"""Audio that is too short for the encoder is filled up with silence so far that it gives a frame, no further.

Words that are cut close were read as nothing otherwise: models that were trained on such clips hear an end in
silence that was never there.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from firstwords.device import Compute
from firstwords.export.bundle import read_bundle
from firstwords.export.runtime import Runtime
from firstwords.inference.frames import encoded_frames
from firstwords.model.speech_model import HEARD, SpeechModel
from firstwords.tensors import pad
from small_models import ENCODERS, small_model
from tone_bundle import RATE, make_tone_bundle
from tone_corpus import tone_recipe

CPU = Compute(torch.device("cpu"), torch.float32, "a test")


def frames_of(model: SpeechModel, samples: int) -> int:
    sound = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return int(model.encode(pad([sound])).lengths[0])


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_shortest_gives_a_frame(kind: str) -> None:
    model = small_model(kind)
    rate = model.recipe.data.sample_rate
    assert frames_of(model, model.shortest_samples) >= 1
    assert model.shortest_samples >= round(HEARD * rate)
    if model.shortest_samples > round(HEARD * rate):
        assert frames_of(model, model.shortest_samples - 1) == 0


def test_an_encoder_that_needs_more_than_training_heard() -> None:
    """Sixteen feature frames for one of its own."""
    values = tone_recipe().model_dump()
    encoder = {"kind": "conformer", "dim": 24, "layers": 1, "heads": 2, "feedforward": 32, "kernel": 9}
    values["encoder"] = encoder | {"subsampling": {"factor": 8, "channels": 8, "separable": True}}
    model = SpeechModel(type(tone_recipe()).model_validate(values), 12).eval()
    assert model.shortest_samples == pytest.approx(0.145 * RATE, abs=1)
    assert frames_of(model, model.shortest_samples) == 1
    assert frames_of(model, model.shortest_samples - 1) == 0


@pytest.mark.parametrize("seconds", [0.11, 0.17, 0.24])
def test_what_is_long_enough_is_read_as_it_is(seconds: float) -> None:
    model = small_model("resnet")
    sound = 0.1 * np.random.default_rng(1).standard_normal(round(seconds * RATE)).astype(np.float32)
    with torch.inference_mode():
        read, plain = encoded_frames(model, CPU, [sound]), model.encode(pad([torch.from_numpy(sound)]))
    assert read.lengths.tolist() == plain.lengths.tolist()
    assert torch.equal(read.values, plain.values)
    (short,) = encoded_frames(model, CPU, [sound[:100]]).lengths.tolist()
    assert short == frames_of(model, model.shortest_samples)


def test_a_bundle_says_how_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime fills up to there; bundles of before do not say it and are read as they were checked."""
    folder = make_tone_bundle(tmp_path / "bundle")
    facts = read_bundle(folder)
    assert facts.least_samples == round(0.25 * RATE)
    values = json.loads((folder / "bundle.json").read_text(encoding="utf-8")) | {"shortest_samples": 1700}
    (folder / "bundle.json").write_text(json.dumps(values), encoding="utf-8")
    runtime = Runtime.load(folder)
    filled: list[int] = []

    graphs = runtime._graphs  # pyright: ignore[reportPrivateUsage]
    encode = graphs.encode

    def watched(batch: list[np.ndarray], threads: int) -> list[np.ndarray]:
        filled.extend(len(one) for one in batch)
        return encode(batch, threads)

    monkeypatch.setattr(graphs, "encode", watched)
    rng = np.random.default_rng(1)
    for count in (500, 2000):
        runtime.transcribe(0.1 * rng.standard_normal(count).astype(np.float32), RATE)
    assert filled == [1700, 2000]
