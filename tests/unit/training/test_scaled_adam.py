"""ScaledAdam beyond the golden numbers: freezing, faults in gradients, saving, independence of neighbours."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import Tensor, nn

from firstwords.errors import TrainingError
from firstwords.training import scaled_adam
from firstwords.training.scaled_adam import ScaledAdam


def parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (3, 4), (5,), (), (2, 3, 2)]
    return [nn.Parameter(torch.randn(s, generator=generator) * 0.3) for s in shapes]


def feed(params: list[nn.Parameter], step: int) -> None:
    for k, p in enumerate(params):
        generator = torch.Generator().manual_seed(1000 * step + k)
        p.grad = torch.randn(p.shape, generator=generator) * 0.1


def values(params: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach().clone() for p in params]


def test_it_minimizes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = ScaledAdam(model.parameters(), lr=0.03)
    x = torch.randn(64, 4)
    y = (x[:, :1] * x[:, 1:2]).sin()
    losses: list[float] = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_a_tensor_does_not_see_its_neighbours_without_clipping() -> None:
    together, alone = parameters(), parameters()
    one = ScaledAdam(together, clipping_scale=None)
    others = [ScaledAdam([p], clipping_scale=None) for p in alone]
    for step in range(12):
        feed(together, step)
        feed(alone, step)
        one.step()
        for optimizer in others:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a, b)


def test_two_runs_are_equal_bit_for_bit() -> None:
    results: list[list[Tensor]] = []
    for _ in range(2):
        params = parameters()
        optimizer = ScaledAdam(params)
        for step in range(15):
            feed(params, step)
            optimizer.step()
        results.append(values(params))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("at", [1, 3, 10, 11])
def test_resume_from_a_file_is_exact(at: int) -> None:
    straight, stopped = parameters(), parameters()
    a, b = ScaledAdam(straight, clipping_update_period=6), ScaledAdam(stopped, clipping_update_period=6)
    for step in range(20):
        if step == at:
            file = io.BytesIO()
            torch.save(b.state_dict(), file)
            file.seek(0)
            b = ScaledAdam(stopped, lr=9.9, clipping_update_period=3)  # all settings come from the file
            b.load_state_dict(torch.load(file, weights_only=True))
        for params, optimizer in ((straight, a), (stopped, b)):
            feed(params, step)
            optimizer.step()
        assert a.last_grad_norm == b.last_grad_norm
        assert a.last_clip == b.last_clip
    assert all(torch.equal(x, y) for x, y in zip(straight, stopped, strict=True))


def test_no_gradient_counts_as_zero() -> None:
    one, other = parameters(), parameters()
    a, b = ScaledAdam(one), ScaledAdam(other)
    for step in range(6):
        feed(one, step)
        feed(other, step)
        one[0].grad = None
        other[0].grad = torch.zeros_like(other[0])
        a.step()
        b.step()
    assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_frozen_stays_and_thawed_starts_afresh() -> None:
    params = parameters()
    params[1].requires_grad_(False)
    before = params[1].detach().clone()
    optimizer = ScaledAdam(params, clipping_scale=None)
    for step in range(5):
        feed([params[0]], step)
        optimizer.step()
    assert torch.equal(params[1], before)

    fresh = nn.Parameter(before.clone())
    reference = ScaledAdam([fresh], clipping_scale=None)
    params[1].requires_grad_(True)
    for step in range(9):
        feed([params[1]], step)
        feed([fresh], step)
        optimizer.step()
        reference.step()
    assert not torch.equal(params[1], before)
    assert torch.equal(params[1], fresh)
    everything_frozen = ScaledAdam([nn.Parameter(torch.ones(2), requires_grad=False)])
    everything_frozen.step()


@pytest.mark.parametrize("fault", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("scale", [None, 2.0])
@pytest.mark.parametrize("when", [0, 2, 14])
def test_a_gradient_that_is_no_number_spoils_nothing(fault: float, scale: float | None, when: int) -> None:
    params = parameters()
    optimizer = ScaledAdam(params, clipping_scale=scale)
    for step in range(20):
        feed(params, step)
        if step == when:
            grad = params[2].grad
            assert grad is not None
            grad[1] = fault
        optimizer.step()
        assert (optimizer.last_clip == 0.0) == (step == when)
        assert math.isinf(optimizer.last_grad_norm) == (step == when)
    assert all(torch.isfinite(p).all() for p in params)


def test_outliers_are_clipped() -> None:
    params = parameters()
    optimizer = ScaledAdam(params)
    for step in range(30):
        feed(params, step)
        if step == 25:
            for p in params:
                assert p.grad is not None
                p.grad *= 1000
        optimizer.step()
        if step == 25:
            assert optimizer.last_clip < 0.05
        elif step < 10:
            assert optimizer.last_clip == 1.0
    assert optimizer.last_grad_norm > 0


def test_gradients_are_left_as_they_were() -> None:
    params = parameters()
    optimizer = ScaledAdam(params)
    feed(params, 0)
    before = [p.grad.clone() for p in params if p.grad is not None]
    optimizer.step()
    for p, grad in zip(params, before, strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, grad)


def test_sparse_gradients_are_refused() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(TrainingError, match="sparse"):
        ScaledAdam(embedding.parameters()).step()


def test_strided_weights() -> None:
    """A transposed tensor, and a gradient laid out otherwise, give what plain ones give."""
    start = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    plain, turned = nn.Parameter(start.clone()), nn.Parameter(start.t().contiguous().t())
    a, b = ScaledAdam([plain]), ScaledAdam([turned])
    for step in range(9):
        feed([plain], step)
        assert plain.grad is not None
        turned.grad = plain.grad.clone()
        a.step()
        b.step()
    torch.testing.assert_close(plain, turned, rtol=1e-6, atol=1e-7)


def test_portions_of_the_cache_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[list[Tensor]] = []
    for limit in (1, 20, 1 << 18):
        monkeypatch.setattr(scaled_adam, "_CACHED", limit)
        params = parameters()
        optimizer = ScaledAdam(params)
        for step in range(9):
            feed(params, step)
            optimizer.step()
        results.append(values(params))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_closure() -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = ScaledAdam([p])

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3.0
