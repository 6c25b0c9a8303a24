"""Models with other heads than CTC: trained, saved, loaded, read with, refused where they cannot do it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from firstwords.data.manifest import load_corpus
from firstwords.device import Compute
from firstwords.errors import UsageError
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.sight import look
from firstwords.model.checkpoint import load_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.report.picture import draw
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.search import GreedyConfig
from firstwords.search.speech_gate import SpeechGate
from firstwords.training.fine_tune import gentle, load_start, take_over
from firstwords.training.log import read_log
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from tone_corpus import make_tone_corpus, tone_recipe

TRANSDUCER: dict[str, Any] = {
    "kind": "transducer",
    "predictor": {"kind": "stateless", "dim": 32},
    "joiner_dim": 32,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_corpus(tmp_path_factory.mktemp("heads") / "corpus", train=32, dev=4, test=4)


def recipe_of(
    heads: dict[str, Any], search: dict[str, Any] | None = None, *, causal: bool = True, **training: Any
) -> Recipe:
    learn = {"optimizer": "adamw", "schedule": {"kind": "cosine", "lr": 0.003}}
    values = tone_recipe(**{"steps": 24, "validate_every": 12} | learn | training).model_dump()
    values["heads"] = heads
    values["encoder"]["causal"] = causal
    if search is not None:
        values["search"] = search
    return Recipe.model_validate(values)


def fit(corpus: Path, folder: Path, recipe: Recipe) -> list[dict[str, Any]]:
    train_corpus(corpus, folder, recipe=recipe, device="cpu", threads=1, progress=Progress(quiet=True))
    return [r for r in read_log(folder / "resume" / "log.jsonl") if r["kind"] == "train"]


def test_a_transducer_alone_is_trained_loaded_and_read(corpus: Path, tmp_path: Path) -> None:
    recipe = recipe_of({"transducer": TRANSDUCER}, {"kind": "transducer_greedy"})
    losses = [r["loss"] for r in fit(corpus, tmp_path / "model", recipe)]
    assert losses[-1] < 0.7 * losses[0]
    load_model(tmp_path / "model", device="cpu", check=True)
    recognizer = Recognizer.load(tmp_path / "model")
    utterance = load_corpus(corpus).split("test")[0]
    assert recognizer.transcribe(utterance.audio).duration == pytest.approx(utterance.duration, abs=0.01)
    with pytest.raises(UsageError, match="no CTC head"):
        recognizer.align(utterance.audio, "a e")
    samples, rate = soundfile.read(utterance.audio, dtype="float32")
    said = {
        tuple(event for event in recognizer.listen(np.split(samples, cuts), sample_rate=rate, partials=False))
        for cuts in ([], [1000, 1001, 9000], list(range(160, len(samples), 160)))
    }
    assert len(said) == 1  # however the sound is cut


@pytest.mark.parametrize("kind", ["transformer_decoder", "speller"])
def test_an_attention_decoder_alone_is_read_with_the_times_of_its_looks(
    kind: str, corpus: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(
        {"attention": {"kind": kind}},
        {"kind": "attention_beam", "beam": 2, "ctc_weight": 0.0, "min_length": 0.1},
        causal=False,  # such a head reads whole utterances
    )
    losses = [r["loss"] for r in fit(corpus, tmp_path / "model", recipe)]
    assert losses[-1] < 0.8 * losses[0]
    recognizer = Recognizer.load(tmp_path / "model")
    utterance = load_corpus(corpus).split("test")[0]
    seen = look(recognizer, utterance.audio)
    assert seen.posteriors is None
    assert seen.attention is not None
    assert len(seen.attention) == len(seen.written)
    np.testing.assert_allclose(seen.attention.sum(axis=1), 1.0, rtol=1e-4)
    ends = [end for _, _, end in seen.words]
    assert ends == sorted(ends)
    assert draw(seen).count("<image") == 2


def test_losses_of_several_heads_add_up_by_their_weights(corpus: Path, tmp_path: Path) -> None:
    heads = {"ctc": {"kind": "ctc", "weight": 0.25, "dropout": 0.0}, "transducer": TRANSDUCER}
    records = fit(corpus, tmp_path / "model", recipe_of(heads, {"kind": "transducer_beam"}, steps=4))
    for record in records:
        assert record["loss"] == pytest.approx(0.25 * record["ctc"] + record["transducer"], rel=1e-3)
    recognizer = Recognizer.load(tmp_path / "model")
    events = list(recognizer.listen([np.zeros(16000, np.float32)]))  # by the transducer
    assert all(not event.text for event in events if hasattr(event, "text"))


def test_starting_from_a_model_keeps_its_heads_and_search_and_names_new_ones(
    corpus: Path, tmp_path: Path
) -> None:
    fit(corpus, tmp_path / "model", recipe_of({"transducer": TRANSDUCER}, {"kind": "transducer_greedy"}))
    start = load_start(tmp_path / "model")
    chosen = gentle(recipe_of({"ctc": {"kind": "ctc"}}), start)
    assert list(chosen.heads) == ["transducer"]
    assert chosen.search.kind == "transducer_greedy"
    same = SpeechModel(start.recipe, len(start.tokenizer.pieces))
    assert take_over(same, start.tokenizer, start)[0] is False
    for heads, named in (
        ({"transducer": TRANSDUCER, "ctc": {"kind": "ctc"}}, "heads.ctc"),
        ({"transducer": TRANSDUCER | {"joiner_dim": 48}}, "heads.transducer"),
    ):
        recipe = recipe_of(heads, {"kind": "transducer_greedy"})
        other = SpeechModel(recipe, len(start.tokenizer.pieces))
        new, said = take_over(other, start.tokenizer, start)
        assert new
        assert said.endswith(f"its encoder, with new: {named}.")
        for own, given in zip(other.encoder.parameters(), start.model.encoder.parameters(), strict=True):
            assert torch.equal(own, given)


def test_the_gate_of_ctc_does_not_judge_another_search(corpus: Path, tmp_path: Path) -> None:
    heads = {"ctc": {"kind": "ctc"}, "transducer": TRANSDUCER}
    fit(corpus, tmp_path / "model", recipe_of(heads, {"kind": "transducer_greedy"}, steps=4))
    strict = replace(load_model(tmp_path / "model", device="cpu"), speech_gate=SpeechGate(0.9))
    compute = Compute(torch.device("cpu"), torch.float32, "test")
    unsure = Hypothesis((1,), 0.0, {}, confidences=(0.5,))
    assert Recognizer(strict, compute).reader.is_speech(unsure)
    greedy = strict.recipe.with_(search=GreedyConfig())
    assert not Recognizer(replace(strict, recipe=greedy), compute).reader.is_speech(unsure)


def test_what_cannot_be_combined_is_refused_when_the_recipe_is_read() -> None:
    ctc = {"kind": "ctc"}
    with pytest.raises(ValueError, match=r"needs heads\.transducer.* set search.kind = \"greedy\""):
        recipe_of({"ctc": ctc}, {"kind": "transducer_greedy"})
    with pytest.raises(ValueError, match=r"needs heads\.ctc.* set search.kind = \"transducer_greedy\""):
        recipe_of({"transducer": TRANSDUCER}, {"kind": "greedy"})
    with pytest.raises(ValueError, match=r"a head of kind 'transducer' is called heads\.transducer"):
        recipe_of({"ctc": TRANSDUCER})
    values = tone_recipe().model_dump()
    values["encoder"] = {"kind": "quartznet"}
    values["heads"] = {"ctc": {"kind": "ctc", "intermediate": [1]}}
    with pytest.raises(ValueError, match="has no stacks to look into"):
        Recipe.model_validate(values)
