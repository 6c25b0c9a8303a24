"""CR-CTC and intermediate CTC: small exact cases."""

from __future__ import annotations

import math

import pytest
import torch

from firstwords.errors import ConfigError
from firstwords.heads.consistency import consistency_loss
from firstwords.heads.ctc import CtcConfig, CtcHead
from firstwords.heads.intermediate import IntermediateCtc, combine
from firstwords.tensors import Padded


def two_views(time: int = 4) -> Padded:
    values = torch.randn(6, time, 5, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    return Padded(values, torch.tensor([4, 2, 1, 4, 2, 1]))


def test_equal_views_cost_nothing() -> None:
    one = two_views().values[:3]
    loss = consistency_loss(Padded(torch.cat([one, one]), torch.tensor([4, 2, 1, 4, 2, 1])))
    assert loss.tolist() == [0.0, 0.0, 0.0]


def test_both_directions_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    values = torch.stack([p.log()[None], q.log()[None]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    expected += 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert consistency_loss(Padded(values, torch.tensor([1, 1]))).item() == pytest.approx(expected, rel=1e-6)


def test_padding_does_not_count() -> None:
    batch = two_views()
    spoiled = batch.values.clone()
    spoiled[1, 2:] = -50.0
    torch.testing.assert_close(
        consistency_loss(batch), consistency_loss(Padded(spoiled, batch.lengths)), rtol=0, atol=0
    )


def test_no_gradient_into_the_target() -> None:
    batch = two_views()
    values = batch.values.clone().requires_grad_()
    consistency_loss(Padded(values, batch.lengths)).sum().backward()
    assert values.grad is not None
    # d/d own of KL(given || own) is -given: exactly the other view's probabilities
    expected = -batch.values.roll(3, dims=0).exp()
    torch.testing.assert_close(values.grad[0], expected[0])
    torch.testing.assert_close(values.grad[3], expected[3])


def test_combine() -> None:
    last, a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0])
    assert combine(last, [], 0.3).tolist() == [1.0, 2.0]
    torch.testing.assert_close(combine(last, [a, b], 0.25), torch.tensor([0.75 + 1.0, 1.5 + 1.25]))


def frames() -> Padded:
    values = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(2))
    return Padded(values, torch.tensor([5, 3]))


def test_taps_collect_predictions_and_leave_other_stacks_alone() -> None:
    head = CtcHead(CtcConfig(intermediate=(1,), dropout=0.0), 8, 4, stack_dims=(4, 6, 8))
    assert head.intermediate is not None
    taps = head.intermediate.taps()
    untouched = Padded(torch.zeros(2, 5, 4), torch.tensor([5, 3]))
    assert taps(0, untouched) is untouched
    batch = frames()
    assert taps(1, batch) is batch
    assert list(taps.log_probs) == [1]
    assert taps.log_probs[1].values.shape == (2, 5, 4)
    torch.testing.assert_close(taps.log_probs[1].values.exp().sum(-1), torch.ones(2, 5))


def test_self_conditioning_starts_as_identity_and_learns() -> None:
    module = IntermediateCtc((1,), (4, 6, 8), 4, dropout=0.0, self_conditioned=True)
    batch = frames()
    assert torch.equal(module.taps()(1, batch).values, batch.values)
    feedback = module.feedbacks["1"]
    with torch.no_grad():
        for parameter in feedback.parameters():
            parameter.fill_(0.5)
    changed = module.taps()(1, batch).values
    # weights and bias 0.5: 0.5 * (sum of probabilities) + 0.5 = 1 is added to real frames, nothing to padding
    torch.testing.assert_close(changed[0], batch.values[0] + 1.0)
    torch.testing.assert_close(changed[1, :3], batch.values[1, :3] + 1.0)
    assert torch.equal(changed[1, 3:], batch.values[1, 3:])


@pytest.mark.parametrize("stack", [-1, 2, 7])
def test_a_stack_that_cannot_be_tapped_is_named(stack: int) -> None:
    with pytest.raises(ConfigError, match=f"stack {stack} has no place"):
        IntermediateCtc((stack,), (4, 6, 8), 4, dropout=0.0, self_conditioned=False)
