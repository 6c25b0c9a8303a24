"""Linear layers in 8-bit integers: against plain integer arithmetic, alone and in a whole model."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from firstwords.errors import CheckpointError, UsageError
from firstwords.inference.events import Final
from firstwords.inference.recognizer import Recognizer
from firstwords.model import kinds
from firstwords.model.checkpoint import load_model, load_weights
from firstwords.model.int8 import compute_in_int8
from firstwords.model.linears import linear_layers
from firstwords.model.storage import Storage, restored
from firstwords.nn.int8 import Int8Linear, channel_scales, multiplies_exactly
from firstwords.tensors import Padded, pad
from nonsense_model import make_nonsense_model
from small_models import ENCODERS, small_model
from streaming_model import make_causal_model, talk


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(inputs, outputs, bias=bias)


def by_hand(layer: nn.Linear, x: np.ndarray, scale: float | None) -> np.ndarray:
    """Integers of any size, number by number."""
    w = layer.weight.detach().double().numpy()
    weight_scales = np.abs(w).max(axis=1) / 127
    q = np.round(w / weight_scales[:, None]).astype(object)
    rows = []
    for row in x.astype(np.float64):
        s = np.abs(row).max() / 127 if scale is None else scale
        quantized = np.clip(np.round(row / s) if s else row, -127, 127).astype(int).astype(object)
        rows.append([sum(quantized * q[k]) * s * weight_scales[k] for k in range(len(q))])
    bias = 0 if layer.bias is None else layer.bias.detach().double().numpy()
    return np.array(rows, dtype=np.float64) + bias


@pytest.mark.parametrize("scale", [None, 0.011])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_a_layer_is_integer_arithmetic(scale: float | None, bias: bool, rows: int) -> None:
    layer = linear(19, 11, bias=bias)
    x = np.random.default_rng(rows).normal(size=(rows, 19)).astype(np.float32)
    found = Int8Linear(layer, scale)(torch.from_numpy(x)).double().numpy()
    np.testing.assert_allclose(found, by_hand(layer, x, scale), rtol=1e-4, atol=1e-5)


def test_the_processor_multiplies_exactly() -> None:
    assert multiplies_exactly()


def test_frames_do_not_depend_on_each_other() -> None:
    layer = Int8Linear(linear(16, 8))
    x = torch.randn(3, 40, 16, generator=torch.Generator().manual_seed(1))
    x[1] *= 1000
    together = layer(x)
    torch.testing.assert_close(torch.stack([layer(row) for row in x]), together, rtol=0, atol=0)
    torch.testing.assert_close(layer(x[2, 5]), together[2, 5], rtol=0, atol=0)


def test_silence_no_frames_and_other_number_formats() -> None:
    layer = Int8Linear(linear(16, 8))
    assert layer(torch.zeros(2, 0, 16)).shape == (2, 0, 8)
    torch.testing.assert_close(layer(torch.zeros(4, 16)), linear(16, 8).bias.detach().expand(4, 8))
    assert layer(torch.ones(4, 16, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_the_error_is_bounded_by_both_steps() -> None:
    layer = linear(64, 32)
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(2))
    error = (Int8Linear(layer)(x) - layer(x)).abs()
    w = layer.weight.detach()
    x_step, w_step = x.abs().amax(1, keepdim=True) / 127, channel_scales(w)
    # |x w - x' w'| <= |x - x'| |w| + |x'| |w - w'|, half a step each
    bound = x_step / 2 * w.abs().sum(1) + (x.abs().sum(1, keepdim=True) + 64 * x_step / 2) * w_step / 2
    assert (error <= bound * 1.001).all()
    assert error.max() > 0


def test_a_model_computes_in_8_bits(tmp_path: Path) -> None:
    loaded = load_model(make_nonsense_model(tmp_path / "m"), device="cpu")
    small = copy.deepcopy(loaded.model)
    names = compute_in_int8(small)
    assert "encoder.embed.out" not in names  # its weights are used in another order
    assert not any(name.startswith("heads") for name in names)
    assert len(names) > 10
    assert all(isinstance(small.get_submodule(name), Int8Linear) for name in names)
    generator = torch.Generator().manual_seed(0)
    long, short = torch.randn(16000, generator=generator), torch.randn(9000, generator=generator)
    with torch.inference_mode():
        both = small.encode(pad([0.1 * long, 0.1 * short]))
        exact = loaded.model.encode(pad([0.1 * long, 0.1 * short]))
        alone = small.encode(pad([0.1 * short]))
    count = int(alone.lengths[0])
    torch.testing.assert_close(both.values[1, :count], alone.values[0], rtol=1e-3, atol=1e-3)
    difference = (both.values[0] - exact.values[0]).norm() / exact.values[0].norm()
    assert 1e-5 < difference < 0.1


def test_scales_of_inputs_belong_to_layers(tmp_path: Path) -> None:
    model = load_model(make_nonsense_model(tmp_path / "m"), device="cpu").model
    name = linear_layers(model)[0]
    with pytest.raises(CheckpointError, match=r"heads\.ctc\.projection"):
        compute_in_int8(model, {"heads.ctc.projection": 0.1})
    compute_in_int8(model, {name: 0.125})
    assert model.get_submodule(name).input_scale == 0.125
    with torch.inference_mode():
        assert model.encode(Padded(torch.zeros(1, 16000), torch.tensor([16000]))).values.isfinite().all()


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_computes_in_8_bits_and_is_kept_in_few(kind: str) -> None:
    assert set(ENCODERS) == set(kinds.ENCODERS)
    model = small_model(kind)
    audio = pad([0.1 * torch.randn(12000, generator=torch.Generator().manual_seed(0))])
    small = copy.deepcopy(model)
    if kind in {"listener", "lstm"}:
        with pytest.raises(UsageError, match="no linear layers"):
            compute_in_int8(small)
    else:
        assert len(compute_in_int8(small)) > 0
    with torch.inference_mode():
        exact, found = model.encode(audio).values, small.encode(audio).values
    assert (found - exact).norm() <= 0.1 * exact.norm()
    state = model.state_dict()
    plan = {name: Storage(kind="int8") for name, tensor in state.items() if tensor.ndim >= 2}
    load_weights(model, restored(state, plan), source="here")
    with torch.inference_mode():
        kept = model.encode(audio).values
    assert 0 < (kept - exact).norm() <= 0.1 * exact.norm()


def test_a_stream_in_8_bits_is_the_whole_in_8_bits(tmp_path: Path) -> None:
    """Every frame has its own scale, so it makes no difference how the frames are cut."""
    folder = make_causal_model(tmp_path / "m")
    samples = talk(6.0)
    recognizer = Recognizer.load(folder, device="cpu", int8=True)
    assert recognizer.weights != Recognizer.load(folder, device="cpu").weights
    texts = []
    for size in (700, 16000):
        listener = recognizer.listener(endpoints=False)
        events = [e for n in range(0, len(samples), size) for e in listener.accept(samples[n : n + size])]
        texts.append([e.text for e in (*events, *listener.finish()) if isinstance(e, Final)])
    assert texts[0] == texts[1]
    assert any(texts[0])


def test_8_bits_and_graphics_cards_are_refused(tmp_path: Path) -> None:
    model = load_model(make_nonsense_model(tmp_path / "m"), device="cpu").model
    model.to("meta")
    with pytest.raises(UsageError, match="for processors"):
        compute_in_int8(model)
