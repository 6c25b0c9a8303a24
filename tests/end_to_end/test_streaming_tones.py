"""A causal model that has learned: whole recordings and streams read the same words, at the end of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstwords.audio.waveform import read
from firstwords.data.manifest import load_corpus
from firstwords.inference.events import Final
from firstwords.inference.recognizer import Recognizer
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from streaming_model import causal_recipe
from tone_corpus import RATE, make_tone_corpus, tone_recipe


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_causal_model_learns_and_streams(tmp_path: Path) -> None:
    corpus = make_tone_corpus(tmp_path / "corpus", train=64)
    training = tone_recipe(steps=400, optimizer="adamw", schedule={"kind": "cosine", "lr": 0.003}).training
    recipe = causal_recipe(training=training.model_dump())
    train_corpus(
        corpus, tmp_path / "run", recipe=recipe, device="cpu", threads=1, progress=Progress(quiet=True)
    )
    recognizer = Recognizer.load(tmp_path / "run", device="cpu")
    utterances = load_corpus(corpus).split("test")
    whole = ErrorRate()
    for utterance, made in zip(utterances, recognizer.transcribe_many(utterances), strict=True):
        whole += grapheme_errors(utterance.text or "", made.text)
    assert whole.rate < 0.1

    generator = np.random.default_rng(0)
    pause = (0.003 * generator.standard_normal(2 * RATE)).astype(np.float32)
    blocks = [part for utterance in utterances for part in (read(utterance.audio).samples, pause)]
    said = [utterance.text or "" for utterance in utterances]
    for chunk_ms in (320, 640, 1280):
        listener = recognizer.listener(chunk_ms=chunk_ms)
        events = [event for block in blocks for event in listener.accept(block)] + listener.finish()
        finals = [event for event in events if isinstance(event, Final) and event.text]
        assert len(finals) == len(said)
        assert {event.reason for event in finals} <= {"trailing_silence", "end"}
        streamed = sum((grapheme_errors(a, b.text) for a, b in zip(said, finals, strict=True)), ErrorRate())
        assert streamed.rate < 0.15, chunk_ms
        report = listener.latency
        assert report.to_partial is not None
        assert report.to_partial.median < report.algorithmic + 0.3
