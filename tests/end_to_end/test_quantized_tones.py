"""A model that learned tones, quantized every way: what it reads stays the same, or is trained back."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.compression.quantize import Order, quantize
from firstwords.data.manifest import load_corpus
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import load_model
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from tone_corpus import LEARN, make_tone_corpus, tone_recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tones")
    make_tone_corpus(home / "corpus", train=48, dev=12, test=12)
    recipe = tone_recipe(steps=320, validate_every=320, workers=0, **LEARN)
    train_corpus(
        home / "corpus", home / "model", recipe=recipe, device="cpu", threads=1, progress=Progress(quiet=True)
    )
    return home


def texts(folder: Path, corpus: Path, *, int8: bool = False) -> list[str]:
    recognizer = Recognizer.load(folder, device="cpu", int8=int8)
    return [t.text for t in recognizer.transcribe_many(load_corpus(corpus).split("test"))]


@pytest.mark.slow
def test_what_is_read_survives_and_training_mends(home: Path, tmp_path: Path) -> None:
    corpus = home / "corpus"
    expected = [u.text for u in load_corpus(corpus).split("test")]
    before = texts(home / "model", corpus)
    assert sum(a == b for a, b in zip(before, expected, strict=True)) >= 9  # it learned something

    def same(folder: Path, *, int8: bool = False) -> int:
        return sum(a == b for a, b in zip(texts(folder, corpus, int8=int8), before, strict=True))

    # 8 bits: the same text, kept and computed
    for name, order in (
        ("fp16", Order(kind="fp16")),
        ("int8", Order()),
        ("static", Order(static=True, corpus=corpus, device="cpu")),
    ):
        quantize(home / "model", tmp_path / name, order)
        assert same(tmp_path / name) == len(before), name
    assert same(home / "model", int8=True) >= len(before) - 1
    assert same(tmp_path / "int8", int8=True) >= len(before) - 1
    assert load_model(tmp_path / "static", device="cpu").input_scales
    assert same(tmp_path / "static", int8=True) >= len(before) - 1

    # 1 bit: much is lost, and centroids that learn bring it back
    rough = Order(kind="kmeans", bits=1, corpus=corpus, device="cpu")
    lost = quantize(home / "model", tmp_path / "rough", rough)
    tuned = quantize(
        home / "model",
        tmp_path / "tuned",
        Order(kind="kmeans", bits=1, corpus=corpus, device="cpu", tune=5, steps=80),
    )
    print(f"1 bit: {lost.before.cer:.3f} -> {lost.after.cer:.3f}, tuned {tuned.after.cer:.3f}")
    assert tuned.after.bytes == lost.after.bytes
    assert lost.after.cer > lost.before.cer
    assert tuned.after.cer < lost.after.cer

    # trained with rounding: what was measured with it is what really computes in 8 bits
    aware = quantize(
        home / "model", tmp_path / "qat", Order(qat=True, tune=5, steps=40, corpus=corpus, device="cpu")
    )
    assert aware.computed is not None
    print(f"QAT: {aware.before.cer:.3f} -> {aware.computed.cer:.3f} computed in 8 bits")
    assert aware.computed.cer <= aware.before.cer + 0.02
    assert len(load_model(tmp_path / "qat", device="cpu").input_scales) > 10
