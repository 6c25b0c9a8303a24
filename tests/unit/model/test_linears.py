"""Layers that keep their weights narrow give what autocast gives."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from firstwords.inference.recognizer import Recognizer
from firstwords.model import kinds
from firstwords.model.linears import keep_narrow, linear_layers
from firstwords.nn import narrow as narrow_layers
from firstwords.nn.narrow import NarrowLinear
from firstwords.tensors import pad
from nonsense_model import make_nonsense_model
from small_models import ENCODERS, small_model


@pytest.mark.parametrize("rows", [(1,), (0,), (7,), (3, 40), (2, 0), (8, 496)])
@pytest.mark.parametrize("sizes", [(5, 3), (24, 32), (192, 384), (384, 192)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_multiplies_as_under_autocast(
    rows: tuple[int, ...], sizes: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(4)
    layer = nn.Linear(*sizes, bias=bias).eval()
    x = torch.randn(*rows, sizes[0])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
        found = NarrowLinear(layer, torch.bfloat16)(x)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    exact = nn.functional.linear(x.bfloat16().double(), layer.weight.bfloat16().double()).detach()
    if bias:
        exact = exact + layer.bias.bfloat16().double().detach()
    # one rounding of a sum in float32: half of the last of eight bits
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=2e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_gives_the_same_with_narrow_weights(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(ENCODERS) == set(kinds.ENCODERS)
    monkeypatch.setattr(narrow_layers, "_can_pack", lambda: False)  # whose sums may run in another order
    model = small_model(kind)
    generator = torch.Generator().manual_seed(0)
    audio = pad([0.1 * torch.randn(count, generator=generator) for count in (12000, 7000)])
    narrow = copy.deepcopy(model)
    keep_narrow(narrow, torch.bfloat16)
    exchanged = [m for m in narrow.modules() if isinstance(m, NarrowLinear)]
    assert len(exchanged) == len(linear_layers(model))
    assert bool(exchanged) == (kind not in {"listener", "lstm"})
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected, found = model.encode(audio).values, narrow.encode(audio).values
    assert found.dtype is expected.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["zipformer", "conformer", "transformer"])
def test_packed_weights_are_as_exact(kind: str) -> None:
    model = small_model(kind)
    audio = pad([0.1 * torch.randn(12000, generator=torch.Generator().manual_seed(0))])
    packed = copy.deepcopy(model)
    keep_narrow(packed, torch.bfloat16)
    with torch.inference_mode():
        exact = model.encode(audio).values
        with torch.autocast("cpu", torch.bfloat16):
            rounded, found = model.encode(audio).values, packed.encode(audio).values
            again = copy.deepcopy(packed).encode(audio).values  # what is packed is left out of a copy
    assert (found - exact).norm() <= 1.2 * (rounded - exact).norm()
    torch.testing.assert_close(again, found, rtol=0, atol=0)


def test_a_recogniser_keeps_them_narrow_where_it_computes_so(tmp_path: Path) -> None:
    folder = make_nonsense_model(tmp_path / "m")
    exact = Recognizer.load(folder, device="cpu", precision="fp32").model
    model = Recognizer.load(folder, device="cpu", precision="bf16").model
    assert not any(isinstance(m, NarrowLinear) for m in exact.modules())
    names = linear_layers(exact)
    layers = [model.get_submodule(name) for name in names]
    assert len(layers) > 10
    for name, layer in zip(names, layers, strict=True):
        assert isinstance(layer, NarrowLinear)
        weight = exact.get_submodule(name).weight
        torch.testing.assert_close(layer.weight, weight.bfloat16().float(), rtol=0, atol=0)
    assert type(model.heads["ctc"].projection) is type(exact.heads["ctc"].projection)
