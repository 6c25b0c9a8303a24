"""Prefix beam search: its settings, what it returns, and how it fails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from firstwords.errors import SearchError
from firstwords.search.align import align
from firstwords.search.ctc_beam import CtcBeamSearch, prefix_beam
from firstwords.search.search import CtcBeamConfig
from firstwords.tensors import Padded


def random_frames(frames: int, vocabulary: int, seed: int, spread: float = 2.0) -> np.ndarray:
    values = torch.randn(frames, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    return values.double().log_softmax(-1).numpy()


def batch_of(*rows: np.ndarray) -> Padded:
    time = max(len(r) for r in rows)
    values = torch.full((len(rows), time, rows[0].shape[1]), math.nan, dtype=torch.float64)
    for k, row in enumerate(rows):
        values[k, : len(row)] = torch.from_numpy(row)
    return Padded(values, torch.tensor([len(r) for r in rows]))


def test_the_likeliest_reading_is_not_the_likeliest_path() -> None:
    # path "- -" has 0.36, the paths of "a" together 0.64
    frames = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    found = prefix_beam(frames, CtcBeamConfig())
    assert [tokens for tokens, _ in found] == [(1,), ()]
    assert [math.exp(score) for _, score in found] == pytest.approx([0.64, 0.36])


def test_a_dropped_prefix_that_returns_is_the_same_prefix() -> None:
    """Against a plain dictionary implementation, over many random inputs at narrow widths."""
    for seed in range(60):
        frames = random_frames(12, 4, seed, spread=0.7)
        for width in (2, 3, 5):
            expected = slow_prefix_beam(frames, width)
            found = prefix_beam(frames, CtcBeamConfig(beam=width))
            assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
            assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-9)


def test_pruned_choices_change_nothing_in_a_large_vocabulary() -> None:
    for seed in range(5):
        frames = random_frames(15, 80, seed)
        found = prefix_beam(frames, CtcBeamConfig(beam=6))
        expected = slow_prefix_beam(frames, 6)
        assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-9)


def slow_prefix_beam(log_probs: np.ndarray, width: int) -> list[tuple[tuple[int, ...], float]]:
    """The textbook, with prefixes as tuples: (log P ending in blank, log P ending in the last token)."""
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in log_probs:
        grown: dict[tuple[int, ...], list[float]] = {}

        def add(
            prefix: tuple[int, ...], slot: int, value: float, into: dict[tuple[int, ...], list[float]]
        ) -> None:
            entry = into.setdefault(prefix, [-math.inf, -math.inf])
            entry[slot] = float(np.logaddexp(entry[slot], value))

        for prefix, (blank, token) in beam.items():
            total = float(np.logaddexp(blank, token))
            add(prefix, 0, total + frame[0], grown)
            for symbol in range(1, len(frame)):
                if prefix and symbol == prefix[-1]:
                    add(prefix, 1, token + frame[symbol], grown)
                    add((*prefix, symbol), 1, blank + frame[symbol], grown)
                else:
                    add((*prefix, symbol), 1, total + frame[symbol], grown)
        ranked = sorted(grown.items(), key=lambda item: -float(np.logaddexp(item[1][0], item[1][1])))
        beam = {prefix: (entry[0], entry[1]) for prefix, entry in ranked[:width]}
    return [(prefix, float(np.logaddexp(*entry))) for prefix, entry in beam.items()]


def test_readings_carry_times_from_their_best_alignment() -> None:
    frames = random_frames(20, 6, 3)
    (found,) = CtcBeamSearch(CtcBeamConfig(beam=5, n_best=3), 0.04)(batch_of(frames))
    assert len(found) == 3
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for reading in found:
        aligned = align(frames, reading.tokens)
        assert reading.parts == {"ctc": reading.score}
        assert reading.times == pytest.approx([0.04 * f for f in aligned.first])
        assert reading.ends == pytest.approx([0.04 * (f + 1) for f in aligned.last])
        assert reading.confidences == aligned.confidences
        assert reading.score >= aligned.score  # all paths are worth at least the best one


def test_a_batch_gives_what_its_utterances_give_alone() -> None:
    rows = [random_frames(n, 5, n) for n in (9, 4, 1)]
    search = CtcBeamSearch(CtcBeamConfig(beam=4), 0.04)
    together = search(batch_of(*rows))  # the padding is nan: it must not be looked at
    assert together == [search(batch_of(row))[0] for row in rows]


def test_no_frames_read_as_nothing() -> None:
    (found,) = CtcBeamSearch(CtcBeamConfig(), 0.04)(Padded(torch.zeros(1, 0, 4), torch.tensor([0])))
    assert [(h.tokens, h.score, h.times) for h in found] == [((), 0.0, ())]


def test_vocabulary_of_the_blank_alone() -> None:
    found = prefix_beam(np.zeros((3, 1)), CtcBeamConfig())
    assert found == [((), 0.0)]


def test_blank_penalty_brings_tokens() -> None:
    frames = np.log(np.array([[0.7, 0.3]] * 2))
    assert prefix_beam(frames, CtcBeamConfig())[0][0] == (1,)
    assert prefix_beam(frames[:1], CtcBeamConfig())[0][0] == ()
    assert prefix_beam(frames[:1], CtcBeamConfig(blank_penalty=1.0))[0][0] == (1,)


def test_token_threshold_keeps_improbable_tokens_out() -> None:
    frames = np.log(np.array([[0.5, 0.45, 0.05]] * 4))
    all_tokens = {t for tokens, _ in prefix_beam(frames, CtcBeamConfig(beam=50)) for t in tokens}
    likely = {
        t for tokens, _ in prefix_beam(frames, CtcBeamConfig(beam=50, token_threshold=0.1)) for t in tokens
    }
    assert all_tokens == {1, 2}
    assert likely == {1}


def test_nan_is_an_error_that_names_the_row() -> None:
    frames = random_frames(5, 4, 0)
    spoiled = frames.copy()
    spoiled[2, 1] = math.nan
    with pytest.raises(SearchError, match="Row 1"):
        CtcBeamSearch(CtcBeamConfig(), 0.04)(batch_of(frames, spoiled))


def test_nothing_possible_is_an_error() -> None:
    frames = random_frames(5, 4, 0)
    frames[2] = -math.inf
    with pytest.raises(SearchError, match="No symbol is possible"):
        prefix_beam(frames, CtcBeamConfig())


def test_input_is_left_as_it_was() -> None:
    frames = random_frames(6, 4, 0)
    before = frames.copy()
    prefix_beam(frames, CtcBeamConfig(blank_penalty=0.5, token_threshold=0.2, tokens_per_frame=2))
    np.testing.assert_array_equal(frames, before)
