"""A small corpus, an untrained model, language models of a few sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.data.manifest import Corpus, load_corpus
from firstwords.inference.recognizer import Recognizer
from firstwords.lm.language_model import save_language_model
from nonsense_model import make_nonsense_model
from small_ngrams import train
from tone_corpus import make_tone_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load_corpus(make_tone_corpus(tmp_path_factory.mktemp("tones") / "c", train=30, dev=4, test=1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture
def recognizer(model: Path) -> Recognizer:
    return Recognizer.load(model, device="cpu")


@pytest.fixture
def lm(tmp_path: Path, corpus: Corpus) -> Path:
    save_language_model(tmp_path / "lm", train([u.text or "" for u in corpus.split("train")], "char", 3))
    return tmp_path / "lm"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of transcripts."""
    save_language_model(tmp_path / "source", train(["ae ei", "ouo a", "e i o u"], "char", 2))
    return tmp_path / "source"
