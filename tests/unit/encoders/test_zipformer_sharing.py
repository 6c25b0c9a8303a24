"""Shared attention weights against the plain form: same numbers, same gradients, for any blocks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from firstwords.encoders.zipformer.activations import swoosh_l, swoosh_r
from firstwords.encoders.zipformer.frontend import _DepthwiseConvolve, _weight_gradient
from firstwords.encoders.zipformer.stack import Downsample
from firstwords.nn import sharing
from firstwords.nn.chunks import chunk_mask
from firstwords.tensors import real_frames

BATCH, HEADS, TIME = 5, 3, 21


def inputs(with_positions: bool) -> list[Tensor | None]:
    torch.manual_seed(1)
    q, k = (torch.randn(BATCH, HEADS, TIME, 6, dtype=torch.float64) for _ in range(2))
    p = torch.randn(BATCH, HEADS, TIME, 4, dtype=torch.float64) if with_positions else None
    r = torch.randn(HEADS, 2 * TIME - 1, 4, dtype=torch.float64)
    return [q, k, p, r]


def masks() -> dict[str, Tensor | None]:
    padding = ~real_frames(torch.tensor([21, 3, 15, 20, 1]), TIME)[:, None, None]
    chunks = chunk_mask(TIME, 5, 1)
    return {"none": None, "padding": padding, "chunks": chunks, "both": padding | chunks}


@pytest.mark.parametrize("mask", ["none", "padding", "chunks", "both"])
@pytest.mark.parametrize("with_positions", [True, False])
@pytest.mark.parametrize("punish", [True, False])
@pytest.mark.parametrize(("block", "rows"), [(1 << 19, 128), (1, 4), (2 * HEADS * TIME * TIME, 7)])
def test_same_as_the_plain_form(
    mask: str, with_positions: bool, punish: bool, block: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_BLOCK", block)
    monkeypatch.setattr(sharing, "_ROWS", rows)
    monkeypatch.setattr(sharing, "SCORE_LIMIT", 2.0)
    hidden = masks()[mask]
    torch.manual_seed(2)
    values = [torch.randn(BATCH, heads, TIME, 7, dtype=torch.float64) for heads in (HEADS, 1, HEADS)]
    upstream = [torch.randn_like(v) for v in values]

    def plain(given: list[Tensor | None]) -> Tensor:
        q, k, p, r = given
        assert q is not None
        assert k is not None
        assert r is not None
        scores = sharing.attention_scores(q, k, p, r)
        return sharing.weights_of(sharing.punish_large(scores) if punish else scores, hidden)

    def shared(given: list[Tensor | None]) -> sharing.SharedWeights:
        return sharing.share(*given, hidden, punish=punish)  # type: ignore[arg-type]

    found: list[list[Tensor]] = []
    for form in (plain, shared):
        given = [None if x is None else x.clone().requires_grad_(True) for x in inputs(with_positions)]
        mine = [v.clone().requires_grad_(True) for v in values]
        weights = form(given)
        sums = [sharing.attend(weights, v) for v in mine]
        total = torch.stack([(s * u).sum() for s, u in zip(sums, upstream, strict=True)]).sum()
        total.backward()
        gradients = [x.grad for x in (*given, *mine) if x is not None]
        # plain autograd gives the offsets no gradient when positions are left out; ours gives zeros
        found.append([*sums, *(torch.zeros_like(inputs(True)[3]) if g is None else g for g in gradients)])
    for ours, theirs in zip(found[1], found[0], strict=True):
        # the gradient of the offsets is added up in float32
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-5)


def test_weights_nobody_uses_have_no_gradient() -> None:
    given = [None if x is None else x.requires_grad_(True) for x in inputs(True)]
    weights = sharing.share(*given, None)  # type: ignore[arg-type]
    assert not weights.weights.requires_grad
    values = torch.randn(BATCH, 1, TIME, 2, dtype=torch.float64, requires_grad=True)
    sharing.attend(weights, values).sum().backward()
    assert values.grad is not None
    assert weights.factors == []
    q = given[0]
    assert q is not None
    assert q.grad is not None
    assert q.grad[:, 0].any()
    assert not q.grad[:, 1:].any()  # only the first head was used


@pytest.mark.parametrize(
    ("swoosh", "shift", "offset"), [(swoosh_l, 4.0, 0.035), (swoosh_r, 1.0, 0.313261687)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("largest", [30.0, 79.0, 81.0, 1e4])  # beyond 80 another way is taken
def test_swoosh_equals_its_formula_in_float64(
    swoosh: Callable[[Tensor], Tensor], shift: float, offset: float, dtype: torch.dtype, largest: float
) -> None:
    x = torch.cat((torch.linspace(-largest, largest, 4001), torch.linspace(-9, 9, 2000))).to(dtype)
    exact = x.double()
    expected = torch.logaddexp(exact - shift, torch.zeros(())) - 0.08 * exact - offset
    rtol, atol = (1e-6, 2e-6) if dtype is torch.float32 else (0.004, 0.002)  # of one rounding at the end
    if largest > 80 and dtype is torch.bfloat16:
        rtol, atol = 0.012, 0.06  # of torch's steps, each rounded
    torch.testing.assert_close(swoosh(x).double(), expected, rtol=rtol, atol=atol)


def test_swoosh_of_what_is_no_number() -> None:
    nothing, lowest, zero = swoosh_l(torch.tensor([float("nan"), -float("inf"), 0.0])).tolist()
    assert math.isnan(nothing)
    assert lowest == float("inf")
    assert abs(zero - (math.log1p(math.exp(-4)) - 0.035)) < 1e-7
    assert swoosh_l(torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("swoosh", [swoosh_l, swoosh_r])
def test_swoosh_in_blocks_is_swoosh(
    swoosh: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(7, 9, 5, dtype=torch.float64, requires_grad=True)
    whole = swoosh(x)
    (gradient,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr("firstwords.encoders.zipformer.pieces.PIECE", 50)
    pieces = swoosh(x)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-12)  # the ends of blocks take another kernel
    again = torch.autograd.grad(pieces.square().sum(), x)[0]
    torch.testing.assert_close(again, gradient, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(swoosh, x)


@pytest.mark.parametrize("padding", [0, 3])
def test_depthwise_convolution_and_its_gradients(padding: int) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 12, 9, 4, requires_grad=True)
    weight, bias = torch.randn(4, 1, 7, 7, requires_grad=True), torch.randn(4, requires_grad=True)
    ours = _DepthwiseConvolve.apply(x, weight, bias, padding)
    theirs = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=4)
    assert isinstance(ours, Tensor)
    torch.testing.assert_close(ours, theirs.permute(0, 2, 3, 1), rtol=0, atol=1e-5)
    upstream = torch.randn_like(ours)
    mine = torch.autograd.grad(ours, (x, weight, bias), upstream)
    reference = torch.autograd.grad(theirs, (x, weight, bias), upstream.permute(0, 3, 1, 2))
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
    if padding:  # the form that bfloat16 takes
        columns = _weight_gradient(x.detach(), upstream, weight.detach(), padding)
        torch.testing.assert_close(columns, reference[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_downsampling_has_the_gradient_of_its_formula(factor: int) -> None:
    torch.manual_seed(1)
    down = Downsample(factor).double()
    with torch.no_grad():
        down.bias.normal_()
    x = torch.randn(2, 11, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([11, 6])

    def run(values: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(down, {"bias": bias}, (values, lengths))

    assert torch.autograd.gradcheck(run, (x, down.bias))
