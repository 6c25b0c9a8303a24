"""Linear layers: products and gradients of oneDNN are those of float64 to rounding; no graph has them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from firstwords import device
from firstwords.encoders.zipformer import Zipformer, ZipformerConfig
from firstwords.model.cost import count_macs
from firstwords.nn import linear as module
from firstwords.nn.linear import Linear, linear, onednn_linear, product
from firstwords.tensors import Padded

ROWS, INSIDE, OUTSIDE = 300, 96, 160  # enough work for oneDNN in these tests

needs_onednn = pytest.mark.skipif(onednn_linear() is None, reason="this build of torch has no oneDNN")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the products that oneDNN made; it is held to be faster here, whatever the processor."""
    seen: list[tuple[int, ...]] = []
    made = module._onednn

    def note(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return made(x, weight, bias)

    monkeypatch.setattr(module, "_is_faster_here", lambda: True)
    monkeypatch.setattr(module, "_LEAST_WORK", ROWS * INSIDE * OUTSIDE)
    monkeypatch.setattr(module, "_onednn", note)
    return seen


def parts(*shape: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(*shape, INSIDE), torch.randn(OUTSIDE, INSIDE), torch.randn(OUTSIDE)


@needs_onednn
@pytest.mark.parametrize("shape", [(ROWS,), (3, 100), (2, 3, 50)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_float64(
    calls: list[tuple[int, ...]], shape: tuple[int, ...], with_bias: bool
) -> None:
    x, weight, bias = (p.requires_grad_() for p in parts(*shape))
    used = bias if with_bias else None
    y = linear(x, weight, used)
    above = torch.randn_like(y)
    wanted = [x, weight, bias] if with_bias else [x, weight]
    found = torch.autograd.grad(y, wanted, above)
    assert len(calls) == 3  # the product and two gradients
    exact = [p.detach().double().requires_grad_() for p in (x, weight, bias)]
    expected = exact[0] @ exact[1].t() + (exact[2] if with_bias else 0)
    slopes = torch.autograd.grad(expected, exact[: len(wanted)], above.double())
    torch.testing.assert_close(y, expected.float(), rtol=1e-5, atol=1e-4)
    for mine, theirs in zip(found, slopes, strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-5, atol=2e-4)


@needs_onednn
def test_turned_operands(calls: list[tuple[int, ...]]) -> None:
    x, weight, _ = parts(ROWS)
    turned, other = x.t().contiguous().t(), weight.t().contiguous().t()
    torch.testing.assert_close(product(turned, other), x @ weight.t(), rtol=1e-5, atol=1e-4)
    stretched = x[:1].expand(ROWS, INSIDE)
    torch.testing.assert_close(product(stretched, weight), stretched @ weight.t(), rtol=1e-5, atol=1e-4)
    assert len(calls) == 2


@needs_onednn
def test_gradients_that_nobody_wants_are_not_made(calls: list[tuple[int, ...]]) -> None:
    x, weight, bias = parts(ROWS)
    y = linear(x, weight.requires_grad_(), bias)
    y.sum().backward()
    assert len(calls) == 2  # the gradient of what was heard is not asked for
    assert x.grad is None
    assert bias.grad is None


@pytest.mark.parametrize(
    ("rows", "dtype"), [(1, torch.float32), (0, torch.float32), (ROWS, torch.float64), (ROWS, torch.bfloat16)]
)
def test_other_products_are_torchs(calls: list[tuple[int, ...]], rows: int, dtype: torch.dtype) -> None:
    x, weight, bias = (p.to(dtype) for p in parts(rows))
    assert torch.equal(linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    assert not calls


def test_autocast_chooses_the_format(calls: list[tuple[int, ...]]) -> None:
    x, weight, bias = parts(ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    assert not calls


def test_graphs_hold_torchs_product(calls: list[tuple[int, ...]]) -> None:
    x, _, _ = parts(ROWS)
    graph = torch.export.export(Linear(INSIDE, OUTSIDE), (x,)).graph_module.code
    assert "aten.linear" in graph
    assert "mkldnn" not in graph
    assert not calls


@needs_onednn
def test_its_work_is_counted(calls: list[tuple[int, ...]]) -> None:
    x, weight, bias = parts(3, 100)
    assert count_macs(lambda: linear(x, weight, bias)) == ROWS * INSIDE * OUTSIDE
    assert calls


def test_it_is_a_linear_layer(calls: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    mine = Linear(INSIDE, OUTSIDE)
    torch.manual_seed(0)
    other = nn.Linear(INSIDE, OUTSIDE)
    assert mine.state_dict().keys() == other.state_dict().keys()
    assert torch.equal(mine.weight, other.weight)
    x, _, _ = parts(ROWS)
    torch.testing.assert_close(mine(x), other(x), rtol=1e-5, atol=1e-5)
    assert bool(calls) == (onednn_linear() is not None)


@needs_onednn
def test_utterances_of_any_length_are_read_with_torchs_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN would prepare each product of a small model anew for every length."""
    made: list[tuple[int, ...]] = []
    product_of = module._onednn

    def note(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        made.append(tuple(x.shape))
        return product_of(x, weight, bias)

    monkeypatch.setattr(module, "_is_faster_here", lambda: True)
    monkeypatch.setattr(module, "_onednn", note)
    encoder = Zipformer(ZipformerConfig.preset("tiny"), 80).eval()
    lengths = torch.tensor([1500])  # frames of features: 15 s
    with torch.inference_mode():
        encoder(Padded(torch.randn(1, 1500, 80), lengths))
    assert not made
    large = torch.randn(3000, 512)
    linear(large, torch.randn(1536, 512))
    assert made == [(3000, 512)]


@pytest.mark.parametrize(
    ("processor", "capability", "narrow"),
    [
        ("vendor_id : AuthenticAMD\ncpu family\t: 26", "AVX512", True),
        ("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", "AVX512", True),
        ("vendor_id : AuthenticAMD\ncpu family\t: 25", "AVX512", False),  # Zen 4: in halves
        ("vendor_id : AuthenticAMD", "AVX512", False),
        ("vendor_id : AuthenticAMD\ncpu family\t: 26", "AVX2", False),
        ("vendor_id : GenuineIntel\ncpu family\t: 26", "AVX512", False),
    ],
)
def test_which_processors_it_is_for(
    monkeypatch: pytest.MonkeyPatch, processor: str, capability: str, narrow: bool
) -> None:
    monkeypatch.setattr(device.Path, "exists", lambda _: False)
    monkeypatch.setattr(device.platform, "processor", lambda: processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert device.has_narrow_mkl() is narrow
