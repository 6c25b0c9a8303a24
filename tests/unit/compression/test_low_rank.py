"""Low rank: the optimum in closed form, ranks by energy and by cut, a factored model saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from firstwords.compression.low_rank import (
    Layer,
    Moments,
    candidates,
    collect,
    factored,
    factors,
    ranks_by_cut,
    ranks_by_energy,
)
from firstwords.compression.material import Material
from firstwords.data.manifest import load_corpus
from firstwords.device import Compute
from firstwords.errors import CheckpointError, UsageError
from firstwords.model.checkpoint import LoadedModel, load_model, save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.model.structure import read_structure
from firstwords.nn.low_rank import LowRankLinear, worth
from firstwords.text.characters import GraphemeTokenizer
from tone_corpus import make_tone_corpus, tone_recipe

CPU = Compute(torch.device("cpu"), torch.float32, "float32")


def problem(seed: int, *, bias: bool) -> tuple[Tensor, Tensor | None, Tensor, Moments]:
    """A layer (5, 7) and 200 inputs of very unequal directions around a mean that is not zero."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(7, 7, generator=draw, dtype=torch.float64)
    inputs = torch.randn(200, 7, generator=draw, dtype=torch.float64) @ (mix * torch.logspace(0, -2, 7))
    inputs = inputs + torch.randn(7, generator=draw, dtype=torch.float64)
    weight = torch.randn(5, 7, generator=draw, dtype=torch.float64)
    moments = Moments(7)
    moments.add(inputs[:80])
    moments.add(inputs[80:].view(2, 60, 7))
    return weight, torch.randn(5, generator=draw, dtype=torch.float64) if bias else None, inputs, moments


def error(weight: Tensor, bias: Tensor | None, inputs: Tensor, found: object) -> float:
    down, up, new, _ = found  # type: ignore[misc]
    before = inputs @ weight.T + (0.0 if bias is None else bias)
    after = inputs @ down.T @ up.T + (0.0 if new is None else new)
    return float((before - after).square().sum(dim=1).mean())


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_optimum_in_closed_form_without_bias(rank: int, seed: int) -> None:
    """Truncated decomposition of W C^(1/2), with C^(1/2) from the eigenvectors of C."""
    weight, _, inputs, moments = problem(seed, bias=False)
    found = factors(weight, None, moments, rank)
    c = inputs.T @ inputs / len(inputs)
    values, vectors = torch.linalg.eigh(c)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    left, sizes, right = torch.linalg.svd(weight @ root, full_matrices=False)
    best = left[:, :rank] * sizes[:rank] @ right[:rank] @ torch.linalg.inv(root)
    torch.testing.assert_close(found.up @ found.down, best, atol=1e-4, rtol=1e-4)
    assert error(weight, None, inputs, found) == pytest.approx(float(sizes[rank:].square().sum()), rel=1e-4)
    torch.testing.assert_close(found.energy, sizes.square(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_never_worse_on_the_data_than_the_weights_alone(seed: int, bias: bool) -> None:
    weight, b, inputs, moments = problem(seed, bias=bias)
    for rank in range(1, 5):
        data = error(weight, b, inputs, factors(weight, b, moments, rank))
        plain = error(weight, b, inputs, factors(weight, b, None, rank))
        assert data <= plain * (1 + 1e-6)
    full = factors(weight, b, moments, 5)
    assert error(weight, b, inputs, full) == pytest.approx(0.0, abs=1e-10)


def test_a_bias_makes_up_for_the_mean() -> None:
    """With it, the error is what varies around the mean: the eigenvalues of W cov W^T that are left out."""
    weight, b, inputs, moments = problem(3, bias=True)
    around = inputs - inputs.mean(dim=0)
    left = torch.linalg.eigvalsh(weight @ (around.T @ around / len(inputs)) @ weight.T)
    found = error(weight, b, inputs, factors(weight, b, moments, 2))
    assert found == pytest.approx(float(left[:-2].sum()), rel=1e-4)
    worse = factors(weight, b, moments, 2)._replace(bias=b)
    assert found < error(weight, b, inputs, worse)


def test_no_small_change_of_the_factors_helps() -> None:
    weight, b, inputs, moments = problem(4, bias=True)
    best = factors(weight, b, moments, 2)
    least = error(weight, b, inputs, best)
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        moved = best._replace(
            down=best.down + 0.01 * torch.randn(best.down.shape, generator=draw, dtype=torch.float64),
            up=best.up + 0.01 * torch.randn(best.up.shape, generator=draw, dtype=torch.float64),
        )
        assert error(weight, b, inputs, moved) >= least * (1 - 1e-9)


def test_worth_is_the_largest_rank_that_saves() -> None:
    for inputs in range(1, 12):
        for outputs in range(1, 12):
            ranks = [r for r in range(1, 12) if r * (inputs + outputs) < inputs * outputs]
            assert worth(inputs, outputs) == max(ranks, default=0)


def layer(path: str, *energy: float, inputs: int = 8, outputs: int = 8) -> Layer:
    return Layer(path, inputs, outputs, torch.tensor(energy, dtype=torch.float64))


def test_ranks_by_hand() -> None:
    steep, flat = layer("steep", 90, 6, 3, 1, 0, 0, 0, 0), layer("flat", *[12.5] * 8)
    assert [steep.rank(e) for e in (0.9, 0.91, 0.96, 0.97, 0.995)] == [1, 2, 2, 3, None]
    assert ranks_by_energy([steep, flat], 0.95) == {"steep": 2}  # flat: 8 of 8, and 3 would save
    assert steep.saved(2) == 64 - 32
    # Of 128 numbers at most 100: 28 fewer. Rank 2 of steep saves 32; more energy would save 16.
    assert ranks_by_cut([steep, flat], 128, 28 / 128) == {"steep": 2}
    with pytest.raises(UsageError, match="75%"):
        ranks_by_cut([steep, flat], 128, 0.9)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoadedModel]:
    folder = tmp_path_factory.mktemp("low_rank")
    corpus = make_tone_corpus(folder / "corpus", train=6, dev=2, test=1)
    values = tone_recipe().model_dump()
    values["heads"]["attention"] = {"kind": "transformer_decoder", "width": 16, "layers": 1, "heads": 2}
    recipe = Recipe.model_validate(values)
    tokenizer = GraphemeTokenizer.train(["aeiou aeiou"] * 3)
    torch.manual_seed(2)
    model = SpeechModel(recipe, len(tokenizer.pieces)).eval()
    return corpus, LoadedModel(folder, recipe, tokenizer, model)


def test_a_factored_model_is_saved_and_loaded(tmp_path: Path, material: tuple[Path, LoadedModel]) -> None:
    folder, loaded = material
    heard = Material(load_corpus(folder), loaded, "cpu")
    batches = list(heard.one_by_one(heard.spoken, seconds=4.0))
    moments = collect(loaded.model, batches)
    assert any(path.startswith("heads.attention") for path in moments)
    assert not any(m._forward_pre_hooks for m in loaded.model.modules())
    layers = candidates(loaded.model, moments, method="data")
    ranks = ranks_by_cut(layers, loaded.model.num_parameters, 0.2)
    small = factored(loaded.model, moments, ranks, method="data")
    assert small.num_parameters <= 0.8 * loaded.model.num_parameters
    assert sum(isinstance(m, LowRankLinear) for m in small.modules()) == len(ranks)
    audio = batches[0].audio
    save_model(tmp_path / "small", small, loaded.tokenizer, card="")
    again = load_model(tmp_path / "small", device="cpu").model
    with torch.no_grad():
        torch.testing.assert_close(again(audio).values, small(audio).values)
    whole = factored(loaded.model, moments, {}, method="data")
    with torch.no_grad():
        torch.testing.assert_close(whole(audio).values, loaded.model(audio).values)


def test_more_energy_is_nearer_to_the_model(material: tuple[Path, LoadedModel]) -> None:
    folder, loaded = material
    heard = Material(load_corpus(folder), loaded, "cpu")
    batches = list(heard.one_by_one(heard.spoken, seconds=6.0))
    moments = collect(loaded.model, batches)
    layers = candidates(loaded.model, moments, method="data", only=["encoder.*"])
    distances: list[float] = []
    with torch.no_grad():
        for energy in (0.5, 0.8, 0.99):
            model = factored(loaded.model, moments, ranks_by_energy(layers, energy), method="data")
            gaps = [model(b.audio).values - loaded.model(b.audio).values for b in batches]
            distances.append(float(sum(g.square().sum() for g in gaps)))
    assert distances[0] > distances[1] > distances[2]
    with pytest.raises(UsageError, match="No linear layer is called like"):
        candidates(loaded.model, moments, method="data", only=["nothing*"])


def test_structure_that_does_not_fit_is_named(tmp_path: Path, material: tuple[Path, LoadedModel]) -> None:
    _, loaded = material
    save_model(tmp_path / "m", loaded.model, loaded.tokenizer, card="")
    for entry, said in (
        ('{"kind": "low_rank", "module": "heads.ctc.projection", "rank": 900}', "rank 900 is more"),
        ('{"kind": "low_rank", "module": "heads.ctc", "rank": 2}', "no linear layer"),
        ('{"kind": "low_rank", "module": "heads.none", "rank": 2}', "no module 'heads.none'"),
        ('{"kind": "low_rank", "module": "heads.ctc.projection", "rank": 0}', "change 1"),
        ('{"kind": "fold", "module": "heads.ctc.projection"}', "no norm that can be folded"),
    ):
        (tmp_path / "m" / "structure.json").write_text(f'{{"format": 1, "changes": [{entry}]}}')
        with pytest.raises(CheckpointError, match=said):
            SpeechModel(loaded.recipe, loaded.model.vocabulary, read_structure(tmp_path / "m"))


def test_a_layer_of_low_rank_stands_in_for_a_linear_one() -> None:
    torch.manual_seed(0)
    whole, thin = nn.Linear(6, 4), LowRankLinear(6, 4, 4)
    made = factors(whole.weight, whole.bias, None, 4)
    with torch.no_grad():
        thin.down.weight.copy_(made.down)
        thin.up.weight.copy_(made.up)
        thin.up.bias.copy_(whole.bias)
        x = torch.randn(3, 6)
        torch.testing.assert_close(thin(x), whole(x))
        torch.testing.assert_close(thin.weight, whole.weight)
    assert thin.bias is thin.up.bias
