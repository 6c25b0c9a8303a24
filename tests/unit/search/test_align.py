"""Forced alignment against every path, and its errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from firstwords.errors import SearchError
from firstwords.search.align import align, align_many
from firstwords.search.greedy import greedy_search
from firstwords.tensors import Padded


def random_frames(frames: int, vocabulary: int, seed: int) -> np.ndarray:
    values = torch.randn(frames, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2
    return values.double().log_softmax(-1).numpy()


def best_path(log_probs: np.ndarray, tokens: tuple[int, ...]) -> tuple[tuple[int, ...], float]:
    """Look at every path."""
    frames, vocabulary = log_probs.shape
    best: tuple[tuple[int, ...], float] = ((), -np.inf)
    for path in itertools.product(range(vocabulary), repeat=frames):
        if tuple(s for s, _ in itertools.groupby(path) if s) == tokens:
            score = sum(log_probs[t, s] for t, s in enumerate(path))
            if score > best[1]:
                best = path, score
    return best


@pytest.mark.parametrize("tokens", [(), (1,), (2, 1), (1, 1), (1, 2, 2), (2, 2, 2), (1, 2, 1, 2)])
@pytest.mark.parametrize("seed", [0, 1])
def test_best_of_all_paths(tokens: tuple[int, ...], seed: int) -> None:
    frames = random_frames(6, 3, seed)
    path, score = best_path(frames, tokens)
    found = align(frames, tokens)
    assert found.path == path
    assert found.score == pytest.approx(score, abs=1e-12)
    assert found.tokens == tokens
    for token, first, last in zip(tokens, found.first, found.last, strict=True):
        assert set(path[first : last + 1]) == {token}


def test_several_sequences_at_once_are_the_same_as_one_by_one() -> None:
    frames = random_frames(9, 4, 5)
    sequences = [(1, 2, 3), (), (3, 3), (1, 1, 1, 1), (2,)]
    assert align_many(frames, sequences) == [align(frames, tokens) for tokens in sequences]
    assert align_many(frames, []) == []


def test_equal_neighbours_are_two_tokens() -> None:
    frames = np.log(np.array([[0.1, 0.9], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]))
    found = align(frames, [1, 1])
    assert (found.first, found.last) == ((0, 2), (0, 3))
    assert found.confidences == pytest.approx((0.9, 0.8))


def test_greedy_reading_aligns_to_its_own_path() -> None:
    frames = random_frames(40, 8, 2)
    (reading,) = greedy_search(Padded(torch.from_numpy(frames)[None], torch.tensor([40])), frame_seconds=1.0)
    found = align(frames, reading.tokens)
    assert found.score == pytest.approx(reading.score, rel=1e-6)
    assert reading.times == tuple(float(f) for f in found.first)
    assert reading.ends == tuple(float(f + 1) for f in found.last)
    assert reading.confidences == pytest.approx(found.confidences, rel=1e-6)


def test_tensors_are_welcome() -> None:
    frames = random_frames(5, 3, 0)
    assert align(torch.from_numpy(frames), [1]) == align(frames, [1])


def test_silence() -> None:
    assert align(np.zeros((0, 3)), []).path == ()
    assert align(random_frames(3, 3, 0), []).path == (0, 0, 0)


def test_too_few_frames_name_the_utterance_and_the_numbers() -> None:
    with pytest.raises(
        SearchError, match="'ex_7': 3 tokens need at least 4 frames, the audio has 3"
    ) as caught:
        align(random_frames(3, 4, 0), [1, 1, 2], name="'ex_7'")
    assert caught.value.mend
    with pytest.raises(SearchError, match="need at least 1 frames, the audio has 0"):
        align(np.zeros((0, 3)), [1])


@pytest.mark.parametrize("token", [0, 4, -1])
def test_ids_outside_the_vocabulary(token: int) -> None:
    with pytest.raises(SearchError, match=f"token {token} cannot be aligned"):
        align(random_frames(5, 4, 0), [1, token])


def test_zero_probability_is_an_error() -> None:
    frames = random_frames(4, 3, 0)
    frames[:, 2] = -np.inf
    with pytest.raises(SearchError, match="probability 0"):
        align(frames, [1, 2])
