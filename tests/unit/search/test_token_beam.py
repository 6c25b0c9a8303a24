"""Beam search token by token: against exhaustive search, its bounds, its parts."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple, final

import pytest
import torch
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.nn.scorer import AttentionScorer, TokenScorer
from firstwords.search.interface import AttentionBeamConfig
from firstwords.search.token_beam import TokenBeam, Weighted

INF = math.inf


class Bigram(NamedTuple):
    """State of the toy scorer: how many tokens, and how much attention each frame has had."""

    length: Tensor
    attended: Tensor


@final
class BigramScorer(AttentionScorer[Bigram]):
    """log P(next | last, length) from a table (utterance, length, last, next); looks at frame = length."""

    def __init__(self, table: Tensor, frames: int = 8) -> None:
        self.table, self.frames = table, frames

    def start(self, rows: int) -> Bigram:
        return Bigram(torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, self.frames))

    def score(self, last: Tensor, state: Bigram) -> tuple[Tensor, Bigram]:
        utterance = torch.arange(len(last)) // (len(last) // len(self.table))
        scores = self.table[utterance, state.length, last]
        attended = state.attended + 0.6 * torch.nn.functional.one_hot(state.length // 2, self.frames)
        return scores, Bigram(state.length + 1, attended)

    def reorder(self, state: Bigram, kept: Tensor) -> Bigram:
        return Bigram(state.length[kept], state.attended[kept])

    def covered(self, state: Bigram) -> Tensor:
        return (state.attended > 0.5).sum(dim=1).float()


def table(batch: int, length: int, vocabulary: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, length + 1, vocabulary, vocabulary)
    return torch.randn(shape, generator=generator, dtype=torch.float64).mul(1.5).log_softmax(-1)


def log_prob(table: Tensor, utterance: int, tokens: tuple[int, ...]) -> float:
    before = (0, *tokens)
    return sum(float(table[utterance, i, before[i], y]) for i, y in enumerate((*tokens, 0)))


def config(**changes: object) -> AttentionBeamConfig:
    settings = {"beam": 300, "n_best": 300, "length_power": 0.0, "end_margin": INF, "max_length": 1.0}
    return AttentionBeamConfig.model_validate(settings | changes)


@pytest.mark.parametrize(("power", "coverage"), [(0.0, 0.0), (0.7, 0.0), (0.7, 0.3)])
def test_a_wide_beam_is_exhaustive_search(power: float, coverage: float) -> None:
    frames = torch.tensor([4, 3])
    one, two = table(2, 4, 4, 0), table(2, 4, 4, 1)
    scorers = [Weighted("one", 0.7, BigramScorer(one)), Weighted("two", 0.5, BigramScorer(two))]
    found = TokenBeam(scorers, frames, config(length_power=power, coverage=coverage)).run()
    for utterance, readings in enumerate(found):
        expected: dict[tuple[int, ...], float] = {}
        for length in range(int(frames[utterance]) + 1):
            for tokens in itertools.product((1, 2, 3), repeat=length):
                total = 0.7 * log_prob(one, utterance, tokens) + 0.5 * log_prob(two, utterance, tokens)
                covered = 2 * (length // 2 + 1)  # frame = position // 2, of both scorers
                expected[tokens] = total / (length + 1) ** power + coverage * covered
        best = sorted(expected.items(), key=lambda item: -item[1])[:300]
        assert [r.tokens for r in readings] == [tokens for tokens, _ in best]
        assert [r.score for r in readings] == pytest.approx([score for _, score in best])


def test_score_is_the_sum_of_its_parts_and_parts_are_those_of_the_scorers() -> None:
    one, two = table(1, 6, 5, 2), table(1, 6, 5, 3)
    scorers = [Weighted("one", 0.7, BigramScorer(one)), Weighted("two", 0.3, BigramScorer(two))]
    (found,) = TokenBeam(scorers, torch.tensor([6]), config(length_power=0.5, coverage=0.2)).run()
    for reading in found[:50]:
        norm = (len(reading.tokens) + 1) ** 0.5
        assert reading.score == pytest.approx(sum(reading.parts.values()))
        assert reading.parts["one"] == pytest.approx(0.7 * log_prob(one, 0, reading.tokens) / norm)
        assert reading.parts["two"] == pytest.approx(0.3 * log_prob(two, 0, reading.tokens) / norm)
        before = (0, *reading.tokens)
        for i, confidence in enumerate(reading.confidences):
            mean = 0.7 * one[0, i, before[i], before[i + 1]] + 0.3 * two[0, i, before[i], before[i + 1]]
            assert confidence == pytest.approx(math.exp(mean))
    assert len(found[0].confidences) == len(found[0].tokens)


def test_beam_one_is_greedy() -> None:
    scores = table(1, 8, 5, 4)
    scores[..., 0] = -3.0  # no early end
    (found,) = TokenBeam([Weighted("a", 1.0, BigramScorer(scores))], torch.tensor([8]), config(beam=1)).run()
    last, greedy = 0, []
    for i in range(8):
        last = 1 + int(scores[0, i, last, 1:].argmax())
        greedy.append(last)
    assert {r.tokens for r in found} == {tuple(greedy[:n]) for n in range(9)}


def test_lengths_stay_within_their_bounds() -> None:
    scorer = BigramScorer(table(2, 10, 4, 5))
    found = TokenBeam(
        [Weighted("a", 1.0, scorer)],
        torch.tensor([10, 5]),
        config(beam=4, min_length=0.35, max_length=0.5),
    ).run()
    lengths = [{len(r.tokens) for r in readings} for readings in found]
    assert lengths == [{4, 5}, {2, 3}]


def test_stops_three_tokens_after_the_last_good_end() -> None:
    """Ends cost 0.1 nats up to length 2, then 50; tokens cost nothing."""
    scores = torch.zeros(1, 41, 3, 3, dtype=torch.float64)
    scores[..., 0] = -0.1
    scores[:, 3:, :, 0] = -50.0
    asked: list[int] = []

    class Counting(TokenScorer[int]):
        def start(self, rows: int) -> int:
            return 0

        def score(self, last: Tensor, state: int) -> tuple[Tensor, int]:
            asked.append(state)
            return scores[0, state, last], state + 1

        def reorder(self, state: int, kept: Tensor) -> int:
            return state

    (found,) = TokenBeam([Weighted("a", 1.0, Counting())], torch.tensor([40]), config(end_margin=10.0)).run()
    assert asked == list(range(6))  # lengths 3, 4 and 5 end badly
    assert len(found[0].tokens) <= 2


def test_other_utterances_of_the_batch_do_not_matter() -> None:
    scores = table(3, 9, 4, 6)
    frames = torch.tensor([9, 2, 6])
    settings = AttentionBeamConfig(beam=3, n_best=4, max_length=1.0)
    together = TokenBeam([Weighted("a", 1.0, BigramScorer(scores))], frames, settings).run()
    for n in range(3):
        one = BigramScorer(scores[n : n + 1])
        (alone,) = TokenBeam([Weighted("a", 1.0, one)], frames[n : n + 1], settings).run()
        assert together[n] == alone


def test_an_utterance_without_frames_reads_as_nothing() -> None:
    scorer = BigramScorer(table(1, 1, 3, 7))
    (found,) = TokenBeam([Weighted("a", 1.0, scorer)], torch.tensor([0]), config()).run()
    assert [r.tokens for r in found] == [()]


def test_where_nothing_is_possible_nothing_is_read() -> None:
    scorer = BigramScorer(torch.full((1, 4, 3, 3), -INF, dtype=torch.float64))
    (found,) = TokenBeam([Weighted("a", 1.0, scorer)], torch.tensor([3]), config()).run()
    assert [(r.tokens, r.score) for r in found] == [((), -INF)]


def test_nan_is_named() -> None:
    scorer = BigramScorer(torch.full((1, 4, 3, 3), math.nan, dtype=torch.float64))
    with pytest.raises(SearchError, match="not numbers"):
        TokenBeam([Weighted("a", 1.0, scorer)], torch.tensor([3]), config()).run()


def test_no_utterances() -> None:
    scorer = BigramScorer(table(1, 1, 3, 7))
    assert TokenBeam([Weighted("a", 1.0, scorer)], torch.zeros(0, dtype=torch.int64), config()).run() == []
