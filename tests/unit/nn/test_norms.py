"""Batch normalization over real frames against torch's own on the same frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from firstwords.nn.norms import MaskedBatchNorm
from firstwords.tensors import real_frames

DIM = 6


def pair() -> tuple[MaskedBatchNorm, nn.BatchNorm1d]:
    """Ours and torch's with the same random weights."""
    torch.manual_seed(2)
    ours, theirs = MaskedBatchNorm(DIM), nn.BatchNorm1d(DIM)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def frames(*shape: int) -> Tensor:
    return 3 + 2 * torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("training", [True, False])
def test_without_padding_it_is_torchs_batch_norm(training: bool) -> None:
    ours, theirs = pair()
    ours.train(training)
    theirs.train(training)
    for number in range(4):  # running statistics move
        x = frames(4, 7) + number
        real = torch.ones(4, 7, dtype=torch.bool) if number % 2 else None
        torch.testing.assert_close(ours(x, real), theirs(x.transpose(1, 2)).transpose(1, 2))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


@pytest.mark.parametrize("fill", [0.0, 1e6, float("nan")])
def test_statistics_are_those_of_the_real_frames(fill: float) -> None:
    ours, theirs = pair()
    lengths = torch.tensor([7, 3, 5])
    real = real_frames(lengths, 7)
    x = frames(3, 7).masked_fill(~real.unsqueeze(-1), fill).requires_grad_(True)
    only = x.detach()[real].requires_grad_(True)
    y, expected = ours(x, real), theirs(only)
    torch.testing.assert_close(y[real], expected)
    assert not y[~real].any()
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    weights = frames(3, 7)
    (y * weights).sum().backward()
    (expected * weights[real]).sum().backward()
    assert x.grad is not None
    assert only.grad is not None
    torch.testing.assert_close(x.grad[real], only.grad)
    assert not x.grad[~real].any()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_without_variance_leaves_the_running_statistics(count: int) -> None:
    ours, _ = pair()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    y = ours(frames(1, 4), real_frames(torch.tensor([count]), 4))
    assert y.isfinite().all()
    assert not y[:, count:].any()
    for name, value in before.items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_bfloat16_frames_keep_float32_statistics() -> None:
    ours, theirs = pair()
    x = frames(4, 200).bfloat16()
    real = real_frames(torch.tensor([200, 150, 20, 90]), 200)
    y = ours(x, real)
    assert y.dtype is torch.bfloat16
    torch.testing.assert_close(y[real].float(), theirs(x.float()[real]), rtol=0.02, atol=0.02)
    assert ours.running_mean.dtype is torch.float32
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-4, atol=1e-5)


def test_frequency_bins_are_places_of_their_frame() -> None:
    ours, theirs = pair()
    real = real_frames(torch.tensor([5, 2]), 5)
    x = frames(2, 5, 3)
    expected = theirs(x[real].flatten(0, 1)).view(7, 3, DIM)
    y = ours(x, real)
    torch.testing.assert_close(y[real], expected)
    assert not y[~real].any()
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x, real)[real], theirs(x[real].flatten(0, 1)).view(7, 3, DIM))
    assert not ours(x, real)[~real].any()
