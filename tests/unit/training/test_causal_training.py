"""Causal models learn by the same task, with chunks drawn for each batch; the recipe that does so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_recognition import batch_of

from firstwords.device import Compute
from firstwords.encoders.zipformer import encoder as module
from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.inference.encoding_stream import choose_context
from firstwords.model.recipe import read_recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.text.characters import GraphemeConfig
from firstwords.text.load import train_tokenizer
from firstwords.text.normalize import normalizer
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask
from streaming_model import causal_recipe

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "streaming_tiny.toml"


@pytest.mark.parametrize("consistency", [0.0, 0.2])
def test_every_batch_draws_its_chunk_and_every_weight_learns(
    consistency: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {"ctc": {"dropout": 0.0, "consistency": consistency}}
    tokenizer = train_tokenizer(GraphemeConfig(), ["aeiou " * 3] * 3)
    torch.manual_seed(5)
    model = SpeechModel(causal_recipe(heads=heads), len(tokenizer.pieces))
    task = RecognitionTask(
        model,
        tokenizer,
        compute=Compute(torch.device("cpu"), torch.float32, "test"),
        masking=None,
        settings=RecognitionSettings(scoring=normalizer("score_default")),
    )
    drawn: set[int] = set()
    real = module.chunk_mask

    def watched(time: int, chunk: int, left: int, device: torch.device | None = None) -> torch.Tensor:
        drawn.add(chunk)
        return real(time, chunk, left, device)

    monkeypatch.setattr(module, "chunk_mask", watched)
    model.train()
    batch = batch_of([(2.0, 5), (1.2, 3)])
    for step in range(12):
        task.set_step(step, 1000.0 * step)
        loss = task.loss(batch)
        assert torch.isfinite(loss.total)
        loss.total.backward()
    assert drawn == {16, 32, 64}
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    scale = "chunkwise_conv_scale"
    assert all(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if scale in n)


def test_the_streaming_recipe_streams() -> None:
    recipe = read_recipe(RECIPE)
    model = SpeechModel(recipe, 40)
    assert isinstance(model.encoder, Zipformer)
    assert 1.5e6 < model.num_parameters < 3e6
    for milliseconds in (320, 640, 1280):
        context = choose_context(model, chunk_ms=milliseconds, left_ms=None)
        assert context.chunk in recipe.encoder.chunks
        assert context.left * context.unit == pytest.approx(5.12)
