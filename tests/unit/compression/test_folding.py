"""Folded norms: the same outputs, computed in fewer operations, for every encoder that has any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from firstwords.compression.folding import folded
from firstwords.compression.low_rank import collect, factored
from firstwords.data.batch import Batch
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.folding import foldings
from firstwords.nn.low_rank import worth
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.tensors import Padded
from firstwords.text.characters import GraphemeTokenizer
from tone_corpus import tone_recipe

TOKENIZER = GraphemeTokenizer.train(["aeiou aeiou"] * 3)
SMALL = {"dim": 16, "layers": 3, "heads": 2, "feedforward": 24, "subsampling": {"channels": 8}}
# Settings, and how many norms and scales fold; the norm of the features stays.
ENCODERS: dict[str, tuple[dict[str, Any], int]] = {
    "quartznet": (
        {"channels": [8, 12], "kernels": [5, 7], "blocks": [1, 1], "repeats": 2, "last": [16, 20]},
        2 + 2 * 3 + 1 + 1,
    ),
    "mobilenet": (
        {"channels": [8, 12], "blocks": [1, 2], "kernels": [5, 7], "strides": [2, 2], "out": 16},
        3 * 3 + 2,
    ),
    "resnet": ({"channels": [4, 8], "blocks": [1, 1], "strides": [2, 1, 2], "out": 12}, 1 + 3 + 3 - 1),
    "resnet, separable": (
        {"channels": [4, 8], "blocks": [1, 1], "strides": [2, 1, 2], "out": 12, "separable": True},
        1 + 3 + 3 - 1,
    ),
    "dnn": ({"hidden": 16, "layers": 3}, 3),
    "transformer": (SMALL, 1),
    "conformer": (SMALL | {"kernel": 7}, 1 + 3),
    "squeezeformer": (SMALL | {"kernel": 7, "reduce_at": 1, "recover_at": 2}, 1 + 3 + 3 * 4),
}


def model_of(kind: str, settings: dict[str, Any]) -> SpeechModel:
    values = tone_recipe().model_dump()
    values["encoder"] = {"kind": kind.split(",")[0]} | settings
    torch.manual_seed(4)
    model = SpeechModel(Recipe.model_validate(values), len(TOKENIZER.pieces)).eval()
    draw = torch.Generator().manual_seed(5)
    for module in model.modules():  # a trained model's, not zeros and ones
        if isinstance(module, MaskedBatchNorm):
            module.running_mean.normal_(generator=draw)
            module.running_var.uniform_(0.3, 3.0, generator=draw)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1 and "heads" not in name:
                value.add_(0.3 * torch.randn(value.shape, generator=draw))
    return model


def utterances() -> Padded:
    draw = torch.Generator().manual_seed(6)
    lengths = torch.tensor([16000, 9000, 12345])
    values = 0.1 * torch.randn(3, 16000, generator=draw)
    return Padded(values * (torch.arange(16000) < lengths[:, None]), lengths)


class Operations(TorchDispatchMode):
    """Counts the operations that run inside: what torch computes, not what only looks at it anew."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(model: SpeechModel, audio: Padded) -> int:
    """Of the encoder alone: multiply-accumulates (model/cost.py) leave element-wise work out."""
    frames = model.features(audio)
    with torch.no_grad(), Operations() as counted:
        model.encode_frames(frames)
    return counted.count


@pytest.mark.parametrize("kind", ENCODERS)
def test_each_folded_norm_is_an_operation_less(kind: str) -> None:
    settings, count = ENCODERS[kind]
    model = model_of(kind, settings)
    small, _ = folded(model)
    audio = utterances()
    alone = Padded(audio.values[:1], audio.lengths[:1])
    for heard in (alone, audio):  # all frames real; some of them padding
        assert operations(small, heard) <= operations(model, heard) - count


@pytest.mark.parametrize("kind", ENCODERS)
def test_outputs_stay_what_they_were(tmp_path: Path, kind: str) -> None:
    settings, count = ENCODERS[kind]
    model = model_of(kind, settings)
    small, paths = folded(model)
    assert len(paths) == count
    assert small.num_parameters < model.num_parameters
    left = [name for name, m in small.named_modules() if isinstance(m, MaskedBatchNorm)]
    assert left in ([], ["encoder.input_norm"])
    assert not foldings(small)
    audio = utterances()
    save_model(tmp_path / "small", small, TOKENIZER, card="")
    again = load_model(tmp_path / "small", device="cpu").model
    assert len(again.structure.changes) == count
    with torch.no_grad():
        before = model.encode(audio)
        for after in (small.encode(audio), again.encode(audio)):
            assert torch.equal(after.lengths, before.lengths)
            scale = float(before.values.abs().max())
            assert float((after.values - before.values).abs().max()) < 1e-5 * max(1.0, scale)
        for row, length in enumerate(audio.lengths.tolist()):  # padding changes nothing
            alone = small.encode(Padded(audio.values[row : row + 1, :length], audio.lengths[row : row + 1]))
            frames = int(alone.lengths[0])
            torch.testing.assert_close(
                alone.values[0, :frames], small.encode(audio).values[row, :frames], atol=2e-4, rtol=1e-4
            )


@pytest.mark.parametrize("kind", ["quartznet", "mobilenet", "dnn", "squeezeformer"])
def test_products_of_two_matrices_take_norms_and_scales(tmp_path: Path, kind: str) -> None:
    settings, count = ENCODERS[kind]
    model, audio = model_of(kind, settings), utterances()
    targets = Padded(torch.ones(3, 1, dtype=torch.long), torch.ones(3, dtype=torch.long))
    heard = Batch(audio, targets, ("a", "b", "c"), ("a", "a", "a"), torch.zeros(3, dtype=torch.long))
    with torch.no_grad():
        moments = collect(model, [heard])
        ranks = {path: 2 for path, m in model.named_modules() if path in moments and _is_wide(m)}
        thin = factored(model, moments, ranks, method="data")
        inner = collect(thin, [heard])
        first = next(path for path in foldings(model).values() if path in ranks)  # a product of products
        thin = factored(thin, inner, {f"{first}.down": 1, f"{first}.up": 1}, method="data")
        small, paths = folded(thin)
        save_model(tmp_path / "small", small, TOKENIZER, card="")
        again = load_model(tmp_path / "small", device="cpu").model
        assert {foldings(model)[path] for path in paths} & set(ranks)
        assert len(paths) == count
        before = thin.encode(audio).values
        for after in (small, again):
            torch.testing.assert_close(after.encode(audio).values, before, atol=1e-5, rtol=1e-5)


def _is_wide(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and worth(module.in_features, module.out_features) >= 2


def test_a_streaming_conformer_streams_the_same() -> None:
    settings = SMALL | {"kernel": 7, "causal": True}
    model = model_of("conformer", settings)
    small, _ = folded(model)
    frames = torch.randn(1, 200, model.frontend.dim, generator=torch.Generator().manual_seed(1))
    outputs: list[torch.Tensor] = []
    with torch.no_grad():
        for one in (model, small):
            encoder: Any = one.encoder
            state = encoder.start(1, chunk=4, left=8)
            parts: list[torch.Tensor] = []
            for n in range(5):
                window = frames[:, n * encoder.hop(4) : n * encoder.hop(4) + encoder.window(4)]
                out, state = encoder.step(Padded(window, torch.tensor([window.shape[1]])), state)
                parts.append(out.values)
            outputs.append(torch.cat(parts, dim=1))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)


def test_what_has_no_such_norms_stays_whole() -> None:
    model = SpeechModel(tone_recipe(), 8).eval()
    small, paths = folded(model)
    assert not paths
    assert small.structure == model.structure
    assert isinstance(model.encoder, nn.Module)
