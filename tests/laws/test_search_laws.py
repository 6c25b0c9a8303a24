"""Laws of searches: score is the sum of parts, beam 1 without merging is greedy, a wide beam tries all."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.heads.ctc import ctc_loss
from firstwords.search.search import CtcBeamConfig, GreedyConfig, build_search
from firstwords.tensors import Padded, pad

KINDS = {
    "greedy": GreedyConfig(),
    "ctc_beam": CtcBeamConfig(),
    "ctc_beam-narrow": CtcBeamConfig(beam=3, tokens_per_frame=3),
}


def batch(rows: int, time: int, vocabulary: int, seed: int) -> Padded:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, time, vocabulary, generator=generator, dtype=torch.float64) * 2
    lengths = torch.randint(0, time + 1, (rows,), generator=generator)
    return Padded(values.log_softmax(-1), lengths)


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), time=st.integers(0, 12), vocabulary=st.integers(2, 9))
def test_what_every_search_promises(
    config: GreedyConfig | CtcBeamConfig, seed: int, time: int, vocabulary: int
) -> None:
    frames = batch(3, time, vocabulary, seed)
    found = build_search(config, 0.04)(frames)
    assert len(found) == 3
    for readings, length in zip(found, frames.lengths.tolist(), strict=True):
        assert readings
        scores = [r.score for r in readings]
        assert scores == sorted(scores, reverse=True)
        assert len({r.tokens for r in readings}) == len(readings)
        for reading in readings:
            assert reading.score == pytest.approx(sum(reading.parts.values()))
            assert 0 not in reading.tokens
            assert reading.times is not None
            assert reading.ends is not None
            assert reading.confidences is not None
            assert len(reading.times) == len(reading.ends) == len(reading.confidences) == len(reading.tokens)
            assert all(0 <= c <= 1 for c in reading.confidences)
            # tokens follow each other inside the audio
            moments = list(itertools.chain(*zip(reading.times, reading.ends, strict=True)))
            assert moments == sorted(moments)
            assert all(0 <= m <= length * 0.04 + 1e-9 for m in moments)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), time=st.integers(0, 15), vocabulary=st.integers(2, 7))
def test_beam_one_with_one_symbol_per_frame_is_greedy(seed: int, time: int, vocabulary: int) -> None:
    """With one symbol per frame nothing merges, and the only path left is the greedy one."""
    frames = batch(2, time, vocabulary, seed)
    greedy = build_search(GreedyConfig(), 0.04)(frames)
    beam = build_search(CtcBeamConfig(beam=1, tokens_per_frame=1), 0.04)(frames)
    for (one,), (other,) in zip(greedy, beam, strict=True):
        assert one.tokens == other.tokens
        assert one.score == pytest.approx(other.score, rel=1e-5, abs=1e-6)
        assert one.times == pytest.approx(other.times)
        assert one.ends == pytest.approx(other.ends)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), time=st.integers(0, 5))
def test_a_wide_beam_is_exhaustive_search(seed: int, time: int) -> None:
    frames = Padded(batch(1, time, 3, seed).values, torch.tensor([time]))
    (found,) = build_search(CtcBeamConfig(beam=400, n_best=400), 0.04)(frames)
    paths = itertools.product(range(3), repeat=time)
    readings = {tuple(s for s, _ in itertools.groupby(path) if s) for path in paths}
    assert {r.tokens for r in found} == readings
    assert sum(math.exp(r.score) for r in found) == pytest.approx(1.0, abs=1e-9)
    for reading in found:
        loss = ctc_loss(frames, pad([torch.tensor(reading.tokens, dtype=torch.int64)]))
        assert -loss.item() == pytest.approx(reading.score, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_beam_scores_never_exceed_the_exact_ones(seed: int) -> None:
    frames = Padded(batch(1, 12, 6, seed).values, torch.tensor([12]))
    for width in (1, 2, 8):
        (found,) = build_search(CtcBeamConfig(beam=width, n_best=width), 0.04)(frames)
        for reading in found:
            exact = -ctc_loss(frames, pad([torch.tensor(reading.tokens, dtype=torch.int64)])).item()
            assert reading.score <= exact + 1e-9
