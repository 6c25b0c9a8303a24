"""CTC prefix scores: against all paths on tiny sizes, against the recursion frame by frame on long ones."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from firstwords.search.ctc_prefix import CtcPrefixScorer
from firstwords.tensors import Padded

FRAMES, VOCABULARY = 5, 3


def posteriors(rows: int, frames: int, vocabulary: int, seed: int, spread: float = 1.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, frames, vocabulary, generator=generator, dtype=torch.float64)
    return (values * spread).log_softmax(-1)


def reads_as(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)


def score_all(scorer: CtcPrefixScorer, prefix: tuple[int, ...], rows: int = 1) -> torch.Tensor:
    """Scores after the prefix, and the sum of those on the way to it: (rows, V), (rows,)."""
    state = scorer.start(rows)
    scores, state = scorer.score(torch.zeros(rows, dtype=torch.int64), state)
    total = torch.zeros(rows, dtype=torch.float64)
    for token in prefix:
        total = total + scores[:, token]
        scores, state = scorer.score(torch.full((rows,), token), state)
    return total[:, None] + scores


@pytest.mark.parametrize("seed", range(3))
def test_prefix_scores_equal_the_sum_over_all_paths(seed: int) -> None:
    log_probs = posteriors(1, FRAMES, VOCABULARY, seed)
    exact: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(VOCABULARY), repeat=FRAMES):
        probability = math.exp(sum(float(log_probs[0, t, s]) for t, s in enumerate(path)))
        exact[reads_as(path)] = exact.get(reads_as(path), 0.0) + probability
    scorer = CtcPrefixScorer(Padded(log_probs, torch.tensor([FRAMES])))
    checked = 0
    for length in range(FRAMES):
        for prefix in itertools.product((1, 2), repeat=length):
            if prefix not in exact:
                continue  # not even the prefix fits into five frames: its rows are dead
            scores = score_all(scorer, prefix)[0]
            for token in (1, 2):
                grown = (*prefix, token)
                begins = [p for reading, p in exact.items() if reading[: len(grown)] == grown]
                want = math.log(sum(begins)) if begins else -math.inf
                assert scores[token].item() == pytest.approx(want, abs=1e-8)
                checked += 1
            assert scores[0].item() == pytest.approx(math.log(exact[prefix]), abs=1e-8)
            checked += 1
    assert checked == 3 * len([r for r in exact if len(r) < FRAMES])


def test_impossible_prefixes_stay_impossible() -> None:
    scorer = CtcPrefixScorer(Padded(posteriors(1, 3, 3, 0), torch.tensor([3])))
    scores = score_all(scorer, (1, 1, 1))  # needs five frames
    assert scores.tolist() == [[-math.inf] * 3]


def plain_recursion(
    log_probs: np.ndarray, prefix: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, dict[int, float]]:
    """The published recursion, frame by frame -> r^n, r^b of the prefix and psi of each token after it."""
    frames, vocabulary = log_probs.shape
    token, blank = np.full(frames, -np.inf), np.cumsum(log_probs[:, 0])

    def grown(token: np.ndarray, blank: np.ndarray, before: tuple[int, ...], c: int):
        new_token, new_blank = np.full(frames, -np.inf), np.full(frames, -np.inf)
        if not before:
            new_token[0] = log_probs[0, c]
        psi = new_token[0]
        for t in range(1, frames):
            phi = blank[t - 1] if before and before[-1] == c else np.logaddexp(token[t - 1], blank[t - 1])
            new_token[t] = np.logaddexp(new_token[t - 1], phi) + log_probs[t, c]
            new_blank[t] = np.logaddexp(new_token[t - 1], new_blank[t - 1]) + log_probs[t, 0]
            psi = np.logaddexp(psi, phi + log_probs[t, c])
        return new_token, new_blank, psi

    before: tuple[int, ...] = ()
    for c in prefix:
        token, blank, _ = grown(token, blank, before, c)
        before = (*before, c)
    return token, blank, {c: grown(token, blank, before, c)[2] for c in range(1, vocabulary)}


def test_long_and_peaked_posteriors_equal_the_recursion() -> None:
    """Sums over 300 frames at down to -60 nats each: nothing is lost in the cumulative sums."""
    log_probs = posteriors(1, 300, 6, 4, spread=12.0)
    prefix = (1, 2, 2, 5, 1, 3, 3, 3, 4)
    scorer = CtcPrefixScorer(Padded(log_probs, torch.tensor([300])))
    scores = score_all(scorer, prefix)[0]
    token, blank, psi = plain_recursion(log_probs[0].numpy(), prefix)
    assert scores[0].item() == pytest.approx(float(np.logaddexp(token[-1], blank[-1])), abs=1e-8)
    for c, want in psi.items():
        assert scores[c].item() == pytest.approx(want, abs=1e-8)


def test_a_batch_gives_what_its_utterances_give_alone() -> None:
    lengths = [7, 4, 0, 1]
    values = posteriors(4, 7, 4, 1)
    for row, length in enumerate(lengths):
        values[row, length:] = math.nan  # must not be looked at
    together = score_all(CtcPrefixScorer(Padded(values, torch.tensor(lengths))), (2, 2), rows=8)
    for row, length in enumerate(lengths):
        alone = Padded(values[row : row + 1, :length], torch.tensor([length]))
        want = score_all(CtcPrefixScorer(alone), (2, 2), rows=1)[0]
        for copy in (2 * row, 2 * row + 1):
            torch.testing.assert_close(together[copy], want, rtol=0, atol=1e-12)


def test_scores_of_every_token_and_the_end_sum_to_one() -> None:
    scorer = CtcPrefixScorer(Padded(posteriors(2, 9, 5, 2), torch.tensor([9, 6])))
    state, last = scorer.start(2), torch.tensor([0, 0])
    for token in (2, 2, 4, 1):
        scores, state = scorer.score(last, state)
        assert scores.exp().sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
        last = torch.tensor([token, token])


def test_reorder_commutes_with_score() -> None:
    scorer = CtcPrefixScorer(Padded(posteriors(2, 9, 5, 2), torch.tensor([9, 6])))
    _, state = scorer.score(torch.zeros(4, dtype=torch.int64), scorer.start(4))
    _, state = scorer.score(torch.tensor([1, 2, 3, 3]), state)
    kept = torch.tensor([1, 1, 0, 3, 2, 2])
    before, _ = scorer.score(torch.tensor([3, 2, 4, 3]), state)
    after, _ = scorer.score(torch.tensor([2, 2, 3, 3, 4, 4]), scorer.reorder(state, kept))
    torch.testing.assert_close(after, before[kept])


def test_no_frames_read_as_nothing() -> None:
    scorer = CtcPrefixScorer(Padded(torch.zeros(1, 0, 3), torch.tensor([0])))
    assert score_all(scorer, ()).tolist() == [[0.0, -math.inf, -math.inf]]
