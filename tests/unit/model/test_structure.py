"""structure.json: a cut model is saved, loaded and trained on; what does not fit is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from firstwords.cli.info import facts
from firstwords.encoders.conformer import ConformerConfig
from firstwords.encoders.layers import Absent
from firstwords.errors import CheckpointError
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.merging import average, build_merged, check_alike, merge_weights, read_parent
from firstwords.model.selfcheck import synthetic_clip
from firstwords.model.speech_model import SpeechModel
from firstwords.model.structure import FILE, UNCHANGED, Cut, Drop, Structure, apply_structure, read_structure
from firstwords.nn.subsampling import SubsamplingConfig
from firstwords.tensors import pad
from nonsense_model import make_nonsense_model
from tone_corpus import tone_recipe

FEED = "encoder.stacks.0.layers.0.feed_forward1"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


def narrower(model: nn.Module, kept: int = 3) -> Structure:
    """The first feed-forward module with ``kept`` units."""
    feed = model.get_submodule(FEED)
    dim = feed.get_submodule("in_proj").weight.shape[1]
    shapes = {"in_proj.weight": (kept, dim), "in_proj.bias": (kept,), "out_proj.weight": (dim, kept)}
    return Structure(
        changes=(
            Cut(module=FEED, shapes=shapes),
            Cut(module=f"{FEED}.in_proj", attributes={"out_features": kept}),
        )
    )


@pytest.fixture
def cut(original: Path, tmp_path: Path) -> Path:
    """A folder of a model whose first feed-forward module has three units."""
    old = load_model(original, device="cpu")
    structure = narrower(old.model)
    model = SpeechModel(old.recipe, len(old.tokenizer.pieces), structure).eval()
    state = model.state_dict()
    given = old.model.state_dict()
    model.load_state_dict(
        {n: given[n][tuple(slice(k) for k in t.shape)] if t.dim() else given[n] for n, t in state.items()}
    )
    save_model(tmp_path / "cut", model, old.tokenizer, card="")
    return tmp_path / "cut"


def test_a_cut_model_is_saved_and_loaded(original: Path, cut: Path) -> None:
    one, two = load_model(cut, device="cpu", check=True), load_model(cut, device="cpu")
    assert one.model.get_parameter(f"{FEED}.in_proj.weight").shape[0] == 3
    assert vars(one.model.get_submodule(f"{FEED}.in_proj"))["out_features"] == 3
    audio = pad([torch.from_numpy(synthetic_clip(16000))])
    with torch.inference_mode():
        assert torch.equal(one.model(audio).values, two.model(audio).values)
    assert one.model.structure == read_structure(cut)
    size = (cut / "model.safetensors").stat().st_size
    assert size < (original / "model.safetensors").stat().st_size
    before = load_model(original, device="cpu").model.num_parameters
    said = f"2 parts with fewer units; before: {before / 1e6:.2f} M parameters"
    assert ("cut since the recipe", said) in facts(cut)


def test_an_uncut_model_leaves_no_file_and_no_old_file(original: Path, cut: Path) -> None:
    assert not (original / FILE).exists()
    assert read_structure(original) == UNCHANGED
    assert "cut since the recipe" not in dict(facts(original))
    loaded = load_model(original, device="cpu")
    save_model(cut, loaded.model, loaded.tokenizer, card="")
    assert not (cut / FILE).exists()
    load_model(cut, device="cpu", check=True)


def test_a_missing_or_other_file_is_noticed(cut: Path) -> None:
    text = (cut / FILE).read_text()
    (cut / FILE).unlink()
    with pytest.raises(CheckpointError, match=r"not saved with this structure\.json"):
        load_model(cut, device="cpu")
    (cut / FILE).write_text(text.replace('"out_features": 3', '"out_features": 4'))
    with pytest.raises(CheckpointError, match=r"not saved with this structure\.json"):
        load_model(cut, device="cpu")


def test_a_dropped_layer_hands_on_what_it_gets() -> None:
    encoder = ConformerConfig(
        dim=16, layers=3, heads=2, feedforward=16, kernel=5, subsampling=SubsamplingConfig(channels=4)
    )
    model = SpeechModel(tone_recipe().model_copy(update={"encoder": encoder}), 6).eval()
    before = model.num_parameters
    two = Structure(changes=(Drop(list="encoder.layers", index=0), Drop(list="encoder.layers", index=2)))
    apply_structure(model, two)
    layers = model.get_submodule("encoder.layers")
    assert isinstance(layers, nn.ModuleList)
    x = torch.randn(1, 4, 5)
    assert layers[0](x, "anything", view=None) is x
    assert [isinstance(layer, Absent) for layer in layers] == [True, False, True]
    assert model.num_parameters < before
    with torch.inference_mode():
        assert model(pad([torch.from_numpy(synthetic_clip(16000))])).values.isfinite().all()
    with pytest.raises(CheckpointError, match="left out before"):
        apply_structure(model, Structure(changes=(Drop(list="encoder.layers", index=0),)))
    with pytest.raises(CheckpointError, match="is the last one"):
        apply_structure(model, Structure(changes=(Drop(list="encoder.layers", index=1),)))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no module": ({"kind": "cut", "module": "encoder.nowhere"}, "there is no module 'encoder.nowhere'"),
    "no tensor": ({"kind": "cut", "module": FEED, "shapes": {"in_proj.w": [3]}}, "in_proj.w"),
    "larger": ({"kind": "cut", "module": FEED, "shapes": {"in_proj.bias": [10**9]}}, "cannot become"),
    "axes": ({"kind": "cut", "module": FEED, "shapes": {"in_proj.bias": [3, 3]}}, "cannot become"),
    "no attribute": ({"kind": "cut", "module": FEED, "attributes": {"forward": 3}}, "no number of units"),
    "no number": ({"kind": "cut", "module": FEED, "attributes": {"training": 1}}, "no number of units"),
    "a setting": ({"kind": "cut", "module": "frontend", "attributes": {"shift": 1}}, "no number of units"),
    "more than before": (
        {"kind": "cut", "module": f"{FEED}.in_proj", "attributes": {"out_features": 2**50}},
        "is not between 1 and",
    ),
    "nothing left": (
        {"kind": "cut", "module": f"{FEED}.in_proj", "attributes": {"out_features": 0}},
        "is not between 1 and",
    ),
    "no list": ({"kind": "drop", "list": FEED, "index": 0}, "no list of layers"),
    "no layer": ({"kind": "drop", "list": "encoder.stacks", "index": 99}, "none has number 99"),
}


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD.keys())
def test_what_does_not_fit_is_named(
    original: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    folder = Path(shutil.copytree(original, tmp_path / "model"))
    (folder / FILE).write_text(json.dumps({"format": 1, "changes": [change]}))
    loaded = load_model(original, device="cpu")
    with pytest.raises(CheckpointError, match=r"structure\.json': change 1") as caught:
        apply_structure(loaded.model, read_structure(folder))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": 2}',
        '{"changes": [{"kind": "melt"}]}',
        '{"changes": [{"kind": "drop", "list": "a", "index": -1}]}',
        '{"changes": [{"kind": "drop", "list": "a", "index": "1"}]}',
        '{"changes": [{"kind": "cut", "module": "a", "shapes": {"b": [1.5]}}]}',
        '{"changes": [{"kind": "cut", "module": "a", "more": 1}]}',
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"structure\.json"):
        read_structure(tmp_path)


def test_cut_models_merge_only_with_those_cut_alike(original: Path, cut: Path) -> None:
    parents = [read_parent(cut), read_parent(cut)]
    assert check_alike(parents) == []
    weights = merge_weights(average(parents)).weights
    merged = build_merged(parents[0].recipe, parents[0].tokenizer, weights, parents[0].structure)
    assert merged.structure == parents[0].structure
    with pytest.raises(CheckpointError, match="other parts were cut"):
        check_alike([read_parent(original), parents[0]])
