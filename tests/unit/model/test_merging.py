"""Merging: shares against numpy, what comes back bit for bit, statistics as mixtures, refusals in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from firstwords.errors import CheckpointError, UsageError
from firstwords.model import kinds
from firstwords.model.checkpoint import load_model, save_model, save_tensors
from firstwords.model.merging import (
    TRAINING_ONLY,
    Ingredient,
    Parent,
    Shape,
    average,
    build_merged,
    check_alike,
    merge_weights,
    read_parent,
    task_arithmetic,
)
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded, pad
from firstwords.text.characters import GraphemeTokenizer
from nonsense_model import make_nonsense_model
from tone_corpus import tone_recipe


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("models")
    return [make_nonsense_model(home / f"m{seed}", seed=seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def parents(folders: list[Path]) -> list[Parent]:
    return [read_parent(folder) for folder in folders]


def tensors(folder: Path) -> dict[str, np.ndarray]:
    found = load_file(folder / "model.safetensors")
    return {name: value.double().numpy() for name, value in found.items()}


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def a_parent(folder: Path, weights: Mapping[str, torch.Tensor], like: Parent) -> Parent:
    """A parent of made-up tensors."""
    folder.mkdir()
    save_tensors(folder / "model.safetensors", weights)
    shapes = {name: Shape(tuple(value.shape), "F32") for name, value in weights.items()}
    return Parent(folder, like.recipe, like.tokenizer, shapes, "")


def test_an_average_is_that_of_numpy(folders: list[Path], parents: list[Parent]) -> None:
    merged = merge_weights(average(parents, [0.5, 0.3, 0.2])).weights
    one, two, three = (tensors(folder) for folder in folders)
    assert merged.keys() == one.keys()
    for name, value in merged.items():
        expected = 0.5 * one[name] + 0.3 * two[name] + 0.2 * three[name]
        assert value.dtype == torch.float32, name
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, atol=1e-9, err_msg=name)
    uniform = merge_weights(average(parents)).weights
    name = "encoder.stacks.0.layers.0.feed_forward2.in_proj.weight"
    expected = (one[name] + two[name] + three[name]) / 3
    np.testing.assert_allclose(uniform[name].numpy(), expected, rtol=1e-6, atol=1e-9)


def test_weights_are_shares_of_their_sum(parents: list[Parent]) -> None:
    assert [share for _, share in average(parents, [2, 1, 1])] == [0.5, 0.25, 0.25]


@pytest.mark.parametrize("times", [1, 2, 3, 7])
def test_a_model_merged_with_itself_is_itself(folders: list[Path], times: int) -> None:
    own = [read_parent(folders[0])] * times
    found = merge_weights(average(own))
    assert same(found.weights, load_file(folders[0] / "model.safetensors"))
    assert found.likeness == pytest.approx([1.0] * times)


def test_task_arithmetic_at_its_ends_gives_the_models_back(
    folders: list[Path], parents: list[Parent]
) -> None:
    base, task, other = parents
    nothing = merge_weights(task_arithmetic(base, [task, other], [], 0.0)).weights
    assert same(nothing, load_file(folders[0] / "model.safetensors"))
    all_of_it = merge_weights(task_arithmetic(base, [task], [], 1.0)).weights
    assert same(all_of_it, load_file(folders[1] / "model.safetensors"))
    undone = merge_weights(task_arithmetic(base, [task], [task], 0.8)).weights
    expected = load_file(folders[0] / "model.safetensors")
    for name, value in undone.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)


def test_task_arithmetic_is_that_of_the_paper(folders: list[Path], parents: list[Parent]) -> None:
    """base + 0.7 (A - base) - 0.7 (B - base)."""
    merged = merge_weights(task_arithmetic(parents[0], [parents[1]], [parents[2]], 0.7)).weights
    base, a, b = (tensors(folder) for folder in folders)
    for name, value in merged.items():
        expected = base[name] + 0.7 * (a[name] - base[name]) - 0.7 * (b[name] - base[name])
        np.testing.assert_allclose(value.numpy(), expected, rtol=2e-6, atol=1e-6, err_msg=name)


def test_variances_are_those_of_the_mixture(tmp_path: Path, parents: list[Parent]) -> None:
    """Ten values of one model and ten of another, seen as one heap of twenty."""
    draw = np.random.default_rng(3)
    heaps = [draw.normal(m, s, (10, 4)) for m, s in ((0.0, 1.0), (5.0, 2.0))]
    made: list[Parent] = []
    for n, heap in enumerate(heaps):
        weights = {
            "a.running_mean": torch.from_numpy(heap.mean(0)).float(),
            "a.running_var": torch.from_numpy(heap.var(0)).float(),
            "a.num_batches_tracked": torch.tensor(100 * (n + 1)),
            "b.mean": torch.from_numpy(heap.mean(0)).float(),
            "b.variance": torch.from_numpy(heap.var(0)).float(),
            "b.count": torch.tensor(7.0 + n),
            "variance": torch.tensor([1.0 + n]),  # a weight that happens to be called so
        }
        made.append(a_parent(tmp_path / f"{n}", weights, parents[0]))
    found = merge_weights(average(made)).weights
    together = np.concatenate(heaps)
    for mean, variance in (("a.running_mean", "a.running_var"), ("b.mean", "b.variance")):
        np.testing.assert_allclose(found[mean].numpy(), together.mean(0), rtol=1e-5)
        np.testing.assert_allclose(found[variance].numpy(), together.var(0), rtol=1e-5)
    assert found["a.num_batches_tracked"] == 200
    assert found["a.num_batches_tracked"].dtype == torch.int64
    assert found["b.count"] == 8.0
    assert found["variance"] == 1.5
    least = np.minimum(*(heap.var(0) for heap in heaps))
    far = merge_weights(task_arithmetic(made[0], [], [made[1]], 1.0)).weights
    np.testing.assert_allclose(far["a.running_var"].numpy(), least, rtol=1e-5)  # else it would be negative


def test_likeness_is_the_cosine_of_the_matrices(folders: list[Path], parents: list[Parent]) -> None:
    found = merge_weights(average(parents)).likeness
    one, two = (
        np.concatenate([v.ravel() for v in tensors(folder).values() if v.ndim > 1]) for folder in folders[:2]
    )
    expected = one @ two / np.sqrt((one @ one) * (two @ two))
    assert found[0] == pytest.approx(1.0)
    assert found[1] == pytest.approx(expected)
    assert abs(found[1]) < 0.5  # random weights of two seeds have nothing in common


def test_values_that_are_no_numbers_are_refused(tmp_path: Path, parents: list[Parent]) -> None:
    good = a_parent(tmp_path / "good", {"w": torch.full((2, 2), 10.0)}, parents[0])
    bad = a_parent(tmp_path / "bad", {"w": torch.tensor([[1.0, float("nan")], [0.0, 0.0]])}, parents[0])
    with pytest.raises(CheckpointError, match="bad': w holds values that are no numbers"):
        merge_weights(average([good, bad]))
    assert merge_weights([Ingredient(good, 1.0), Ingredient(bad, 0.0)]).weights["w"].sum() == 40
    with pytest.raises(CheckpointError, match="sum of w is no number"):
        merge_weights(task_arithmetic(good, [good], [], 1e308))


@pytest.mark.parametrize(
    "weights", [[1.0], [0.5, 0.5, 0.5, 0.5], [-1, 1, 1], [0, 0, 0], [1, float("nan"), 1]]
)
def test_weights_that_are_no_shares_are_refused(parents: list[Parent], weights: list[float]) -> None:
    with pytest.raises(UsageError, match=r"[wW]eights"):
        average(parents, weights)


def other_model(folder: Path, letters: str = "aeiou", **changes: Any) -> Parent:
    recipe = Recipe.model_validate(_changed(tone_recipe().model_dump(), changes))
    tokenizer = GraphemeTokenizer.train([f"{letters} " * 3] * 5)
    torch.manual_seed(8)
    save_model(folder, SpeechModel(recipe, len(tokenizer.pieces)).eval(), tokenizer, card="")
    return read_parent(folder)


def _changed(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = values
        for key in path:
            inner = inner[key]
        inner[last] = value
    return values


def test_other_pieces_are_refused_by_name(tmp_path: Path, parents: list[Parent]) -> None:
    with pytest.raises(
        CheckpointError, match=r"cannot be merged .*: piece \d+ is '.*', there '.*'"
    ) as caught:
        check_alike([parents[0], other_model(tmp_path / "x", "aeiox")])
    assert "--from" in caught.value.mend


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder__feedforward": 32}, r"encoder\.feedforward = \[64, 64\], there \[32, 32\]"),
        ({"encoder__causal": True}, r"encoder\.causal = False, there True"),
        ({"features__window": "hann"}, r"features\.window = povey, there hann"),
        ({"heads__ctc__self_conditioned": True, "heads__ctc__intermediate": (0,)}, r"heads\.ctc\."),
    ],
)
def test_another_architecture_is_refused_by_name(
    tmp_path: Path, parents: list[Parent], changes: dict[str, Any], said: str
) -> None:
    """Also where shapes are equal: weights mean something else with another window."""
    with pytest.raises(CheckpointError, match=said):
        check_alike([parents[0], other_model(tmp_path / "x", **changes)])


def test_other_tensors_are_refused_by_name(tmp_path: Path, parents: list[Parent]) -> None:
    one = a_parent(tmp_path / "one", {"a": torch.ones(2), "b": torch.ones(2)}, parents[0])
    two = a_parent(tmp_path / "two", {"a": torch.ones(3), "c": torch.ones(2)}, parents[0])
    with pytest.raises(CheckpointError, match=r"b is missing there; c is only there; a is \[2\] F32, there"):
        check_alike([one, two])


def test_what_differs_beside_the_architecture_is_told(tmp_path: Path, parents: list[Parent]) -> None:
    other = other_model(tmp_path / "x", seed=7, heads__ctc__dropout=0.3, language="sw")
    said = check_alike([parents[0], other, parents[1]])
    assert "seed: 1, 7 in 'x'" in said
    assert "heads.ctc.dropout: 0.0, 0.3 in 'x'" in said
    assert "language: und, sw in 'x'" in said
    assert check_alike([parents[0], parents[1]]) == []


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, folders: list[Path]) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        read_parent(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"missing\. Found: nothing"):
        read_parent(tmp_path / "empty")


def test_half_a_file_and_another_recipe_are_refused(tmp_path: Path) -> None:
    half = make_nonsense_model(tmp_path / "half")
    weights = half / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_parent(half)
    edited = make_nonsense_model(tmp_path / "edited")
    recipe = edited / "recipe.toml"
    recipe.write_text(recipe.read_text("utf-8").replace("seed = 1\n", "seed = 2\n"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"not saved with this recipe\.toml"):
        read_parent(edited)


def test_the_merged_model_computes_what_its_weights_say(folders: list[Path], parents: list[Parent]) -> None:
    """Of one model: the same answer, bit for bit."""
    merged = merge_weights(task_arithmetic(parents[0], [parents[1]], [], 1.0)).weights
    model = build_merged(parents[0].recipe, parents[0].tokenizer, merged)
    audio = pad([torch.randn(8000, generator=torch.Generator().manual_seed(1))])
    with torch.inference_mode():
        found, expected = model(audio), load_model(folders[1], device="cpu").model(audio)
    assert torch.equal(found.values, expected.values)


# What is left out of ENCODERS here has no setting in TRAINING_ONLY that can be changed alone.
SMALL: Mapping[str, dict[str, Any]] = {
    "zipformer": tone_recipe().encoder.model_dump(),
    "conformer": {"dim": 16, "layers": 2, "heads": 2, "feedforward": 16, "kernel": 3},
    "transformer": {"dim": 16, "layers": 2, "heads": 2, "feedforward": 16},
    "squeezeformer": {"dim": 16, "layers": 2, "heads": 2, "feedforward": 16, "kernel": 3}
    | {"reduce_at": 0, "recover_at": 1},
    "e_branchformer": {"dim": 16, "layers": 2, "heads": 2, "feedforward": 16}
    | {"gate_width": 16, "kernel": 3, "merge_kernel": 3},
    "quartznet": {"channels": [8], "kernels": [3], "blocks": [1], "repeats": 2}
    | {"last": [8, 8], "last_kernel": 3},
    "mobilenet": {"channels": [8], "blocks": [2], "kernels": [3], "strides": [2], "out": 8},
    "resnet": {},
    "lstm": {"hidden": 8, "layers": 2},
    "dnn": {"hidden": 8, "layers": 2, "context": 2},
    "listener": {"width": 8},
}


@pytest.mark.parametrize("kind", kinds.ENCODERS)
def test_settings_of_training_alone_change_no_answer(kind: str) -> None:
    """Two encoders with the same weights and other dropout compute alike, bit for bit."""
    config = kinds.ENCODERS[kind].config
    changes: dict[str, Any] = {}
    for name in TRAINING_ONLY["encoder"] & config.model_fields.keys():
        changes[name] = (0.31, 0.17) if kind == "zipformer" else 0.31
    assert changes, kind
    torch.manual_seed(2)
    one = kinds.build_encoder(config.model_validate(SMALL[kind]), 80).eval()
    two = kinds.build_encoder(config.model_validate({**SMALL[kind], **changes}), 80).eval()
    two.load_state_dict(one.state_dict())
    frames = Padded(torch.randn(2, 90, 80), torch.tensor([90, 61]))
    with torch.inference_mode():
        assert torch.equal(one(frames).values, two(frames).values)


@pytest.mark.parametrize("kind", kinds.HEADS)
def test_settings_of_losses_change_no_answer_of_a_head(kind: str) -> None:
    from firstwords.heads.head import FrameHead, TokenHead
    from firstwords.heads.transducer.head import TransducerHead

    config = kinds.HEADS[kind].config
    values: dict[str, Any] = {
        **{"weight": 0.3, "dropout": 0.4, "label_smoothing": 0.3, "blank_bias": -1.0, "consistency": 0.2},
        **{"intermediate_weight": 0.5, "simple_weight": 0.2, "lm_scale": 0.1, "am_scale": 0.1},
        **{"warmup": 7.0, "sampling": {"share": 0.9}, "guided": {"weight": 0.0}},
    }
    assert values.keys() == TRAINING_ONLY["heads"] - {"folder"}  # of a fused model: what it says is compared
    changes = {name: value for name, value in values.items() if name in config.model_fields}
    assert changes, kind
    torch.manual_seed(2)
    one = kinds.HEADS[kind].build(config.model_validate({}), 12, 6).eval()
    two = kinds.HEADS[kind].build(config.model_validate(changes), 12, 6).eval()
    two.load_state_dict(one.state_dict())
    encoded = Padded(torch.randn(1, 9, 12), torch.tensor([9]))
    targets = pad([torch.tensor([1, 2, 2])])
    with torch.inference_mode():
        if isinstance(one, FrameHead):
            assert torch.equal(one.log_probs(encoded).values, two.log_probs(encoded).values)
        elif isinstance(one, TokenHead):
            assert torch.equal(one.log_likelihood(encoded, targets), two.log_likelihood(encoded, targets))
        else:
            assert isinstance(one, TransducerHead)
            history = torch.randn(4, one.config.joiner_dim)
            frames = torch.randn(4, one.config.joiner_dim)
            assert torch.equal(one.next_log_probs(frames, history), two.next_log_probs(frames, history))
