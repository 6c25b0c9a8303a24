"""The page of variants: what is counted by hand, the front, and what the measuring process says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from firstwords.compression.history import note_step
from firstwords.compression.steps import fold_model
from firstwords.data.manifest import load_corpus
from firstwords.errors import CheckpointError, CorpusError, UsageError
from firstwords.model.checkpoint import save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.report import compression
from firstwords.report.compression import compare_variants, record, rows, save_comparison, speech_of
from firstwords.report.compression_probe import Probe, probe
from firstwords.scoring.error_rate import ErrorRate
from firstwords.text.characters import GraphemeTokenizer
from tone_corpus import make_tone_corpus, tone_recipe

TOKENIZER = GraphemeTokenizer.train(["aeiou aeiou"] * 3)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("report")
    corpus = make_tone_corpus(folder / "corpus", train=2, dev=3, test=1)
    values = tone_recipe().model_dump()
    values["encoder"] = {"kind": "dnn", "hidden": 16, "layers": 2}
    torch.manual_seed(1)
    model = SpeechModel(Recipe.model_validate(values), len(TOKENIZER.pieces)).eval()
    save_model(folder / "whole", model, TOKENIZER, card="")
    fold_model(folder / "whole", folder / "folded")
    return corpus, folder / "whole", folder / "folded"


def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Made-up times instead of processes: the second of three rounds is slow."""
    asked: list[str] = []

    def fake(folder: Path, samples: Any, rate: int, lengths: Any, **_: Any) -> Probe:
        asked.append(folder.name)
        slow = 10.0 if 2 < len(asked) <= 4 else 1.0
        base = {"whole": 0.3, "folded": 0.2}[folder.name]
        seconds = {length: (slow * base * length, slow * base * length) for length in lengths}
        return Probe(seconds, 300_000_000 + 1_000_000 * len(asked), 250_000_000, 0.1)

    monkeypatch.setattr(compression, "probe", fake)
    return asked


def test_figures_by_hand(
    tmp_path: Path, material: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, whole, folded = material
    asked = measured(monkeypatch)
    found = compare_variants([whole, folded], load_corpus(corpus), "dev")
    assert asked == ["whole", "folded"] * 3  # in turn
    one, two = found.variants
    assert one.real_time_factors == {5.0: pytest.approx(0.3), 15.0: pytest.approx(0.3)}  # median, not mean
    assert two.seconds[15.0] == pytest.approx(3.0)
    assert (one.peak_bytes, two.peak_bytes) == (305_000_000, 306_000_000)
    assert two.model_bytes == 56_000_000
    assert two.steps == ("fold",)
    assert two.parameters < one.parameters
    assert one.weight_bytes == (whole / "model.safetensors").stat().st_size < one.bytes
    assert one.words == two.words  # folding changes no answer
    assert found.utterances == 3
    page = save_comparison(found, tmp_path / "out")
    numbers = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert numbers == json.loads(json.dumps(record(found)))
    assert numbers["front"]["seconds"] == ["folded"]
    html = page.read_text()
    assert "circle" in html
    assert "http:" not in html
    assert "https:" not in html
    assert len(rows(found)[0]) == len(compression.headers(found))
    assert "How the search went" not in html
    ended = "Ended because no other way is left."
    searched = save_comparison(found, tmp_path / "searched", course=["Wanted: size<1MB.", ended])
    assert json.loads((tmp_path / "searched" / "compression.json").read_text())["course"][-1] == ended
    assert ended in searched.read_text()


def test_minutes_of_training_are_those_of_all_steps(
    tmp_path: Path, material: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of quantize, too, where they are called 'tune'; what was never trained counts nothing."""
    corpus, whole, folded = material
    shutil.copytree(folded, tmp_path / "folded")
    steps = {"prune": {"minutes": 3.0}, "low-rank": {"minutes": None}, "quantize": {"tune": 1.5}}
    for step, settings in steps.items():
        note_step(tmp_path / "folded", tmp_path / "folded", step, settings)
    measured(monkeypatch)
    one, two = compare_variants([whole, tmp_path / "folded"], load_corpus(corpus), "dev", rounds=1).variants
    assert two.steps == ("fold", "prune", "low-rank", "quantize")
    assert (one.minutes, two.minutes) == (0.0, 4.5)


def test_the_front_holds_what_no_other_beats(
    material: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, whole, folded = material
    measured(monkeypatch)
    found = compare_variants([whole, folded], load_corpus(corpus), "dev", rounds=1)
    one = found.variants[0]

    def variant(name: str, size: int, errors: int) -> Any:
        letters = ErrorRate(substitutions=errors, reference_length=100)
        return replace(one, name=name, weight_bytes=size, letters=letters)

    made = replace(
        found, variants=(variant("a", 10, 5), variant("b", 5, 5), variant("c", 3, 9), variant("d", 4, 9))
    )
    assert made.front(lambda v: v.weight_bytes) == ("b", "c")


def test_speech_is_cut_or_repeated_to_length(material: tuple[Path, Path, Path]) -> None:
    corpus = load_corpus(material[0])
    short, long = speech_of(corpus, "dev", 16000, 0.5), speech_of(corpus, "dev", 16000, 60.0)
    assert (len(short), len(long)) == (8000, 960000)
    assert np.array_equal(short, long[:8000])
    assert float(np.abs(long[-16000:]).max()) > 0.05


def test_what_cannot_be_reported_is_said(material: tuple[Path, Path, Path]) -> None:
    corpus, whole, _ = material
    loaded = load_corpus(corpus)
    with pytest.raises(UsageError, match="No model"):
        compare_variants([], loaded, "dev")
    with pytest.raises(UsageError, match="named twice"):
        compare_variants([whole, whole], loaded, "dev")
    with pytest.raises(CorpusError, match="split 'none'"):
        compare_variants([whole], loaded, "none")
    with pytest.raises(CheckpointError, match="is a corpus, not the folder of a recogniser"):
        compare_variants([corpus], loaded, "dev")


@pytest.mark.slow
def test_the_measuring_process(material: tuple[Path, Path, Path]) -> None:
    corpus, whole, _ = material
    samples = speech_of(load_corpus(corpus), "dev", 16000, 2.0)
    found = probe(whole, samples, 16000, (1.0, 2.0), repeats=2)
    assert {k: len(v) for k, v in found.seconds.items()} == {1.0: 2, 2.0: 2}
    assert all(t > 0 for times in found.seconds.values() for t in times)
    if found.peak_bytes is not None:
        assert found.before_bytes is not None
        assert found.peak_bytes > found.before_bytes > 0
    with pytest.raises(CheckpointError, match="could not be measured"):
        probe(corpus, samples, 16000, (1.0,))
