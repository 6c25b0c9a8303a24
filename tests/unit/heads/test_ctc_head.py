"""CTC head and loss: hand-computed values, impossible and empty targets, number formats."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from firstwords.heads.ctc import CtcConfig, CtcHead, can_align, ctc_loss, frames_needed
from firstwords.tensors import Padded, pad


def ids(*rows: list[int]) -> Padded:
    return pad([torch.tensor(row, dtype=torch.int64) for row in rows])


def uniform(lengths: list[int], time: int, vocabulary: int) -> Padded:
    values = torch.full((len(lengths), time, vocabulary), -math.log(vocabulary))
    return Padded(values, torch.tensor(lengths))


def test_loss_of_one_token_in_two_frames() -> None:
    # paths of "a" in two frames: a-, -a, aa; each has probability 1/9
    loss = ctc_loss(uniform([2], 2, 3), ids([1]))
    assert float(loss[0]) == pytest.approx(-math.log(3 / 9), rel=1e-6)


def test_empty_targets_mean_blanks_only() -> None:
    loss = ctc_loss(uniform([4, 2], 4, 5), ids([], []))
    assert loss.tolist() == pytest.approx([4 * math.log(5), 2 * math.log(5)], rel=1e-6)


def test_empty_target_beside_a_full_one() -> None:
    loss = ctc_loss(uniform([2, 3], 3, 3), ids([1], []))
    assert loss.tolist() == pytest.approx([-math.log(3 / 9), 3 * math.log(3)], rel=1e-6)


def test_no_frames() -> None:
    loss = ctc_loss(uniform([0, 0, 2], 2, 3), ids([], [1], [1]))
    assert loss.tolist() == pytest.approx([0.0, math.inf, -math.log(3 / 9)], rel=1e-6)


def test_a_batch_without_frames_or_utterances() -> None:
    lengths = torch.zeros(2, dtype=torch.int64)
    loss = ctc_loss(Padded(torch.zeros(2, 0, 3, requires_grad=True), lengths), ids([], [1]))
    assert loss.tolist() == [0.0, math.inf]
    nothing = ctc_loss(
        Padded(torch.zeros(0, 4, 3), lengths[:0]), Padded(torch.zeros(0, 2).long(), lengths[:0])
    )
    assert nothing.shape == (0,)


def test_impossible_utterance_is_infinite_and_harmless() -> None:
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    log_probs = Padded(logits.log_softmax(-1), torch.tensor([3, 3]))
    loss = ctc_loss(log_probs, ids([1, 1, 2], [1, 2]))  # "a a b" needs four frames
    assert loss[0].item() == math.inf
    assert math.isfinite(loss[1].item())
    loss[1].backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0] == 0).all()
    assert (logits.grad[1] != 0).any()


def test_impossible_utterance_has_no_gradient_even_when_summed() -> None:
    logits = torch.zeros(2, 1, 3, requires_grad=True)
    loss = ctc_loss(Padded(logits.log_softmax(-1), torch.tensor([1, 1])), ids([1, 2], [1]))
    loss.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_can_align_counts_repeats() -> None:
    targets = ids([1, 1, 2], [1, 2, 1], [], [3, 3, 3])
    assert frames_needed(targets).tolist() == [4, 3, 0, 5]
    assert can_align(torch.tensor([3, 3, 0, 5]), targets).tolist() == [False, True, True, True]


def test_padding_zeros_are_no_repeats() -> None:
    targets = Padded(torch.tensor([[5, 0, 0, 0]]), torch.tensor([1]))
    assert frames_needed(targets).tolist() == [1]


def test_can_align_agrees_with_the_loss() -> None:
    generator = torch.Generator().manual_seed(4)
    targets = pad([torch.randint(1, 3, (n,), generator=generator) for n in range(7)])
    for frames in range(1, 9):
        lengths = torch.full((7,), frames)
        values = torch.full((7, frames, 3), -math.log(3.0))
        raw = torch.nn.functional.ctc_loss(
            values.transpose(0, 1), targets.values, lengths, targets.lengths, reduction="none"
        )
        assert torch.isfinite(raw).tolist() == can_align(lengths, targets).tolist()


def test_log_probs_are_float32_and_normalized() -> None:
    head = CtcHead(CtcConfig(), 8, 5).eval().to(torch.bfloat16)
    encoded = Padded(torch.randn(2, 3, 8).to(torch.bfloat16), torch.tensor([3, 1]))
    found = head.log_probs(encoded)
    assert found.values.dtype is torch.float32
    torch.testing.assert_close(found.values.exp().sum(-1), torch.ones(2, 3))
    assert found.lengths.tolist() == [3, 1]


def test_autocast_does_not_reach_the_loss() -> None:
    head = CtcHead(CtcConfig(dropout=0.0), 8, 5)
    encoded = Padded(torch.randn(2, 6, 8), torch.tensor([6, 4]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(encoded, ids([1, 2], [3]))
    assert loss.dtype is torch.float32


def test_blank_bias_moves_the_blank_at_the_start() -> None:
    def start(bias: float) -> Tensor:
        torch.manual_seed(0)
        return CtcHead(CtcConfig(blank_bias=bias), 4, 3).projection.bias.detach()

    torch.testing.assert_close(start(-1.0) - start(0.0), torch.tensor([-1.0, 0.0, 0.0]))


def test_dropout_only_while_training() -> None:
    head = CtcHead(CtcConfig(dropout=0.5), 16, 4)
    encoded = Padded(torch.randn(1, 5, 16), torch.tensor([5]))
    assert not torch.equal(head.log_probs(encoded).values, head.log_probs(encoded).values)
    head.eval()
    assert torch.equal(head.log_probs(encoded).values, head.log_probs(encoded).values)


def test_weights_have_the_names_checkpoints_rely_on() -> None:
    assert set(CtcHead(CtcConfig(), 4, 3).state_dict()) == {"projection.weight", "projection.bias"}


def test_conditioning_on_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs intermediate stacks"):
        CtcConfig(self_conditioned=True)
