"""What acts on attention decoders in training: guided attention, scheduled sampling, smoothing, schedules."""

from __future__ import annotations

import math

import pytest
import torch

from firstwords.heads.attention.guided import GuidedConfig, guided_loss, guided_weight
from firstwords.heads.attention.objective import Lesson, lesson_of, log_probs_by_id, sentence_loss, units_of
from firstwords.heads.attention.sampling import SamplingConfig, predicted, sampling_share, toss
from firstwords.heads.attention.speller import SpellerConfig, SpellerHead
from firstwords.tensors import Padded, pad


def test_guided_loss_equals_its_formula() -> None:
    weights = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, frames = torch.tensor([4, 2]), torch.tensor([6, 3])
    weights[1, :, 3:] = 0
    expected = []
    for b in range(2):
        total = 0.0
        for n in range(int(tokens[b])):
            for t in range(int(frames[b])):
                away = n / float(tokens[b]) - t / float(frames[b])
                total += float(weights[b, n, t]) * (1 - math.exp(-(away**2) / (2 * 0.2**2)))
        expected.append(total)
    assert guided_loss(weights, tokens, frames, 0.2).tolist() == pytest.approx(expected)


def test_the_diagonal_costs_nothing_and_its_opposite_nearly_one_per_token() -> None:
    eye = torch.eye(10)[None]
    ten = torch.tensor([10])
    assert guided_loss(eye, ten, ten, 0.2).item() == 0
    assert guided_loss(eye.flip(2)[:, :1], torch.tensor([1]), ten, 0.2).item() == pytest.approx(1, abs=1e-3)


def test_guided_weight_falls_to_zero() -> None:
    config = GuidedConfig(weight=2.0, until=1000)
    assert [guided_weight(config, n) for n in (0.0, 500.0, 1000.0, 5000.0)] == [2.0, 1.0, 0.0, 0.0]


def test_sampling_share_rises_from_start_to_end() -> None:
    config = SamplingConfig(share=0.4, start=100, end=300)
    shares = [sampling_share(config, n) for n in (0.0, 100.0, 200.0, 300.0, 900.0)]
    assert shares == pytest.approx([0, 0, 0.2, 0.4, 0.4])
    with pytest.raises(ValueError, match="must be above start"):
        SamplingConfig(start=5, end=5)


def test_coins_fall_as_often_as_they_should_for_each_token_by_itself() -> None:
    torch.manual_seed(1)
    coins = toss(0.3, torch.zeros(400, 51, dtype=torch.int64))
    assert not coins[:, 0].any()
    shares = coins[:, 1:].double()
    assert shares.mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 20000))
    # neither all of an utterance nor all of a step: rows and columns scatter as independent coins do
    assert shares.mean(dim=1).std().item() == pytest.approx(math.sqrt(0.21 / 50), rel=0.2)
    assert shares.mean(dim=0).std().item() == pytest.approx(math.sqrt(0.21 / 400), rel=0.3)


def test_predictions_are_the_best_or_drawn_by_probability() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.7, 0.2]])).expand(4000, -1)
    assert predicted(logits, "best").unique().tolist() == [1]
    torch.manual_seed(2)
    counts = predicted(logits, "drawn").bincount(minlength=3) / 4000
    torch.testing.assert_close(counts, torch.tensor([0.1, 0.7, 0.2]), rtol=0, atol=0.03)


def test_lesson() -> None:
    lesson = lesson_of(Padded(torch.tensor([[2, 3, 1], [4, 0, 0]]), torch.tensor([3, 1])), 5)
    assert lesson.inputs.tolist() == [[4, 1, 2, 0], [4, 3, 4, 4]]
    assert lesson.outputs.tolist() == [[1, 2, 0, 4], [3, 4, 4, 4]]
    assert lesson.lengths.tolist() == [4, 2]
    assert units_of(torch.tensor([0, 1, 4]), 5).tolist() == [4, 0, 3]
    scores = log_probs_by_id(torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0]]))
    assert scores.argsort(descending=True).tolist() == [[0, 4, 3, 2, 1]]


def test_label_smoothing_spreads_over_every_unit() -> None:
    logits = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lesson = Lesson(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([[2, 0, 3]]), torch.tensor([2]))
    log_probs = logits[0].log_softmax(-1)
    expected = 0.0
    for i, unit in enumerate((2, 0)):  # the third is padding
        expected -= 0.9 * float(log_probs[i, unit]) + 0.1 * float(log_probs[i].mean())
    assert sentence_loss(logits, lesson, smoothing=0.1).item() == pytest.approx(expected)


def speller(**settings: object) -> SpellerHead:
    torch.manual_seed(0)
    base = {"width": 8, "layers": 1, "dropout": 0.0, "label_smoothing": 0.0, "guided": {"weight": 0.0}}
    return SpellerHead(SpellerConfig.model_validate(base | settings), 6, 5)


def utterances() -> tuple[Padded, Padded]:
    values = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(3))
    encoded = pad([values[0], values[1, :6], values[2, :8]])
    return encoded, pad([torch.tensor(t) for t in ([1, 2, 3, 4], [4, 4], [2])])


def test_sampling_changes_only_what_is_read() -> None:
    """With every coin up, each token after the first is read from the speller's own best prediction."""
    head = speller(sampling={"share": 1.0, "start": 0, "end": 1})
    encoded, targets = utterances()
    head.train().set_step(5.0)
    found = head.loss(encoded, targets)
    head.eval()
    for row in range(3):
        n, tokens = int(targets.lengths[row]), targets.values[row].tolist()
        alone = Padded(encoded.values[row : row + 1, : encoded.lengths[row]], encoded.lengths[row : row + 1])
        scorer = head.scorer(alone)
        state, last, total = scorer.start(1), torch.tensor([0]), 0.0
        for said in [*tokens[:n], 0]:
            scores, state = scorer.score(last, state)
            total -= scores[0, said].item()
            last = scores.argmax(dim=1)
        assert found[row].item() == pytest.approx(total, rel=1e-5)


def test_no_coin_is_up_before_the_start_and_in_use() -> None:
    encoded, targets = utterances()
    head = speller(sampling={"share": 1.0, "start": 10, "end": 20})
    plain = head.eval().loss(encoded, targets)
    head.train().set_step(10.0)
    torch.testing.assert_close(head.loss(encoded, targets), plain)
    head.set_step(20.0)
    assert not torch.allclose(head.loss(encoded, targets), plain)
    torch.testing.assert_close(head.eval().loss(encoded, targets), plain)


def test_sampling_under_autocast_leaves_every_gradient() -> None:
    """Predictions are made without gradients; the cast weights they used must not be used again."""
    head = speller(sampling={"share": 1.0, "start": 0, "end": 1}).train()
    head.set_step(5.0)
    encoded, targets = utterances()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(encoded, targets)
    loss.sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name


def test_guided_attention_is_added_in_training_alone() -> None:
    encoded, targets = utterances()
    head = speller(guided={"weight": 3.0, "until": 100.0})
    plain = head.eval().loss(encoded, targets)
    torch.testing.assert_close(-head.log_likelihood(encoded, targets), plain)
    head.train().set_step(50.0)
    weights = head.attention(encoded, targets)
    added = 1.5 * guided_loss(weights.values, weights.lengths, encoded.lengths, 0.2)
    torch.testing.assert_close(head.loss(encoded, targets), plain + added)
    head.set_step(100.0)
    torch.testing.assert_close(head.loss(encoded, targets), plain)
