"""Distillation losses against numbers computed by hand, one by one and by brute force."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from firstwords.heads.ctc import ctc_loss
from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
from firstwords.tensors import Padded
from firstwords.training.distillation.losses import (
    Reading,
    collapsed,
    divergence,
    frame_loss,
    guide_loss,
    hidden_loss,
    lattice_loss,
    sequence_loss,
    token_loss,
)
from firstwords.training.distillation.teacher import lattice_scores


def padded(*rows: list[list[float]]) -> Padded:
    tensors = [torch.tensor(row) for row in rows]
    values = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    return Padded(values, torch.tensor([len(row) for row in rows]))


def logs(*rows: list[list[float]]) -> Padded:
    found = padded(*rows)
    return Padded(found.values.clamp_min(1e-30).log(), found.lengths)


def test_divergence_by_hand() -> None:
    teacher, student = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.25, 0.25, 0.5]).log()
    # 0.5 ln 2 + 0.25 ln 1 + 0.25 ln 0.5
    assert float(divergence(teacher, student)) == pytest.approx(0.25 * math.log(2))


def test_temperature_by_hand() -> None:
    """p = (4, 1) / 5 at temperature 2: square roots 2 and 1, so (2, 1) / 3; q stays even."""
    teacher, student = torch.tensor([0.8, 0.2]).log(), torch.tensor([0.5, 0.5]).log()
    expected = 4 * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))
    assert float(divergence(teacher, student, 2.0)) == pytest.approx(expected, rel=1e-5)


def test_gradient_of_a_frame_is_student_minus_teacher() -> None:
    logits = torch.randn(5, requires_grad=True)
    teacher = torch.randn(5).log_softmax(dim=0)
    divergence(teacher, logits.log_softmax(dim=0)).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, logits.detach().softmax(dim=0) - teacher.exp())


def test_sure_blanks_count_less_and_padding_nothing() -> None:
    teacher = logs([[0.995, 0.005], [0.5, 0.5]], [[0.5, 0.5]])
    student = logs([[0.5, 0.5], [0.25, 0.75]], [[0.25, 0.75]])
    blank = 0.995 * math.log(0.995 / 0.5) + 0.005 * math.log(0.005 / 0.5)
    other = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    for weight in (0.0, 0.1, 1.0):
        found = frame_loss(teacher, student, temperature=1.0, blank_above=0.99, blank_weight=weight)
        torch.testing.assert_close(found, torch.tensor([weight * blank + other, other]))


def test_a_frame_more_or_less_at_the_end_is_left_out() -> None:
    teacher = logs([[0.5, 0.5], [0.9, 0.1], [0.3, 0.7]])
    student = logs([[0.25, 0.75], [0.9, 0.1]])
    found = frame_loss(teacher, student, temperature=1.0, blank_above=1.0, blank_weight=1.0)
    assert float(found) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-5)


def test_guide_adds_up_the_student_at_the_spikes() -> None:
    teacher = logs([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.2, 0.3, 0.5]])
    student = logs([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    assert float(guide_loss(teacher, student)) == pytest.approx(-(0.3 + 0.1))


def test_sequence_loss_is_the_shared_sum_of_ctc() -> None:
    torch.manual_seed(0)
    student = Padded(torch.randn(2, 6, 4).log_softmax(dim=-1), torch.tensor([6, 5]))
    readings = [[Reading((1, 2), 0.75), Reading((1,), 0.25)], [Reading((3, 3, 3, 3, 3), 1.0)]]

    def one(row: int, tokens: list[int]) -> Tensor:
        length = student.lengths[row : row + 1]
        row_of = Padded(student.values[row : row + 1, : int(length)], length)
        return ctc_loss(row_of, Padded(torch.tensor([tokens]), torch.tensor([len(tokens)])))[0]

    found = sequence_loss(readings, student)
    torch.testing.assert_close(found[0], 0.75 * one(0, [1, 2]) + 0.25 * one(0, [1]))
    assert float(found[1]) == 0.0  # five equal tokens need nine frames


def test_token_loss_counts_tokens_and_end() -> None:
    teacher, student = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    found = token_loss(teacher, student, torch.tensor([3, 1]), 1.0)
    p, q = teacher.softmax(-1), student.softmax(-1)
    each = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(found, torch.stack([each[0].sum(), each[1, 0]]))


def test_hidden_loss_by_hand() -> None:
    teacher, student = padded([[3.0, 4.0]]), padded([[4.0, 3.0]])
    cosine = 24 / 25
    expected = 1.0 + math.log(1 + math.exp(-cosine))
    assert float(hidden_loss(teacher, student)) == pytest.approx(expected)


def brute_force(head: TransducerHead, frame: Tensor, predicted: Tensor, label: int | None) -> list[float]:
    """{token, blank, rest} of one node, from the whole distribution."""
    p = head.joiner(frame, predicted).softmax(dim=-1).tolist()
    if label is None:
        return [0.0, p[0], sum(p[1:])]
    return [p[label], p[0], sum(v for k, v in enumerate(p) if k not in (0, label))]


def make_head(seed: int) -> TransducerHead:
    torch.manual_seed(seed)
    config = TransducerConfig.model_validate({"joiner_dim": 7, "predictor": {"kind": "stateless", "dim": 8}})
    head = TransducerHead(config, 5, 6)
    with torch.no_grad():  # new ones say nearly the same everywhere
        head.joiner.output.weight.normal_(std=3.0)
    return head


def test_collapsed_lattice_and_its_loss_by_brute_force() -> None:
    teacher, student = make_head(1), make_head(2)
    torch.manual_seed(3)
    encoded = Padded(torch.randn(2, 4, 5), torch.tensor([4, 3]))
    targets = Padded(torch.tensor([[2, 5, 1], [4, 0, 0]]), torch.tensor([3, 1]))
    with torch.no_grad():
        given, own = (lattice_scores(head, encoded, targets) for head in (teacher, student))
        found = lattice_loss(given, own, encoded.lengths, targets.lengths)
        for row in range(2):
            tokens = targets.values[row, : int(targets.lengths[row])].tolist()
            total = 0.0
            ids = targets.values[row : row + 1], targets.lengths[row : row + 1]
            rows = [head.predictor(Padded(*ids))[0] for head in (teacher, student)]
            for t, u in itertools.product(range(int(encoded.lengths[row])), range(len(tokens) + 1)):
                label = tokens[u] if u < len(tokens) else None
                p = brute_force(teacher, encoded.values[row, t], rows[0][u], label)
                q = brute_force(student, encoded.values[row, t], rows[1][u], label)
                assert given[row, t, u].exp().tolist() == pytest.approx(p, abs=2e-5)
                total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
            assert float(found[row]) == pytest.approx(total / (len(tokens) + 1), rel=1e-3)


def test_a_student_equal_to_its_teacher_loses_nothing() -> None:
    head = make_head(4)
    encoded = Padded(torch.randn(1, 3, 5), torch.tensor([3]))
    targets = Padded(torch.tensor([[2, 5]]), torch.tensor([2]))
    own = lattice_scores(head, encoded, targets)
    loss = lattice_loss(own.detach(), own, encoded.lengths, targets.lengths)
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_collapsed_rest_is_never_below_its_least() -> None:
    sure = torch.zeros(1, 1, 1)
    found = collapsed(sure, torch.full((1, 1, 1), -30.0), torch.tensor([1]))
    assert torch.isfinite(found).all()
    assert float(found[0, 0, 0, 2].exp()) == pytest.approx(1e-5, rel=1e-3)
