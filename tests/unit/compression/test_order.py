"""Steps after steps: what one has made, the next keeps, or it refuses and names the right order."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from firstwords.compression.choices import file_bytes
from firstwords.compression.prune import Orders, prune_model
from firstwords.compression.quantize import Order, _words, quantize
from firstwords.compression.steps import LowRankOrders, early_exit_model, fold_model, low_rank_model
from firstwords.compression.steps import skip_layers as skip
from firstwords.errors import UsageError
from firstwords.inference.early_exit import ExitSettings, read_exit, write_exit
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import load_model, save_model, weights_digest
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import Storage
from firstwords.text.characters import GraphemeTokenizer
from firstwords.training.progress import Progress
from robustness.commands import firstwords
from tone_corpus import make_tone_corpus, tone_recipe

TOKENIZER = GraphemeTokenizer.train(["aeiou aeiou"] * 3)
QUIET = Progress(quiet=True)
Step = Callable[[Path, Path, Path], object]  # source, corpus, to


def prune(source: Path, corpus: Path, to: Path, **orders: bool) -> object:
    wanted = Orders(0.2, by="magnitude", **orders)
    return prune_model(source, corpus, to, wanted, device="cpu", progress=QUIET)


def skip_layers(source: Path, corpus: Path, to: Path) -> object:
    return skip(source, corpus, to, most=1, limit=50.0, device="cpu")


def fold(source: Path, corpus: Path, to: Path) -> object:
    del corpus
    return fold_model(source, to)


def low_rank(source: Path, corpus: Path, to: Path) -> object:
    return low_rank_model(source, corpus, to, LowRankOrders(cut=0.2), device="cpu", progress=QUIET)


def requantize(source: Path, corpus: Path, to: Path) -> object:
    del corpus
    return quantize(source, to, Order(kind="fp16"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a Conformer, and the same in 8 bits, with scales of its inputs, and with an early exit."""
    home = tmp_path_factory.mktemp("order")
    make_tone_corpus(home / "corpus", train=6, dev=2, test=1)
    values = tone_recipe(steps=4, batch_seconds=6, validate_every=4).model_dump()
    sizes = {"dim": 32, "layers": 3, "heads": 2, "feedforward": 64, "kernel": 7}
    values["encoder"] = {"kind": "conformer", **sizes, "subsampling": {"channels": 8}}
    values["encoder"]["convolution_norm"] = "batch"
    values["heads"] = {"ctc": {"intermediate": [0, 1]}}
    torch.manual_seed(1)
    model = SpeechModel(Recipe.model_validate(values), len(TOKENIZER.pieces)).eval()
    save_model(home / "model", model, TOKENIZER, card="# model\n")
    quantize(home / "model", home / "int8", Order())
    quantize(home / "model", home / "static", Order(static=True, corpus=home / "corpus", device="cpu"))
    early_exit_model(home / "model", home / "corpus", home / "exit", most_loss=1.0, measure="confidence")
    return home


@pytest.mark.parametrize("step", [prune, skip_layers])
def test_a_model_in_8_bits_stays_in_8_bits(home: Path, tmp_path: Path, step: Step) -> None:
    step(home / "int8", home / "corpus", tmp_path / "new")
    old, new = (load_model(f, device="cpu", check=True) for f in (home / "int8", tmp_path / "new"))
    assert new.model.num_parameters < old.model.num_parameters
    assert {name: old.storage[name] for name in new.storage} == new.storage
    assert {n for n, s in new.storage.items() if s.kind == "int8"} == {
        n for n, s in old.storage.items() if s.kind == "int8" and n in new.model.state_dict()
    }
    sizes = [(f / "model.safetensors").stat().st_size for f in (home / "int8", tmp_path / "new")]
    assert sizes[1] < sizes[0]


def test_layers_that_stay_lose_nothing(home: Path, tmp_path: Path) -> None:
    skip_layers(home / "int8", home / "corpus", tmp_path / "new")
    old, new = (load_model(f, device="cpu").model.state_dict() for f in (home / "int8", tmp_path / "new"))
    assert len(new) < len(old)
    for name, value in new.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, old[name], rtol=1e-5, atol=1e-7)  # the last bit of a scale


@pytest.mark.parametrize("step", [prune, skip_layers, requantize])
def test_scales_of_inputs_are_those_of_the_layers_that_are_there(
    home: Path, tmp_path: Path, step: Step
) -> None:
    step(home / "static", home / "corpus", tmp_path / "new")
    scales = load_model(tmp_path / "new", device="cpu").input_scales
    assert scales
    Recognizer.load(tmp_path / "new", device="cpu", int8=True)  # refuses scales of other layers
    assert not load_model(home / "int8", device="cpu").input_scales


def test_a_budget_counts_the_scales_of_inputs(home: Path) -> None:
    """They stay with the model, in the header of its file, and so do recipe, pieces and vocabulary."""
    for name in ("model", "int8", "static"):
        loaded = load_model(home / name, device="cpu")
        counted = file_bytes(loaded.model.state_dict(), loaded.storage) + _words(loaded)
        assert counted >= (home / name / "model.safetensors").stat().st_size


@pytest.mark.parametrize("step", [fold, low_rank])
@pytest.mark.parametrize("model", ["int8", "static"])
def test_other_matrices_belong_before_the_rounding(
    home: Path, tmp_path: Path, step: Step, model: str
) -> None:
    with pytest.raises(UsageError, match="was quantized") as refused:
        step(home / model, home / "corpus", tmp_path / "new")
    assert "first, then quantize" in refused.value.mend
    assert not (tmp_path / "new").exists()


def test_zeros_are_not_scattered_among_weights_in_8_bits(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--unstructured keeps what is left in 32 bits"):
        prune(home / "int8", home / "corpus", tmp_path / "new", unstructured=True)
    assert not (tmp_path / "new").exists()


def test_zeros_stay_packed(home: Path, tmp_path: Path) -> None:
    prune(home / "model", home / "corpus", tmp_path / "zeros", unstructured=True)
    skip_layers(tmp_path / "zeros", home / "corpus", tmp_path / "new")
    old, new = (load_model(f, device="cpu") for f in (tmp_path / "zeros", tmp_path / "new"))
    assert Storage(kind="sparse", values="fp32") in new.storage.values()
    assert {name: old.storage[name] for name in new.storage} == new.storage


def test_zeros_are_not_filled_without_a_word(home: Path, tmp_path: Path) -> None:
    corpus, zeros = home / "corpus", tmp_path / "zeros"
    prune(home / "model", corpus, zeros, unstructured=True)
    assert "% of the weights zero, by magnitude" in (zeros / "card.md").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="training would fill them"):
        prune_model(zeros, corpus, tmp_path / "new", Orders(0.2, minutes=1), device="cpu", progress=QUIET)
    for step in (fold, low_rank):
        with pytest.raises(UsageError, match="has zeros among its weights") as refused:
            step(zeros, corpus, tmp_path / "new")
        assert "then prune --unstructured" in refused.value.mend
    assert not (tmp_path / "new").exists()
    heard: list[str] = []
    told = Progress(quiet=True)
    told.say = heard.append
    quantize(zeros, tmp_path / "new", Order(kind="fp16"), progress=told)
    assert any("zeros" in line for line in heard)


def test_an_early_exit_leaves_nothing_behind(home: Path, tmp_path: Path) -> None:
    """The formatting of a model, and the files that it needs."""
    source = tmp_path / "model"
    shutil.copytree(home / "model", source)
    (source / "phrases.txt").write_text("aeiou\n", encoding="utf-8")
    with (source / "recipe.toml").open("a", encoding="utf-8") as file:
        file.write('\n[post]\nstages = ["hotwords"]\n[post.hotwords]\nfile = "phrases.txt"\n')
    early_exit_model(source, home / "corpus", tmp_path / "new", most_loss=1.0, measure="confidence")
    assert Recognizer.load(tmp_path / "new", device="cpu").formatter is not None
    assert read_exit(tmp_path / "new") is not None


@pytest.mark.parametrize("step", [prune, skip_layers, fold, low_rank, requantize])
def test_an_early_exit_is_not_lost(home: Path, tmp_path: Path, step: Step) -> None:
    with pytest.raises(UsageError, match="tuned for its very weights") as refused:
        step(home / "exit", home / "corpus", tmp_path / "new")
    assert "early-exit last" in refused.value.mend
    assert not (tmp_path / "new").exists()


def test_an_early_exit_of_other_weights_is_no_obstacle(home: Path, tmp_path: Path) -> None:
    known = read_exit(home / "exit")
    assert known is not None
    values = known.model_dump(mode="json", exclude_none=True)
    (tmp_path / "model").mkdir()
    for path in (home / "model").rglob("*"):
        place = tmp_path / "model" / path.relative_to(home / "model")
        place.mkdir(parents=True) if path.is_dir() else place.write_bytes(path.read_bytes())
    write_exit(tmp_path / "model", ExitSettings.model_validate(values | {"model": "0" * 64}))
    requantize(tmp_path / "model", home / "corpus", tmp_path / "new")
    assert not (tmp_path / "new" / "early_exit.toml").exists()
    assert known.model == weights_digest(load_model(home / "exit", device="cpu").model.state_dict())


def test_early_exit_keeps_the_format_and_the_scales(home: Path, tmp_path: Path) -> None:
    early_exit_model(home / "static", home / "corpus", tmp_path / "new", most_loss=1.0, measure="confidence")
    old, new = (load_model(f, device="cpu") for f in (home / "static", tmp_path / "new"))
    assert (new.storage, new.input_scales) == (old.storage, old.input_scales)


def test_the_budget_that_a_refusal_names_is_enough(home: Path, tmp_path: Path) -> None:
    def within(budget: int) -> object:
        order = Order(budget=budget, corpus=home / "corpus", device="cpu")
        return quantize(home / "static", tmp_path / "new", order)

    with pytest.raises(UsageError, match="the file takes") as refused:
        within(1)
    least = int(refused.value.what.rsplit(maxsplit=1)[-1].rstrip("."))
    within(least)
    assert (tmp_path / "new" / "model.safetensors").stat().st_size <= least


def test_an_encoder_without_layers_to_leave_out_is_refused_before_dev_is_read(
    home: Path, tmp_path: Path
) -> None:
    values = tone_recipe().model_dump()
    values["encoder"] = {"kind": "dnn", "layers": 2, "hidden": 16}
    model = SpeechModel(Recipe.model_validate(values), len(TOKENIZER.pieces)).eval()
    save_model(tmp_path / "model", model, TOKENIZER, card="# model\n")
    with pytest.raises(UsageError, match="can be left out alone"):
        skip_layers(tmp_path / "model", tmp_path / "no corpus", tmp_path / "new")


def test_a_target_for_a_model_with_an_early_exit_names_the_order(home: Path, tmp_path: Path) -> None:
    said = firstwords(
        "compress",
        home / "exit",
        "--corpus",
        home / "corpus",
        "--to",
        tmp_path / "new",
        "--target",
        "size<1KB",
    )
    assert said.code == 2
    assert "early-exit last" in said.err
    assert not (tmp_path / "new").exists()
