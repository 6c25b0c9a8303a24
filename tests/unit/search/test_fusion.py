"""Language models in CTC searches: against sums over all alignments and all sentences on tiny sizes."""

from __future__ import annotations

import itertools
import math
from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.nn.scorer import TokenScorer
from firstwords.search.align import align
from firstwords.search.ctc_beam import CtcBeamSearch, prefix_readings
from firstwords.search.fusion import Scorers, TokenBonus, Weighted, WeightedSum, weigh
from firstwords.search.interface import NARROW, CtcBeamConfig, GreedyConfig, LanguageModelConfig
from firstwords.search.search import build_search
from firstwords.search.streaming import build_streaming_search
from firstwords.tensors import Padded, pad
from toy_scorers import TrigramScorer, sentence_score, sentences

NEVER = -math.inf


def posterior(frames: int, vocabulary: int, seed: int, spread: float = 1.5) -> np.ndarray:
    values = torch.randn(frames, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    return values.double().log_softmax(-1).numpy()


def paths(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Every label sequence and the sum over its alignments, path by path."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        tokens = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        score = float(sum(frame[symbol] for frame, symbol in zip(log_probs, path, strict=True)))
        found[tokens] = float(np.logaddexp(found.get(tokens, NEVER), score))
    return found


def two(vocabulary: int) -> tuple[TrigramScorer, TrigramScorer, list[Weighted]]:
    good, bad = TrigramScorer(vocabulary, 1), TrigramScorer(vocabulary, 2)
    weights = [Weighted("lm", 0.7, good), Weighted("source", -0.4, bad)]
    return good, bad, [*weights, Weighted("bonus", 0.3, TokenBonus(vocabulary))]


@pytest.mark.parametrize(("frames", "vocabulary"), [(5, 3), (4, 4), (1, 3), (0, 3)])
def test_a_wide_ctc_beam_is_exhaustive_search(frames: int, vocabulary: int) -> None:
    log_probs = posterior(frames, vocabulary, 3)
    good, bad, scorers = two(vocabulary)
    found = prefix_readings(log_probs, CtcBeamConfig(beam=400, n_best=400), scorers)
    expected = {
        tokens: {
            "ctc": acoustic,
            "lm": 0.7 * good.log_prob(tokens),
            "source": -0.4 * bad.log_prob(tokens),
            "bonus": 0.3 * len(tokens),
        }
        for tokens, acoustic in paths(log_probs).items()
    }
    assert {r.tokens for r in found} == set(expected)
    for reading in found:
        assert reading.parts == pytest.approx(expected[reading.tokens])
        assert reading.score == pytest.approx(sum(expected[reading.tokens].values()))
    scores = [reading.score for reading in found]
    assert scores == sorted(scores, reverse=True)


def slow_beam(log_probs: np.ndarray, width: int, scorers: list[Weighted]) -> dict[tuple[int, ...], float]:
    """Prefix beam search with a dictionary, and every scorer asked for every prefix anew."""
    text = WeightedSum(scorers, log_probs.shape[1])

    def share(tokens: tuple[int, ...], *, end: bool = False) -> float:
        state, total, last = text.start(1), 0.0, 0
        for token in (*tokens, *([0] if end else [])):
            scores, state = text.score(torch.tensor([last]), state)
            total, last = total + float(scores[0, token]), token
        return total

    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEVER)}
    for frame in log_probs:
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, token) in beam.items():
            total = float(np.logaddexp(blank, token))
            moves = [(prefix, 0, total + frame[0])]
            for symbol in range(1, len(frame)):
                again = bool(prefix) and symbol == prefix[-1]
                if again:
                    moves.append((prefix, 1, token + frame[symbol]))
                moves.append(((*prefix, symbol), 1, (blank if again else total) + frame[symbol]))
            for tokens, slot, value in moves:
                entry = grown.setdefault(tokens, [NEVER, NEVER])
                entry[slot] = float(np.logaddexp(entry[slot], value))
        ranked = sorted(grown, key=lambda p: -(float(np.logaddexp(*grown[p])) + share(p)))[:width]
        beam = {tokens: (grown[tokens][0], grown[tokens][1]) for tokens in ranked}
    return {tokens: float(np.logaddexp(*entry)) + share(tokens, end=True) for tokens, entry in beam.items()}


@pytest.mark.parametrize("width", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_a_narrow_ctc_beam_is_the_textbooks(width: int, seed: int) -> None:
    log_probs = posterior(12, 6, seed, spread=0.8)
    _, _, scorers = two(6)
    found = prefix_readings(log_probs, CtcBeamConfig(beam=width), scorers)
    assert {r.tokens: r.score for r in found} == pytest.approx(slow_beam(log_probs, width, scorers))


def test_weight_zero_changes_nothing() -> None:
    frames = Padded(torch.from_numpy(posterior(20, 7, 5))[None], torch.tensor([20]))
    lm = TrigramScorer(7, 1)
    none = weigh(Scorers(lm), LanguageModelConfig(weight=0.0), 7)
    assert none == ()
    light = [Weighted("lm", 1e-12, lm)]
    plain = CtcBeamSearch(CtcBeamConfig(beam=5), 0.04)(frames)[0]
    fused = CtcBeamSearch(CtcBeamConfig(beam=5), 0.04, light)(frames)[0]
    assert [r.tokens for r in plain] == [r.tokens for r in fused]
    assert [r.score for r in plain] == pytest.approx([r.score for r in fused])
    assert [r.times for r in plain] == [r.times for r in fused]


def test_a_language_model_changes_what_is_read() -> None:
    """Token 1 is a little likelier to the ear, 2 much likelier to the model."""
    frames = np.log(np.array([[0.1, 0.5, 0.4], [0.9, 0.05, 0.05]]))
    lm = TrigramScorer(3, 0)
    lm.table[:] = torch.tensor([0.2, 0.1, 0.7], dtype=torch.float64).log()
    assert prefix_readings(frames, CtcBeamConfig())[0].tokens == (1,)
    assert prefix_readings(frames, CtcBeamConfig(), [Weighted("lm", 0.5, lm)])[0].tokens == (2,)


def test_each_prefix_is_asked_for_once() -> None:
    lm = TrigramScorer(5, 1)
    log_probs = posterior(1, 5, 0)
    log_probs = np.concatenate([log_probs, np.full((40, 5), -50.0)])
    log_probs[1:, 0] = 0.0  # then nothing but blanks
    prefix_readings(log_probs, CtcBeamConfig(beam=4), [Weighted("lm", 0.5, lm)])
    assert lm.asked <= 1 + 4 + 4  # the start, and what one and two frames can bring


def test_greedy_with_a_language_model_is_a_narrow_beam() -> None:
    frames = pad([torch.from_numpy(posterior(n, 6, n, spread=3.0)) for n in (30, 7)])
    scorers = [Weighted("lm", 0.5, TrigramScorer(6, 1))]
    greedy = build_search(GreedyConfig(), 0.04, scorers)(frames)
    beam = build_search(NARROW, 0.04, scorers)(frames)
    assert greedy == beam
    assert [len(readings) for readings in greedy] == [1, 1]
    assert build_search(GreedyConfig(), 0.04)(frames)[0][0].parts.keys() == {"ctc"}


@pytest.mark.parametrize("config", [CtcBeamConfig(beam=1), CtcBeamConfig(beam=4), NARROW])
def test_a_stream_reads_as_the_whole(config: CtcBeamConfig) -> None:
    """However it is cut. The end of the sentence is not heard in a stream, so the model gives none."""
    log_probs = torch.from_numpy(posterior(40, 6, 7, spread=2.0))
    lm = TrigramScorer(6, 1)
    lm.table[..., 0] = 0.0
    scorers = [Weighted("lm", 0.5, lm), Weighted("bonus", 0.2, TokenBonus(6))]
    (whole, *_) = CtcBeamSearch(config, 0.04, scorers)(Padded(log_probs[None], torch.tensor([40])))[0]
    for cuts in ([40], [7, 13, 20], [1] * 40):
        stream = build_streaming_search(config, lambda scored: scored, 0.04, scorers)
        read: list[int] = []
        for part in log_probs.split(cuts):
            stream.advance(part)
            read += stream.commit(stream.stable()).tokens
        assert (*read, *stream.best().tokens) == whole.tokens


def test_impossible_tokens_stay_impossible_whatever_the_weight() -> None:
    never = TrigramScorer(4, 1)
    never.table[:, :, 2] = NEVER
    for weight in (0.5, -0.5):
        scorers = [Weighted("lm", 0.5, TrigramScorer(4, 2)), Weighted("x", weight, never)]
        found = prefix_readings(posterior(4, 4, 1), CtcBeamConfig(beam=200), scorers)
        assert found
        assert all(2 not in reading.tokens and math.isfinite(reading.score) for reading in found)


def test_another_vocabulary_and_numbers_that_are_none_are_errors() -> None:
    with pytest.raises(SearchError, match="'lm' knows 5 tokens, the recogniser 4"):
        prefix_readings(posterior(3, 4, 1), CtcBeamConfig(), [Weighted("lm", 0.5, TrigramScorer(5, 1))])
    spoiled = TrigramScorer(4, 1)
    spoiled.table[0, 0, 1] = math.nan
    with pytest.raises(SearchError, match="not numbers"):
        prefix_readings(posterior(3, 4, 1), CtcBeamConfig(), [Weighted("lm", 0.5, spoiled)])


def test_a_sum_keeps_the_laws() -> None:
    """Token by token = its parts; ``reorder`` and ``join`` commute with ``score``."""
    good, bad, scorers = two(4)
    both = WeightedSum(scorers, 4)
    for tokens in sentences(4, 3):
        expected = 0.7 * good.log_prob(tokens) - 0.4 * bad.log_prob(tokens) + 0.3 * len(tokens)
        assert sentence_score(both, tokens) == pytest.approx(expected)
    rows = torch.tensor([1, 3, 2])
    scores, state = both.score(rows, both.start(3))
    kept = torch.tensor([2, 0, 0])
    torch.testing.assert_close(both.score(rows, both.reorder(both.start(3), kept))[0], scores)
    left, right = both.reorder(state, torch.tensor([0])), both.reorder(state, torch.tensor([1, 2]))
    nexts = torch.tensor([2, 2, 1])
    torch.testing.assert_close(both.score(nexts, both.join([left, right]))[0], both.score(nexts, state)[0])
    one = WeightedSum(scorers[:1], 4)
    assert one.score(rows, one.start(3))[0].exp().pow(1 / 0.7).sum(1) == pytest.approx(1.0)


def test_a_state_that_cannot_be_joined_is_named() -> None:
    @final
    class Odd(TokenScorer[int]):
        def start(self, rows: int) -> int:
            return 0

        def score(self, last: Tensor, state: int) -> tuple[Tensor, int]:
            return torch.zeros(len(last), 3), state

        def reorder(self, state: int, kept: Tensor) -> int:
            return state

    with pytest.raises(SearchError, match="Odd cannot take part"):
        prefix_readings(posterior(3, 3, 1), CtcBeamConfig(), [Weighted("odd", 1.0, Odd())])


def test_settings_become_weights() -> None:
    lm, source, phrases = (TrigramScorer(3, n) for n in range(3))
    config = LanguageModelConfig(weight=0.5, bonus=1.5, source_weight=0.2)
    found = weigh(Scorers(lm, source, phrases), config, 3)
    assert [(one.name, one.weight, one.hears) for one in found] == [
        ("language_model", 0.5, False),
        ("bonus", 1.5, False),
        ("source", -0.2, False),
        ("phrases", 1.0, False),
    ]
    assert [one.name for one in weigh(Scorers(phrases=phrases), config, 3)] == ["phrases"]
    assert weigh(Scorers(), config, 3) == ()
    with pytest.raises(SearchError, match=r"source_weight = 0\.2"):
        weigh(Scorers(lm), config, 3)


@pytest.mark.parametrize(
    "changes", [{"tokens_per_frame": 3}, {"token_threshold": 0.1}, {"blank_penalty": 0.7}]
)
def test_what_the_ear_rules_out_is_not_tried(changes: dict[str, float]) -> None:
    """Pruning and the blank's penalty are those of the posterior, as without scorers."""
    log_probs = posterior(9, 6, 2)
    seen = log_probs.copy()
    if "tokens_per_frame" in changes:
        seen[seen < np.sort(seen, axis=1)[:, [3]]] = NEVER
    if "token_threshold" in changes:
        seen[:, 1:][seen[:, 1:] < math.log(0.1)] = NEVER
    seen[:, 0] -= changes.get("blank_penalty", 0.0)
    _, _, scorers = two(6)
    config = CtcBeamConfig.model_validate({"beam": 4, **changes})
    found = prefix_readings(log_probs, config, scorers)
    assert {r.tokens: r.score for r in found} == pytest.approx(slow_beam(seen, 4, scorers))
    assert seen.tolist() != log_probs.tolist()


@pytest.mark.parametrize("spread", [0.5, 40.0])
def test_times_are_those_of_the_best_alignment(spread: float) -> None:
    """Whether the reading is that of the best path (sure frames) or not (unsure ones)."""
    log_probs = posterior(25, 6, 4, spread=spread)
    scorers = [Weighted("lm", 0.3, TrigramScorer(6, 1))]
    (found,) = build_search(GreedyConfig(), 0.04, scorers)(pad([torch.from_numpy(log_probs)]))[0]
    (plain,) = build_search(GreedyConfig(), 0.04)(pad([torch.from_numpy(log_probs)]))[0]
    assert (found.tokens == plain.tokens) == (spread > 1)
    expected = align(log_probs, found.tokens)
    assert len(found.tokens) > 3
    assert found.times == pytest.approx([0.04 * frame for frame in expected.first])
    assert found.ends == pytest.approx([0.04 * (frame + 1) for frame in expected.last])
    assert found.confidences == pytest.approx(expected.confidences)
