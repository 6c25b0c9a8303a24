"""A language model moves into a decoder when a training begins, and is needed no longer after it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from firstwords.errors import CheckpointError, TrainingError
from firstwords.heads.attention.speller import SpellerConfig
from firstwords.lm.neural.config import LstmLmConfig
from firstwords.lm.neural.folder import NeuralHeader, NeuralLanguageModel, save_neural
from firstwords.lm.neural.lstm import LstmLm
from firstwords.model.checkpoint import load_model
from firstwords.model.merging import check_alike, read_parent
from firstwords.model.recipe import Recipe, read_recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.text.characters import GraphemeConfig
from firstwords.text.load import train_tokenizer
from firstwords.text.tokenizer import Tokenizer
from firstwords.training.fine_tune import take_over
from firstwords.training.language_model import freeze_for_deep_fusion, move_in, with_sizes
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from tone_corpus import LETTERS, make_tone_corpus, tone_recipe

INSIDE = "heads.attention.fusion.language_model.network."


def save_lm(folder: Path, tokenizer: Tokenizer, *, seed: int = 1, dim: int = 6) -> Path:
    torch.manual_seed(seed)
    config = LstmLmConfig(dim=dim, layers=1)
    network = LstmLm(config, len(tokenizer.pieces))
    header = NeuralHeader(kind="lstm", unit="piece", pieces=tokenizer.piece_hash, network=config)
    seen = np.ones(len(tokenizer.pieces), dtype=np.int64)
    save_neural(folder, NeuralLanguageModel(header, network, tuple(tokenizer.pieces), seen, tokenizer))
    return folder


def recipe_with(fusion: dict[str, Any] | None) -> Recipe:
    values = tone_recipe(steps=2, validate_every=2, workers=0, batch_seconds=8, processes=1).model_dump()
    values["heads"]["attention"] = {"kind": "speller", "width": 12, "layers": 1}
    if fusion is not None:
        values["heads"]["attention"]["fusion"] = {"width": 8, **fusion}
    return Recipe.model_validate(values)


@pytest.fixture(scope="module", autouse=True)
def _few_probes() -> Iterator[None]:
    """Reading ten minutes of noise would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("firstwords.training.gate._PROBES", 2)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_corpus(tmp_path_factory.mktemp("tones") / "corpus", train=6, dev=2, test=1)


@pytest.fixture(scope="module")
def plain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose decoder knows of no language model."""
    return run(corpus, tmp_path_factory.mktemp("runs") / "plain", recipe_with(None))


@pytest.fixture(scope="module")
def lm(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lm(tmp_path_factory.mktemp("lms") / "lm", load_model(plain, device="cpu").tokenizer)


def run(corpus: Path, to: Path, recipe: Recipe | None, start: Path | None = None) -> Path:
    said = Progress(quiet=True)
    train_corpus(corpus, to, recipe=recipe, start_from=start, device="cpu", workers=0, progress=said)
    return to


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_cold_fused_model_carries_its_language_model(corpus: Path, lm: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(lm, tmp_path / "lm"))
    folder = run(corpus, tmp_path / "run", recipe_with({"folder": str(own)}))
    head = read_recipe(folder / "recipe.toml").heads["attention"]
    assert isinstance(head, SpellerConfig)
    assert head.fusion is not None
    assert head.fusion.network == LstmLmConfig(dim=6, layers=1)
    given, found = weights(own), weights(folder)
    names = [name for name in found if name.startswith(INSIDE)]
    assert names
    for name in names:  # after training, averaging and saving: not a bit of it has moved
        assert torch.equal(found[name], given[name.removeprefix(INSIDE)]), name
    shutil.rmtree(own)
    load_model(folder, device="cpu", check=True)
    # The finished run can be called again, and fine-tuned from, without the folder of the language model.
    run(corpus, folder, None)
    run(corpus, folder, recipe_with({"folder": str(own)}))
    tuned = run(corpus, tmp_path / "tuned", recipe_with(head.fusion.model_dump()), start=folder)
    assert all(torch.equal(weights(tuned)[name], found[name]) for name in names)

    # Another one of the same size takes its place.
    start = load_model(tuned, device="cpu")
    other = save_lm(tmp_path / "other", start.tokenizer, seed=2)
    fusion = head.fusion.with_(folder=str(other))
    heads = {**start.recipe.heads, "attention": head.with_(fusion=fusion)}
    model = SpeechModel(start.recipe.model_copy(update={"heads": heads}), len(start.tokenizer.pieces))
    take_over(model, start.tokenizer, start)
    assert "listens" in (move_in(model, start.tokenizer, start) or "")
    replaced = weights(other)
    for name, value in model.state_dict().items():
        expected = replaced[name.removeprefix(INSIDE)] if name.startswith(INSIDE) else weights(tuned)[name]
        assert torch.equal(value, expected), name


def test_deep_fusion_teaches_a_trained_decoder_to_listen(
    corpus: Path, plain: Path, lm: Path, tmp_path: Path
) -> None:
    folder = run(corpus, tmp_path / "run", recipe_with({"kind": "deep", "folder": str(lm)}), start=plain)
    before, after = weights(plain), weights(folder)
    learned = {n for n in before if not torch.equal(before[n], after[n])}
    assert learned == {"heads.attention.output.weight", "heads.attention.output.bias"}
    model = load_model(folder, device="cpu", check=True).model
    assert freeze_for_deep_fusion(model)
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {
        "heads.attention.fusion.gate.weight",
        "heads.attention.fusion.gate.bias",
        "heads.attention.fusion.beside.weight",
        "heads.attention.output.weight",
        "heads.attention.output.bias",
    }


def test_deep_fusion_without_a_trained_decoder_is_refused(corpus: Path, lm: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="trained decoder") as caught:
        run(corpus, tmp_path / "run", recipe_with({"kind": "deep", "folder": str(lm)}))
    assert "--from" in caught.value.mend


def test_a_language_model_of_other_pieces_is_refused(corpus: Path, tmp_path: Path) -> None:
    other = save_lm(tmp_path / "lm", train_tokenizer(GraphemeConfig(), ["xyz " * 3] * 3))
    with pytest.raises(CheckpointError, match=r"pieces|vocabulary"):
        run(corpus, tmp_path / "run", recipe_with({"folder": str(other)}))


def test_a_new_decoder_does_not_listen_to_noise(corpus: Path, lm: Path, tmp_path: Path) -> None:
    """Fine-tuning that makes the decoder anew moves the language model in anew, or refuses."""
    start = load_model(run(corpus, tmp_path / "run", recipe_with({"folder": str(lm)})), device="cpu")
    head = start.recipe.heads["attention"]
    assert isinstance(head, SpellerConfig)
    heads = {**start.recipe.heads, "attention": head.with_(width=16)}
    model = SpeechModel(start.recipe.model_copy(update={"heads": heads}), len(start.tokenizer.pieces))
    assert take_over(model, start.tokenizer, start)[0]
    assert "listens" in (move_in(model, start.tokenizer, start) or "")
    given, found = weights(lm), model.state_dict()
    names = [name for name in found if name.startswith(INSIDE)]
    assert all(torch.equal(found[name], given[name.removeprefix(INSIDE)]) for name in names)
    others = train_tokenizer(GraphemeConfig(), ["xyz " * 3] * 3)
    model = SpeechModel(start.recipe, len(others.pieces))
    take_over(model, others, start)
    with pytest.raises(CheckpointError, match=r"pieces|vocabulary"):
        move_in(model, others, start)


def test_a_recipe_without_a_folder_is_refused() -> None:
    with pytest.raises(TrainingError, match="names no language model"):
        with_sizes(recipe_with({}))


def test_sizes_are_read_once(lm: Path) -> None:
    recipe = recipe_with({"folder": str(lm)})
    full = with_sizes(recipe)
    head = full.heads["attention"]
    assert isinstance(head, SpellerConfig)
    assert head.fusion is not None
    assert head.fusion.units is not None
    assert head.fusion.units > len(LETTERS)
    assert with_sizes(full) is full
    gone = recipe_with({"folder": "gone"})
    stored = with_sizes(recipe, None).model_copy(
        update={"heads": {**full.heads, "attention": head.with_(fusion=head.fusion.with_(folder="gone"))}}
    )
    assert with_sizes(gone, stored).heads == stored.heads  # of a run that has begun
    with pytest.raises(CheckpointError):
        with_sizes(gone)


def test_deep_fusion_holds_running_statistics(corpus: Path, lm: Path, tmp_path: Path) -> None:
    """A Conformer with batch norm: neither its statistics nor those of its input move."""

    def with_norms(fusion: dict[str, Any] | None) -> Recipe:
        values = recipe_with(fusion).model_dump(mode="json", exclude_none=True)
        values["encoder"] = {"kind": "conformer", "dim": 16, "layers": 1, "heads": 2, "feedforward": 16}
        values["encoder"] |= {"kernel": 3, "convolution_norm": "batch"}
        return Recipe.model_validate(values)

    plain = run(corpus, tmp_path / "plain", with_norms(None))
    folder = run(corpus, tmp_path / "deep", with_norms({"kind": "deep", "folder": str(lm)}), start=plain)
    before, after = weights(plain), weights(folder)
    moving = [n for n in before if n.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    moving += [n for n in before if n.endswith(("norm.mean", "norm.variance", "norm.count"))]
    assert len(moving) > 3
    changed = [name for name in moving if not torch.equal(before[name], after[name])]
    assert not changed


def test_cold_fused_models_merge_whatever_the_folder_was_called(
    corpus: Path, lm: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(lm, tmp_path / "copy"))
    one, two = (
        read_parent(run(corpus, tmp_path / name, recipe_with({"folder": str(folder)})))
        for name, folder in (("one", lm), ("two", other))
    )
    (note,) = [note for note in check_alike([one, two]) if "folder" in note]
    assert str(lm) in note
    assert str(other) in note
    foreign = save_lm(tmp_path / "foreign", one.tokenizer, seed=2)
    three = read_parent(run(corpus, tmp_path / "three", recipe_with({"folder": str(foreign)})))
    with pytest.raises(CheckpointError, match="the language model inside its decoder is another one"):
        check_alike([one, three])
