"""Laws of heads: the loss is the brute-force sum over all alignments; gradients are those of that sum."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.heads.ctc import CtcConfig, CtcHead, ctc_loss
from firstwords.tensors import Padded, pad


def reads_as(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != 0)


def brute_force(log_probs: torch.Tensor, tokens: tuple[int, ...]) -> float:
    """-log of the summed probability of every path that reads as ``tokens``."""
    frames, vocabulary = log_probs.shape
    total = 0.0
    for path in itertools.product(range(vocabulary), repeat=frames):
        if reads_as(path) == tokens:
            total += math.exp(sum(float(log_probs[t, s]) for t, s in enumerate(path)))
    return -math.log(total) if total else math.inf


@pytest.mark.parametrize("seed", range(4))
def test_ctc_loss_is_the_sum_over_all_alignments(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(1, 5, 3, generator=generator, dtype=torch.float64).log_softmax(-1)
    batch = Padded(log_probs, torch.tensor([5]))
    for length in range(5):
        for tokens in itertools.product((1, 2), repeat=length):
            loss = ctc_loss(batch, pad([torch.tensor(tokens, dtype=torch.int64)]))
            assert loss.item() == pytest.approx(brute_force(log_probs[0], tokens), rel=1e-9)


def test_every_reading_together_has_probability_one() -> None:
    log_probs = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(9)).double().log_softmax(-1)
    readings = {reads_as(path) for path in itertools.product(range(3), repeat=4)}
    total = 0.0
    for tokens in readings:
        loss = ctc_loss(Padded(log_probs, torch.tensor([4])), pad([torch.tensor(tokens, dtype=torch.int64)]))
        total += math.exp(-loss.item())
    assert total == pytest.approx(1.0, abs=1e-12)


def test_gradients_pass_a_numerical_check() -> None:
    torch.manual_seed(0)
    head = CtcHead(CtcConfig(dropout=0.0), 4, 5).double()
    targets = pad([torch.tensor([1, 1, 2]), torch.tensor([4]), torch.tensor([], dtype=torch.int64)])
    lengths = torch.tensor([6, 4, 3])
    encoded = torch.randn(3, 6, 4, dtype=torch.float64, requires_grad=True)

    def loss(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        head.projection.weight.data, head.projection.bias.data = weight, bias
        log_probs = (values @ weight.T + bias).log_softmax(-1)
        direct = head.loss_from_log_probs(Padded(log_probs, lengths), targets)
        torch.testing.assert_close(direct, head.loss(Padded(values, lengths), targets))
        return direct

    inputs = (
        encoded,
        head.projection.weight.detach().clone().requires_grad_(),
        head.projection.bias.detach().clone().requires_grad_(),
    )
    assert torch.autograd.gradcheck(loss, inputs)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 3), max_size=4), min_size=1, max_size=4), st.integers(0, 2**16))
def test_the_rest_of_the_batch_and_its_padding_do_not_matter(rows: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    head = CtcHead(CtcConfig(), 6, 4).eval()
    lengths = torch.randint(1, 9, (len(rows),), generator=generator)
    time = int(lengths.max())
    values = torch.randn(len(rows), time, 6, generator=generator)
    targets = pad([torch.tensor(row, dtype=torch.int64) for row in rows])
    together = head.loss(Padded(values, lengths), targets)
    for row, tokens in enumerate(rows):
        n = int(lengths[row])
        alone = head.loss(
            Padded(values[row : row + 1, :n], lengths[row : row + 1]),
            pad([torch.tensor(tokens, dtype=torch.int64)]),
        )
        torch.testing.assert_close(alone[0], together[row])
