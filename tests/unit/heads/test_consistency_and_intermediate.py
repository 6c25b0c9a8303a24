"""CR-CTC and intermediate CTC: small exact cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from firstwords.encoders.encoder import Encoder
from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.errors import ConfigError
from firstwords.heads.consistency import consistency_loss
from firstwords.heads.ctc import CtcConfig, CtcHead
from firstwords.heads.intermediate import combine, encode_with_taps
from firstwords.tensors import Padded, pad


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


class TwoStacks(Encoder):
    """Stack 0 doubles, stack 1 adds one; both can be tapped."""

    dim = 6
    subsampling = 1

    def forward(self, frames: Padded) -> Padded:
        return self.forward_with_intermediate(frames, ())[0]

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return lengths

    def forward_with_intermediate(
        self, frames: Padded, layers: Sequence[int], condition: Callable[[int, Padded], Tensor] | None = None
    ) -> tuple[Padded, list[Padded]]:
        taps: list[Padded] = []
        x = frames.values
        for stack in range(2):
            x = 2 * x if stack == 0 else x + 1
            if stack in layers:
                taps.append(Padded(x, frames.lengths))
                if condition is not None:
                    x = x + condition(stack, taps[-1])
        return Padded(x, frames.lengths), taps


class Closed(Encoder):
    """An encoder that cannot be tapped."""

    dim = 6
    subsampling = 1

    def forward(self, frames: Padded) -> Padded:
        return frames

    def output_lengths(self, lengths: Tensor) -> Tensor:
        return lengths


def frames() -> Padded:
    values = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(2))
    return Padded(values, torch.tensor([5, 3]))


def head_with(**settings: object) -> CtcHead:
    torch.manual_seed(0)
    return CtcHead(CtcConfig.model_validate({"dropout": 0.0, **settings}), 6, 4)


def test_without_stacks_the_encoder_is_called_as_ever() -> None:
    batch = frames()
    encoded, inner = encode_with_taps(Closed(), head_with(), batch)
    assert encoded is batch
    assert inner == []


def test_inner_predictions_are_those_of_the_same_head() -> None:
    batch, head = frames(), head_with(intermediate=(0,))
    assert head.feedback is None
    encoded, inner = encode_with_taps(TwoStacks(), head, batch)
    torch.testing.assert_close(encoded.values, 2 * batch.values + 1)
    expected = head.log_probs(Padded(2 * batch.values, batch.lengths))
    assert len(inner) == 1
    torch.testing.assert_close(inner[0].values, expected.values)
    assert inner[0].lengths.tolist() == [5, 3]


def test_self_conditioning_starts_small_and_learns() -> None:
    batch, head = frames(), head_with(intermediate=(0,), self_conditioned=True)
    plain = TwoStacks()(batch).values
    encoded, inner = encode_with_taps(TwoStacks(), head, batch)
    assert 0 < (encoded.values - plain).abs().max().item() < 0.1
    assert len(inner) == 1
    assert head.feedback is not None
    assert head.feedback.weight.square().mean().sqrt().item() > 1e-3  # ScaledAdam could not grow zeros
    with torch.no_grad():
        for parameter in head.feedback.parameters():
            parameter.fill_(0.5)
    # weights and bias 0.5: 0.5 * (sum of probabilities) + 0.5 = 1 is added to real frames, nothing to padding
    changed = encode_with_taps(TwoStacks(), head, batch).encoded.values
    torch.testing.assert_close(changed[0], plain[0] + 1.0)
    torch.testing.assert_close(changed[1, :3], plain[1, :3] + 1.0)
    assert torch.equal(changed[1, 3:], plain[1, 3:])


def test_self_conditioning_learns_through_the_last_loss() -> None:
    head = head_with(intermediate=(0,), self_conditioned=True)
    encoded, _ = encode_with_taps(TwoStacks(), head, frames())
    head.loss(encoded, pad([torch.tensor([1, 2]), torch.tensor([3])])).sum().backward()
    assert head.feedback is not None
    assert head.feedback.weight.grad is not None
    assert (head.feedback.weight.grad != 0).any()


def test_inner_losses_are_float32_under_autocast() -> None:
    head = head_with(intermediate=(0,), self_conditioned=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, inner = encode_with_taps(TwoStacks(), head, frames())
    assert inner[0].values.dtype is torch.float32
    plain = encode_with_taps(TwoStacks(), head, frames()).inner[0]
    torch.testing.assert_close(inner[0].values, plain.values, rtol=0, atol=0)


def test_an_encoder_that_cannot_be_tapped_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be tapped"):
        encode_with_taps(Closed(), head_with(intermediate=(0,)), frames())


def test_the_zipformer_can_be_tapped() -> None:
    encoder = Zipformer(ZipformerConfig.preset("nano"), 80).eval()
    head = CtcHead(CtcConfig(intermediate=(2,), self_conditioned=True, dropout=0.0), encoder.dim, 5)
    batch = Padded(torch.randn(2, 60, 80), torch.tensor([60, 41]))
    assert head.feedback is not None
    torch.nn.init.zeros_(head.feedback.weight)
    torch.nn.init.zeros_(head.feedback.bias)
    encoded, inner = encode_with_taps(encoder, head, batch)
    torch.testing.assert_close(encoded.values, encoder(batch).values)
    assert inner[0].lengths.tolist() == encoded.lengths.tolist()
    assert inner[0].values.shape[:2] == encoded.values.shape[:2]
