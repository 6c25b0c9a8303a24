"""Streaming searches give what the searches of the whole give, however the frames are cut."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.search.ctc_streams import CtcBeamStream, StreamingSearch
from firstwords.search.search import CtcBeamConfig, GreedyConfig, build_search
from firstwords.search.streaming import build_streaming_search
from firstwords.tensors import Padded

CONFIGS = [
    GreedyConfig(),
    CtcBeamConfig(beam=6),
    CtcBeamConfig(beam=3, tokens_per_frame=3, blank_penalty=0.5, token_threshold=0.01),
]


def frames_of(time: int, vocabulary: int, seed: int) -> Tensor:
    """Runs and blanks as a CTC model gives them, with some doubt."""
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.randint(0, vocabulary, (time // 2 + 1,), generator=generator)
    symbols[torch.rand(len(symbols), generator=generator) < 0.4] = 0
    path = symbols.repeat_interleave(torch.randint(1, 4, (len(symbols),), generator=generator))[:time]
    values = 1.5 * torch.randn(time, vocabulary, generator=generator)
    values[torch.arange(len(path)), path] += 3
    return values.log_softmax(-1)


def stream(config: GreedyConfig | CtcBeamConfig) -> StreamingSearch:
    return build_streaming_search(config, lambda scored: scored, 0.04)


@pytest.mark.parametrize("config", CONFIGS, ids=["greedy", "beam", "pruned beam"])
@settings(max_examples=30, deadline=None)
@given(
    time=st.integers(0, 50),
    vocabulary=st.integers(2, 9),
    seed=st.integers(0, 2**16),
    cuts=st.lists(st.integers(0, 50), max_size=8),
)
def test_a_stream_reads_what_the_whole_search_reads(
    config: GreedyConfig | CtcBeamConfig, time: int, vocabulary: int, seed: int, cuts: list[int]
) -> None:
    log_probs = frames_of(time, vocabulary, seed)
    search, fixed = stream(config), ()
    for start, end in itertools.pairwise([0, *sorted(min(c, time) for c in cuts), time]):
        search.advance(log_probs[start:end])
        assert search.frames == end
        now = search.best().tokens
        assert now[: len(fixed)] == fixed, "what was called stable has changed"
        fixed = now[: search.stable()]
    ours = search.best()
    theirs = build_search(config, 0.04)(Padded(log_probs[None], torch.tensor([time])))[0][0]
    assert ours.tokens == theirs.tokens
    assert ours.times == pytest.approx(theirs.times)
    assert ours.ends == pytest.approx(theirs.ends)
    assert ours.confidences == pytest.approx(theirs.confidences, abs=1e-6)
    if isinstance(config, GreedyConfig):
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)
        assert search.stable() == len(ours.tokens)


@pytest.mark.parametrize("config", CONFIGS, ids=["greedy", "beam", "pruned beam"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), shares=st.lists(st.floats(0, 1), min_size=10, max_size=10))
@example(seed=725, shares=[0.0] * 10)
def test_what_is_committed_and_what_goes_on_are_the_whole(
    config: GreedyConfig | CtcBeamConfig, seed: int, shares: list[float]
) -> None:
    """A beam commits what is stable here: having committed more, it may end in another reading."""
    log_probs = frames_of(60, 6, seed)
    search, tokens, times, score = stream(config), (), (), 0.0
    for part, share in zip(log_probs.split(6), shares, strict=True):
        search.advance(part)
        count = int(share * search.stable())
        if not search.best().tokens:
            continue  # 0 of an empty reading is all of it, and that is not stable
        found = search.commit(count)
        tokens, times, score = tokens + found.tokens, times + (found.times or ()), score + found.score
    rest = search.commit(len(search.best().tokens))
    assert search.best().tokens == ()
    whole = build_search(config, 0.04)(Padded(log_probs[None], torch.tensor([60])))[0][0]
    assert tokens + rest.tokens == whole.tokens
    assert list(times + (rest.times or ())) == sorted(times + (rest.times or ()))
    if isinstance(config, GreedyConfig):
        assert times + (rest.times or ()) == pytest.approx(whole.times)
        assert score + rest.score == pytest.approx(whole.score, abs=1e-4)


@pytest.mark.parametrize("config", CONFIGS, ids=["greedy", "beam", "pruned beam"])
def test_a_token_that_goes_on_after_its_commit_is_not_read_twice(
    config: GreedyConfig | CtcBeamConfig,
) -> None:
    path = torch.tensor([0, 1, 1, 1, 1, 0, 1, 2])
    log_probs = (8 * torch.nn.functional.one_hot(path, 3).float()).log_softmax(-1)
    search = stream(config)
    search.advance(log_probs[:3])
    assert search.commit(1).tokens == (1,)
    search.advance(log_probs[3:])
    rest = search.commit(2)
    assert rest.tokens == (1, 2)
    assert rest.times == pytest.approx((0.24, 0.28))
    assert rest.ends == pytest.approx((0.28, 0.32))


def test_a_beam_holds_only_what_is_not_committed() -> None:
    search = stream(CtcBeamConfig(beam=4))
    for _ in range(50):
        search.advance(frames_of(40, 6, 1))
        search.commit(len(search.best().tokens))
    assert isinstance(search, CtcBeamStream)
    assert sum(map(len, search._held)) <= 1
    assert len(search._beam._tree.tokens) == len(search._beam.nodes) == 1
    assert search.frames == 2000


def test_numbers_that_are_none_are_named() -> None:
    with pytest.raises(SearchError, match=r"from 0\.0 s on"):
        stream(CtcBeamConfig()).advance(torch.full((2, 4), float("nan")))
