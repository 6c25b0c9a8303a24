"""Greedy soups, statistics measured anew, and what a merged folder holds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from firstwords.data.manifest import load_corpus
from firstwords.errors import CorpusError, SearchError, UsageError
from firstwords.formatting.settings import PostConfig
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.merging import Parent, average, read_parent, task_arithmetic
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.search.speech_gate import SpeechGate
from firstwords.tensors import Padded, pad
from firstwords.text.characters import GraphemeTokenizer
from firstwords.training.merge import merge_models
from firstwords.training.soup import Tasting, greedy_soup, renew_statistics
from nonsense_model import make_nonsense_model
from tone_corpus import make_tone_corpus, tone_recipe


def toys(*names: str) -> list[Parent]:
    tokenizer = GraphemeTokenizer.train(["a"])
    return [Parent(Path(name), tone_recipe(), tokenizer, {}, name) for name in names]


class Bowl:
    """Models are numbers; the error of a soup is the distance of their mean from 0."""

    def __init__(self, **values: float) -> None:
        self.values = values
        self.asked: list[str] = []

    def error(self, chosen: Sequence[Parent]) -> float:
        names = [parent.folder.name for parent in chosen]
        self.asked.append("+".join(names))
        return abs(sum(self.values[name] for name in names) / len(names))


def test_a_greedy_soup_takes_what_does_not_raise_the_error() -> None:
    """b alone 1; with c (-2) the mean is -0.5; with a (3) it would be 2/3 and with d (-0.5) -0.5 again."""
    bowl = Bowl(a=3.0, b=1.0, c=-2.0, d=-4.0, e=-0.5)
    soup, alone, steps = greedy_soup(toys(*"abcd"), bowl.error)
    assert [p.folder.name for p, _ in alone] == ["b", "c", "a", "d"]
    assert [p.folder.name for p in soup] == ["b", "c"]
    assert [(s.parent.folder.name, s.kept) for s in steps] == [
        ("b", True),
        ("c", True),
        ("a", False),
        ("d", False),
    ]
    assert [s.error for s in steps] == pytest.approx([1.0, 0.5, 2 / 3, 5 / 3])
    assert bowl.asked == ["a", "b", "c", "d", "b+c", "b+c+a", "b+c+d"]


def test_a_model_that_changes_nothing_stays() -> None:
    bowl = Bowl(a=1.0, b=1.0, c=1.0)
    soup, _, _ = greedy_soup(toys(*"abc"), bowl.error)
    assert [p.folder.name for p in soup] == ["a", "b", "c"]


def test_a_soup_is_never_worse_than_the_best_alone() -> None:
    draw = np.random.default_rng(4)
    for _ in range(30):
        values = {name: float(draw.normal()) for name in "abcde"}
        soup, alone, steps = greedy_soup(toys(*"abcde"), (bowl := Bowl(**values)).error)
        assert bowl.error(soup) <= alone[0][1] == min(abs(v) for v in values.values())
        assert bowl.error(soup) == min(s.error for s in steps)


# --- folders ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_corpus(tmp_path_factory.mktemp("tones") / "corpus", train=5, dev=3, test=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("models")
    return [make_nonsense_model(home / f"m{seed}", seed=seed) for seed in (1, 2)]


def merge(folders: Sequence[Path], to: Path, **options: Any) -> Any:
    return merge_models(
        average([read_parent(f) for f in folders]), to, how="average", device="cpu", **options
    )


def test_a_closed_vocabulary_is_kept_where_all_share_it(folders: list[Path], tmp_path: Path) -> None:
    words, copies = frozenset({"ae", "io"}), list[Path]()
    for number, folder in enumerate(folders):
        loaded = load_model(folder, device="cpu")
        copies.append(tmp_path / f"closed{number}")
        gate = SpeechGate(0.7, words)
        save_model(copies[-1], loaded.model, loaded.tokenizer, card="", speech_gate=gate)
    merge(copies, tmp_path / "both")
    assert load_model(tmp_path / "both", device="cpu").speech_gate == SpeechGate(0.0, words)
    said: list[str] = []
    merge([copies[0], folders[1]], tmp_path / "mixed", say=said.append)
    assert load_model(tmp_path / "mixed", device="cpu").speech_gate == SpeechGate(0.0)
    assert any("closed vocabulary" in line for line in said)


def test_formatting_is_not_merged(folders: list[Path], tmp_path: Path) -> None:
    """Its files lie in the folders of the parents."""
    loaded = load_model(folders[0], device="cpu")
    post = PostConfig.model_validate({"stages": ["hotwords"], "hotwords": {"file": "names.txt"}})
    loaded.model.recipe = loaded.recipe.with_(post=post)
    save_model(tmp_path / "formatted", loaded.model, loaded.tokenizer, card="")
    said: list[str] = []
    merge([tmp_path / "formatted", folders[1]], tmp_path / "both", say=said.append)
    assert load_model(tmp_path / "both", device="cpu").recipe.post is None
    assert any("Formatting is left out" in line for line in said)


def test_errors_on_training_speech_are_refused(folders: list[Path], corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="by heart"):
        merge(folders, tmp_path / "both", corpus=corpus, split="train")


def test_a_merged_folder_proves_itself_and_names_its_parents(folders: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    before = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    found = merge(folders, tmp_path / "both", say=said.append)
    loaded = load_model(tmp_path / "both", device="cpu", check=True)
    assert loaded.recipe == read_parent(folders[0]).recipe.with_(name="both")
    weights = [load_file(f / "model.safetensors") for f in (*folders, tmp_path / "both")]
    for name, value in weights[2].items():
        torch.testing.assert_close(value, (weights[0][name] + weights[1][name]) / 2)
    card = (tmp_path / "both" / "card.md").read_text(encoding="utf-8")
    for folder in folders:
        assert f"| {folder.name} | 0.5 | " in card
        assert read_parent(folder).fingerprint in card
    assert "Nothing was measured" in card
    assert "dev CER" not in card
    assert found.validation is None
    assert any("one start" in note for note in said)  # seeds of their own
    assert {p: p.read_bytes() for p in before} == before


def test_the_gate_of_a_parent_is_not_carried_over(folders: list[Path], tmp_path: Path) -> None:
    gated: list[Path] = []
    for folder in folders:
        loaded = load_model(folder, device="cpu")
        gated.append(tmp_path / f"gated-{folder.name}")
        gate = SpeechGate(0.9, frozenset({"aeiou"}))
        save_model(gated[-1], loaded.model, loaded.tokenizer, card="", speech_gate=gate)
    merge(gated, tmp_path / "both")
    assert load_model(tmp_path / "both", device="cpu").speech_gate.threshold == 0.0
    assert "open" in (tmp_path / "both" / "card.md").read_text(encoding="utf-8")


def test_the_gate_is_measured_where_there_is_a_corpus(
    folders: list[Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a training: of the answers to dev and to non-speech."""
    from firstwords.training import soup

    seen: list[tuple[int, int]] = []

    def choose(speech: Any, noise: Any) -> float:
        seen.append((len(list(speech)), len(list(noise))))
        return 0.25

    monkeypatch.setattr(soup, "choose_gate", choose)
    monkeypatch.setattr("firstwords.training.gate._PROBES", 4)
    found = merge(folders, tmp_path / "both", corpus=corpus)
    assert load_model(tmp_path / "both", device="cpu").speech_gate.threshold == 0.25
    assert seen[0][0] == 3
    assert 0 < seen[0][1] <= 4
    assert found.validation.numbers["utterances"] == 3
    assert "| dev CER |" in (tmp_path / "both" / "card.md").read_text(encoding="utf-8")


def test_a_greedy_soup_of_folders_is_the_average_of_what_it_kept(
    folders: list[Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model, its copy and a worse one the copy stays: it changes nothing."""
    monkeypatch.setattr("firstwords.training.gate._PROBES", 2)
    silent = tmp_path / "silent"
    loaded = load_model(folders[0], device="cpu")
    with torch.no_grad():
        loaded.model.get_parameter("heads.ctc.projection.bias")[0] = 1e4  # blanks alone: CER 100 %
    save_model(silent, loaded.model, loaded.tokenizer, card="")
    copy = Path(shutil.copytree(folders[0], tmp_path / "copy"))
    found = merge([silent, folders[0], copy], tmp_path / "soup", greedy=True, corpus=corpus)
    assert {s.parent.name for s in found.steps} == {"silent", "m1", "copy"}
    kept = [s.parent for s in found.steps if s.kept]
    assert [i.parent for i in found.ingredients] == kept
    errors = {s.parent.name: s.error for s in found.steps}
    assert min(errors.values()) == found.validation.objective
    card = (tmp_path / "soup" / "card.md").read_text(encoding="utf-8")
    assert all(f"kept: {p.name}" in card for p in kept)


@pytest.mark.parametrize("split", ["test", "test-clean", "fr_test"])
def test_test_splits_are_refused(folders: list[Path], corpus: Path, tmp_path: Path, split: str) -> None:
    with pytest.raises(SearchError, match="not tuned on"):
        merge(folders, tmp_path / "soup", greedy=True, corpus=corpus, split=split)
    assert not (tmp_path / "soup").exists()


def test_a_split_without_transcripts_is_refused(folders: list[Path], corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="'train', 'dev', 'test'"):
        merge(folders, tmp_path / "soup", corpus=corpus, split="nowhere")


def test_a_folder_with_something_in_it_is_refused(folders: list[Path]) -> None:
    before = (folders[1] / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="not empty"):
        merge(folders, folders[1])
    assert (folders[1] / "model.safetensors").read_bytes() == before


# --- batch normalization ---------------------------------------------------------------------------------


def normed_recipe() -> Recipe:
    values = tone_recipe().model_dump()
    values["encoder"] = {"kind": "dnn", "hidden": 12, "layers": 2, "context": 2}
    return Recipe.model_validate(values)


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models with batch normalization, the second some steps away from the first."""
    home = tmp_path_factory.mktemp("normed")
    recipe, tokenizer = normed_recipe(), GraphemeTokenizer.train(["aeiou aeiou aeiou"] * 5)
    torch.manual_seed(1)
    model = SpeechModel(recipe, len(tokenizer.pieces))
    folders: list[Path] = []
    for number in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * number * torch.randn_like(parameter))
        model.train()
        model.encode(pad([0.1 * torch.randn(16000)]))
        save_model(home / f"n{number}", model.eval(), tokenizer, card="")
        folders.append(home / f"n{number}")
    return folders


def first_norm(model: SpeechModel) -> MaskedBatchNorm:
    return next(m for m in model.modules() if isinstance(m, MaskedBatchNorm))


def test_statistics_measured_anew_are_the_means_over_the_batches(normed: list[Path]) -> None:
    """Of the first norm, whose input no norm has touched: moments by hand."""
    model = load_model(normed[0], device="cpu").model
    norm = first_norm(model)
    seen: list[torch.Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    audio = [pad([0.1 * torch.randn(n)]) for n in (9000, 16000, 12000)]
    weights = {n: p.clone() for n, p in model.named_parameters()}
    renew_statistics(model, iter(audio))
    hook.remove()
    flat = [x.flatten(0, -2) for x in seen]
    mean = torch.stack([x.mean(0) for x in flat]).mean(0)
    variance = torch.stack([x.var(0, unbiased=True) for x in flat]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-4)
    assert norm.momentum == 0.1
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())


def test_merged_batch_normalization_is_measured_on_the_corpus(
    normed: list[Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firstwords.training.gate._PROBES", 2)
    said: list[str] = []
    merge(normed, tmp_path / "guess", say=said.append)
    assert any("a guess" in note for note in said)
    merge(normed, tmp_path / "measured", corpus=corpus, say=said.append)
    assert any("measured anew" in note for note in said)
    guess, measured = (load_model(tmp_path / n, device="cpu").model for n in ("guess", "measured"))
    for (name, one), (_, two) in zip(guess.named_parameters(), measured.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    norms = [first_norm(m) for m in (guess, measured)]
    assert not torch.allclose(norms[0].running_mean, norms[1].running_mean)
    # What stands there is what the whole of train gives: the same call changes nothing.
    before = norms[1].running_mean.clone()
    loaded = load_model(tmp_path / "measured", device="cpu")
    tasting = Tasting(load_corpus(corpus), "dev", loaded.recipe, loaded.tokenizer, "cpu")
    assert tasting.renew(measured)
    torch.testing.assert_close(norms[1].running_mean, before)


def test_one_model_alone_keeps_its_statistics(
    normed: list[Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firstwords.training.gate._PROBES", 2)
    parents = [read_parent(folder) for folder in normed]
    merge_models(
        task_arithmetic(parents[0], [parents[1]], [], 1.0),
        tmp_path / "x",
        how="",
        corpus=corpus,
        device="cpu",
    )
    one, two = (load_file(f / "model.safetensors") for f in (normed[1], tmp_path / "x"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_corpus_without_train_leaves_the_statistics(normed: list[Path], corpus: Path) -> None:
    said: list[str] = []
    loaded = load_model(normed[0], device="cpu")
    found = load_corpus(corpus)
    found = replace(found, utterances=tuple(u for u in found.utterances if u.split != "train"))
    tasting = Tasting(found, "dev", loaded.recipe, loaded.tokenizer, "cpu", said.append)
    assert not tasting.renew(loaded.model)
    assert "No split 'train'" in said[0]


def test_negatives_that_are_gone_are_told(folders: list[Path], corpus: Path, tmp_path: Path) -> None:
    loaded = load_model(folders[0], device="cpu")
    recipe = loaded.recipe.with_(data=loaded.recipe.data.with_(negative_folders=(str(tmp_path / "gone"),)))
    said: list[str] = []
    Tasting(load_corpus(corpus), "dev", recipe, loaded.tokenizer, "cpu", said.append)
    assert "made-up noise" in said[0]


def test_mixed_statistics_are_better_than_none(normed: list[Path]) -> None:
    """The merged model normalizes by statistics between those of its parents."""
    from firstwords.model.merging import build_merged, merge_weights

    parents = [read_parent(folder) for folder in normed]
    model = build_merged(parents[0].recipe, parents[0].tokenizer, merge_weights(average(parents)).weights)
    one, two = (load_model(f, device="cpu").model for f in normed)
    means = [first_norm(m).running_mean for m in (one, two, model)]
    torch.testing.assert_close(means[2], (means[0] + means[1]) / 2)
    audio = Padded(0.1 * torch.randn(1, 8000), torch.tensor([8000]))
    assert model(audio).values.isfinite().all()
