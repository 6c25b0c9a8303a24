"""Balancer, Whiten and bfloat16 Swoosh: in pieces, from a table, and the plain computation, all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from firstwords.encoders.zipformer import activations
from firstwords.encoders.zipformer.activations import swoosh_l, swoosh_r
from firstwords.encoders.zipformer.constraints import Balancer, Whiten, moments, whitening

PIECE = "firstwords.encoders.zipformer.pieces.PIECE"


@pytest.mark.parametrize("mean", [0.0, 3.0, 200.0])
def test_moments_in_pieces_are_the_moments(mean: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    x = torch.randn(1000, 7) * torch.linspace(0.5, 4, 7) + mean
    x[:60] += 2.0  # the first piece, from whose mean the sums are taken, is unlike the rest
    monkeypatch.setattr(PIECE, 7 * 60)
    found_mean, found_variance = moments(x)
    torch.testing.assert_close(found_mean.double(), x.double().mean(dim=0), rtol=1e-6, atol=1e-6)
    variance = x.double().var(dim=0, correction=0)
    torch.testing.assert_close(found_variance.double(), variance, rtol=1e-5, atol=0)


def test_whitening_in_pieces_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    x = torch.randn(3, 200, 5) @ torch.randn(3, 5, 5) + 20.0
    monkeypatch.setattr(PIECE, 3 * 5 * 30)
    metric, centre, step = whitening(x)
    rows = x.double()
    rows = rows - rows.mean(dim=1, keepdim=True)
    covariance = rows.mT @ rows
    mean_variance = covariance.diagonal(dim1=1, dim2=2).mean()
    expected = (covariance.square().sum() / 15) / mean_variance.square()
    assert abs(float(metric) - float(expected)) < 1e-4 * float(expected)
    torch.testing.assert_close(centre.double(), x.double().mean(dim=1, keepdim=True), rtol=1e-6, atol=1e-6)
    direction = covariance / mean_variance - expected * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(step.double(), direction, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["balancer", "whiten", "whiten of groups", "turned"])
def test_gradients_in_pieces_are_those_of_the_whole(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    x = (torch.randn(4, 50, 12) @ torch.randn(12, 12) + torch.linspace(-3, 3, 12)).to(dtype)
    upstream = torch.randn(4, 50, 12).to(dtype)
    module = (
        Balancer(0.4, 0.6, 0.2, 1.0, probability=1.0)
        if kind in ("balancer", "turned")
        else Whiten(1.0, groups=3 if "groups" in kind else 1, grad_scale=0.1)
    )
    monkeypatch.setattr(Whiten, "HIGH", 1.0)  # it acts for certain

    def gradient(piece: int) -> Tensor:
        monkeypatch.setattr(PIECE, piece)
        leaf = x.clone().requires_grad_(True)
        seen = leaf.transpose(0, 1) if kind == "turned" else leaf
        module(seen).backward(upstream.transpose(0, 1) if kind == "turned" else upstream)
        assert leaf.grad is not None
        return leaf.grad.float()

    whole, pieces = gradient(1 << 18), gradient(12 * 17)
    assert float((whole - upstream.float()).abs().max()) > 1e-3  # it did act
    limit = 1e-5 if dtype is torch.float32 else 2**-7
    torch.testing.assert_close(pieces, whole, rtol=limit, atol=limit)


@pytest.mark.parametrize(
    ("swoosh", "shift", "offset"), [(swoosh_l, 4.0, 0.035), (swoosh_r, 1.0, 0.313261687)]
)
def test_swoosh_of_every_bfloat16_number(
    swoosh: Callable[[Tensor], Tensor], shift: float, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    x = x[x.isfinite() & (x.abs() < 1e30)]
    exact = torch.nn.functional.softplus(x.double() - shift) - 0.08 * x.double() - offset
    monkeypatch.setattr(activations, "_READERS", 10**6)
    looked_up = swoosh(x)
    # Rounded once: no other bfloat16 number is nearer. Near a zero of Swoosh float64 sets the limit.
    error = (looked_up.double() - exact).abs()
    assert bool((error <= exact.abs() * 2.0**-8 + 1e-15).all())
    small = x.abs() < 64
    x, looked_up = x[small], looked_up[small]
    odd = x[: 3 * 1001].view(3, 1001).t()  # not in the order of memory: computed
    torch.testing.assert_close(swoosh(odd), swoosh(odd.contiguous()), rtol=2**-7, atol=1e-6)
    monkeypatch.setattr(activations, "_READERS", 0)
    computed = swoosh(x)
    torch.testing.assert_close(computed.float(), looked_up.float(), rtol=2**-7, atol=1e-6)
    leaf = x.clone().requires_grad_(True)
    assert torch.equal(swoosh(leaf), computed)
