"""A transducer's stream gives what its greedy search gives, however frames are cut and tokens taken."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
from firstwords.heads.transducer.predictor import LstmConfig, StatelessConfig
from firstwords.search.fusion import Weighted
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import TransducerGreedyConfig
from firstwords.search.transducer_greedy import TransducerGreedySearch, TransducerGreedyStream
from firstwords.tensors import Padded
from toy_scorers import TrigramScorer

DIM, VOCABULARY, FRAME = 6, 5, 0.04
KINDS = {
    "stateless": TransducerConfig(predictor=StatelessConfig(dim=8), joiner_dim=5),
    "lstm": TransducerConfig(predictor=LstmConfig(dim=8), joiner_dim=5),
    "durations": TransducerConfig(
        predictor=StatelessConfig(dim=8), joiner_dim=5, loss="full", durations=(0, 1, 3)
    ),
}


def head_of(kind: str, seed: int) -> TransducerHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = TransducerHead(KINDS[kind], DIM, VOCABULARY).double().eval()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.mul_(3)  # far from uniform
    return head


def frames_of(time: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(time, DIM, generator=generator, dtype=torch.float64)


def helpers(helped: bool) -> tuple[Weighted, ...]:
    return (Weighted("lm", 0.7, TrigramScorer(VOCABULARY, 3)),) if helped else ()


def whole(config: TransducerGreedyConfig, head: TransducerHead, frames: Tensor, helped: bool) -> Hypothesis:
    search = TransducerGreedySearch(config, head, FRAME, helpers(helped))
    ((found,),) = search(Padded(frames[None], torch.tensor([len(frames)])))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("helped", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    time=st.integers(1, 30),
    seed=st.integers(0, 2**16),
    most=st.sampled_from([None, 3]),
    cuts=st.lists(st.integers(0, 30), max_size=6),
    taken=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_a_stream_reads_what_the_whole_search_reads(
    kind: str, helped: bool, time: int, seed: int, most: int | None, cuts: list[int], taken: list[int]
) -> None:
    head, frames = head_of(kind, seed), frames_of(time, seed)
    config = TransducerGreedyConfig(symbols_per_frame=most) if most else TransducerGreedyConfig()
    stream = TransducerGreedyStream(config, head, FRAME, helpers(helped))
    parts: list[Hypothesis] = []
    marks = [0, *sorted(min(cut, time) for cut in cuts), time]
    for (start, end), some in zip(itertools.pairwise(marks), taken, strict=False):
        stream.advance(frames[start:end])
        assert stream.frames == end
        assert stream.stable() == len(stream.best().tokens)
        parts.append(stream.commit(min(some, stream.stable())))
    parts.append(stream.commit(stream.stable()))
    assert stream.best().tokens == ()
    expected = whole(config, head, frames, helped)
    assert tuple(itertools.chain.from_iterable(part.tokens for part in parts)) == expected.tokens
    assert sum((part.times for part in parts), ()) == pytest.approx(expected.times)
    own = sum(part.parts["transducer"] for part in parts)
    assert own == pytest.approx(expected.parts["transducer"], abs=1e-4)
    if helped:  # the end of the sentence is no part of a stream
        scorer = TrigramScorer(VOCABULARY, 3)
        before, last, share = 0, 0, 0.0
        for token in expected.tokens:
            share += 0.7 * float(scorer.table[before, last, token])
            before, last = last, token
        assert sum(part.parts["lm"] for part in parts) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_diverged_model_is_named(kind: str) -> None:
    head = head_of(kind, 1)
    with torch.no_grad():
        head.joiner.output.bias[1] = math.nan
    frames = frames_of(4, 2)
    with pytest.raises(SearchError, match="not numbers"):
        whole(TransducerGreedyConfig(), head, frames, False)
    with pytest.raises(SearchError, match="not numbers"):
        TransducerGreedyStream(TransducerGreedyConfig(), head, FRAME).advance(frames)
