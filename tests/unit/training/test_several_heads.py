"""Models with several heads: what dev is read with, what is left out, what a folder proves, what it costs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_recognition import batch_of

from firstwords.data.batch import Batch
from firstwords.data.manifest import Corpus, load_corpus
from firstwords.device import Compute
from firstwords.errors import CheckpointError
from firstwords.heads.attention.transformer import TransformerScorer
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.recipe import Recipe
from firstwords.model.selfcheck import run_check
from firstwords.model.speech_model import SpeechModel
from firstwords.search.interface import (
    AttentionBeamConfig,
    CtcBeamConfig,
    GreedyConfig,
    RescoringConfig,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
)
from firstwords.search.search import needed_heads, quick_search
from firstwords.search.token_beam import PATIENCE
from firstwords.text.characters import GraphemeTokenizer
from firstwords.text.normalize import normalizer
from firstwords.training import settle
from firstwords.training.card import CardFacts, write_card
from firstwords.training.prepare import prepare
from firstwords.training.progress import Progress
from firstwords.training.tasks import recognition
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask
from firstwords.training.tasks.task import Validation
from tone_corpus import make_tone_corpus, tone_recipe

HEADS: dict[str, dict[str, Any]] = {
    "ctc": {},
    "attention": {"kind": "transformer_decoder", "width": 16, "layers": 1, "heads": 2, "feedforward": 32},
    "transducer": {"kind": "transducer", "joiner_dim": 16, "predictor": {"kind": "stateless", "dim": 16}},
}


def recipe_with(search: dict[str, Any], **heads: dict[str, Any]) -> Recipe:
    values = tone_recipe().model_dump()
    values["heads"] = {name: HEADS[name] | changes for name, changes in heads.items()}
    values["search"] = search
    return Recipe.model_validate(values)


def task_of(recipe: Recipe) -> RecognitionTask:
    tokenizer = GraphemeTokenizer.train(["aeiou aeiou"] * 3)
    torch.manual_seed(5)
    return RecognitionTask(
        SpeechModel(recipe, len(tokenizer.pieces)),
        tokenizer,
        compute=Compute(torch.device("cpu"), torch.float32, "test"),
        masking=None,
        settings=RecognitionSettings(scoring=normalizer("score_default")),
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load_corpus(make_tone_corpus(tmp_path_factory.mktemp("tones"), train=6, dev=2, test=0))


@pytest.mark.parametrize(
    "search",
    [
        GreedyConfig(),
        CtcBeamConfig(),
        TransducerGreedyConfig(symbols_per_frame=3),
        TransducerBeamConfig(),
        AttentionBeamConfig(beam=8, ctc_weight=0.2),
        AttentionBeamConfig(ctc_weight=0.0),
        RescoringConfig(ctc_weight=0.4),
    ],
    ids=lambda config: config.kind,
)
def test_the_quick_search_asks_the_same_heads(search: SearchConfig) -> None:
    quick = quick_search(search)
    assert needed_heads(quick) == needed_heads(search)
    assert getattr(quick, "ctc_weight", None) == getattr(search, "ctc_weight", None)
    assert getattr(quick, "symbols_per_frame", None) == getattr(search, "symbols_per_frame", None)
    assert getattr(quick, "beam", 1) <= min(2, getattr(search, "beam", 1))
    assert quick_search(quick) == quick


def test_dev_is_read_with_the_heads_of_the_recipes_search() -> None:
    """CTC that writes nothing says nothing about weights whose users hear the transducer."""
    task = task_of(recipe_with({"kind": "transducer_beam"}, ctc={}, transducer={}))
    assert task.speech.ctc is not None
    with torch.no_grad():
        task.speech.ctc.projection.bias[0] = 1e4
        task.speech.heads["transducer"].joiner.output.bias[0] = -1e4
    numbers = task.validate([batch_of([(1.0, 3), (0.8, 2)])]).numbers
    assert numbers["empty"] == 0
    assert not task.heard  # the gate judges what CTC says
    other = task_of(recipe_with({"kind": "greedy"}, ctc={}, transducer={}))
    other.speech.load_state_dict(task.speech.state_dict())
    assert other.validate([batch_of([(1.0, 3), (0.8, 2)])]).numbers["empty"] == 1
    with torch.no_grad():
        for some in (task, other):
            assert some.speech.ctc is not None
            some.speech.ctc.projection.bias[0] = -1e4
    batch = batch_of([(1.0, 3), (0.8, 2)])
    task.validate([batch])
    other.validate([batch])
    assert len(task.heard) == 2
    assert task.heard == other.heard
    assert task.answers([batch]) == other.answers([batch])


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"kind": "transducer_beam"}, ("transducer_greedy;", "transducer_beam, beam 4")),
        ({"kind": "attention_beam"}, ("attention_beam, beam 2;", "attention_beam, beam 10")),
        ({"kind": "greedy"}, ("greedy;", "| greedy |")),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_the_card_names_the_search_of_its_dev_figure(search: dict[str, Any], said: tuple[str, str]) -> None:
    recipe = recipe_with(search, ctc={}, attention={}, transducer={})
    facts = CardFacts(recipe, 1000, 9, 0.1, 3, 1, "a machine", {})
    numbers = {"cer": 0.1, "wer": 0.2, "utterances": 2.0, "words": 5.0}
    card = write_card(facts, Validation(0.1, numbers, ()), step=3, elapsed=60.0)
    dev = next(line for line in card.splitlines() if line.startswith("| dev CER"))
    assert f"search {said[0]}" in dev
    assert said[1] in card


def test_what_no_head_can_write_is_named_before_training(corpus: Corpus) -> None:
    letters = {"train-000": "aeiou" * 12, "train-001": "aei"}
    changed = replace(
        corpus,
        utterances=tuple(
            replace(u, text=letters.get(u.id, "aeiou"), duration=1.0) for u in corpus.utterances
        ),
    )

    def left_out(recipe: Recipe) -> dict[str, str]:
        task = task_of(recipe)
        return prepare(changed, recipe, task.tokenizer, task.speech).left_out

    greedy = {"kind": "transducer_greedy"}
    fitting = left_out(recipe_with(greedy, transducer={"topology": "modified"}))
    assert list(fitting) == ["train-000"]
    assert "more text than fits" in fitting["train-000"]
    assert not left_out(recipe_with(greedy, transducer={"topology": "regular"}))
    attention = {"kind": "attention_beam", "ctc_weight": 0.0}
    short = {"positions": "learned", "most_tokens": 5}
    assert not left_out(recipe_with(attention, attention={}))
    long = left_out(recipe_with(attention, attention=short))
    assert sorted(long) == ["train-000", *(f"train-{n:03d}" for n in range(2, 6))]
    assert "more than 4 tokens and the end (heads.attention.most_tokens)" in long["train-002"]


def test_joined_utterances_with_more_tokens_than_positions_do_not_spoil_the_batch() -> None:
    search = {"kind": "attention_beam", "ctc_weight": 0.0}
    task = task_of(recipe_with(search, attention={"positions": "learned", "most_tokens": 5}))
    task.model.eval()
    loss = task.loss(batch_of([(1.0, 4), (0.8, 9)]))
    assert loss.each[1] == 0
    assert loss.each[0] > 0
    loss.total.backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in task.model.parameters())
    assert task.validate([batch_of([(1.0, 4), (0.8, 9)])]).numbers["utterances"] == 2


def test_a_folder_proves_every_head(tmp_path: Path) -> None:
    search = {"kind": "attention_beam", "beam": 2}
    task = task_of(recipe_with(search, ctc={}, attention={}, transducer={}))
    save_model(tmp_path / "model", task.speech, task.tokenizer, card="# a model\n")
    expected = tmp_path / "model" / "check" / "expected.json"
    assert set(json.loads(expected.read_text())["heads"]) == {"attention", "transducer"}
    model = load_model(tmp_path / "model", device="cpu", check=True).model
    for head, parameter in (
        ("attention", "layers.0.self_attention.write.bias"),
        ("attention", "embedding.weight"),
        ("transducer", "joiner.encoder_proj.bias"),
        ("transducer", "predictor.embedding.weight"),
    ):
        weight = model.heads[head].get_parameter(parameter)
        before = weight.detach().clone()
        with torch.no_grad():
            weight.add_(3 * torch.arange(weight.numel()).sin().view(weight.shape))
        with pytest.raises(CheckpointError, match=rf"of heads\.{head} off"):
            run_check(tmp_path / "model", model)
        with torch.no_grad():
            weight.copy_(before)
    run_check(tmp_path / "model", model)
    values = json.loads(expected.read_text())
    del values["heads"]  # folders of before
    expected.write_text(json.dumps(values))
    run_check(tmp_path / "model", model)


def test_a_validation_is_expected_to_take_what_a_trained_decoder_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock counts tokens: nothing else takes time."""
    search = {"kind": "attention_beam", "beam": 4, "ctc_weight": 0.0}
    task = task_of(recipe_with(search, attention={}))
    calls = 0
    score = TransformerScorer.score

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return score(*arguments)

    monkeypatch.setattr(TransformerScorer, "score", counted)
    monkeypatch.setattr(recognition.time, "monotonic", lambda: float(calls))
    batches: list[Batch] = [batch_of([(1.4, 4), (0.8, 2)]), batch_of([(2.0, 40)], keys=[7])]
    task.validate(batches[:1])
    first = calls
    task.validate(batches[1:])
    second = calls - first
    assert second < 20  # an untrained decoder soon ends
    work = [2 * (4 + PATIENCE), 40 + PATIENCE]
    trained = 40 + PATIENCE + 1  # and the end
    expected = first + second + (trained - second) * sum(work) / max(work)
    assert task.validation_seconds(batches) == pytest.approx(expected)
    assert task.model.training


def test_texts_are_normalized_once(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(settle, "normalizer", lambda name: lambda text: seen.append(text) or text)
    wanted = settle.Wanted(None, None, 5.0, (), None)
    settle._chosen(corpus, tmp_path / "run", wanted, "cpu", Progress(quiet=True))
    assert sorted(seen) == sorted(u.text or "" for u in corpus.split("train"))
