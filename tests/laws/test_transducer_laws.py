"""Laws of heads and searches, for transducers.

The loss is the sum over all alignments, its gradient that of the sum, and neither the rest of the batch nor
padding matters; a beam wide enough is exhaustive search.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
from firstwords.heads.transducer.lattice import Topology
from firstwords.heads.transducer.predictor import LstmConfig, StatelessConfig
from firstwords.heads.transducer.rnnt import rnnt_loss
from firstwords.search.search import TransducerBeamConfig, TransducerGreedyConfig, build_encoded_search
from firstwords.tensors import Padded, pad

DIM, VOCABULARY = 6, 4
SMALL = TransducerConfig(predictor=StatelessConfig(dim=8), joiner_dim=5)
KINDS = {
    "pruned": SMALL,
    "two rows": SMALL.with_(prune_range=2),
    "full": SMALL.with_(loss="full"),
    "lstm": SMALL.with_(predictor=LstmConfig(dim=7, layers=2, dropout=0.0)),
    "one token of context": SMALL.with_(predictor=StatelessConfig(dim=7, context=1)),
    "smoothed": SMALL.with_(am_scale=0.1),
    "modified": SMALL.with_(topology="modified"),
    "constrained": SMALL.with_(topology="constrained", loss="full"),
}
TOPOLOGIES: tuple[Topology, ...] = ("regular", "modified", "constrained")


def make(config: TransducerConfig, seed: int = 0) -> TransducerHead:
    torch.manual_seed(seed)
    head = TransducerHead(config, DIM, VOCABULARY)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(2.0)  # far from uniform
    return head.eval()


def paths(frames: int, tokens: int, topology: Topology) -> Iterator[list[tuple[int, int, bool]]]:
    """Every path as its arcs (frame, tokens written, whether it writes one)."""

    def go(t: int, u: int) -> Iterator[list[tuple[int, int, bool]]]:
        if t == frames:
            if u == tokens:
                yield []
            return
        for rest in go(t + 1, u):
            yield [(t, u, False), *rest]
        if u < tokens:
            for rest in go(t if topology == "regular" else t + 1, u + 1):
                after = [(t, u + 1, False)] if topology == "constrained" else []
                yield [(t, u, True), *after, *rest]

    return go(0, 0)


def brute_force(log_probs: Tensor, target: list[int], topology: Topology) -> float:
    """-log of the summed probability of all paths; log_probs (T, U + 1, V)."""
    total = 0.0
    for path in paths(log_probs.shape[0], len(target), topology):
        total += math.exp(sum(float(log_probs[t, u, target[u] if writes else 0]) for t, u, writes in path))
    return -math.log(total) if total else math.inf


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_loss_is_the_sum_over_all_alignments(frames: int, topology: Topology) -> None:
    generator = torch.Generator().manual_seed(frames)
    for tokens in range(4):
        logits = torch.randn(1, frames, tokens + 1, 5, generator=generator, dtype=torch.float64)
        target = torch.randint(1, 5, (tokens,), generator=generator)
        loss = rnnt_loss(logits, torch.tensor([frames]), pad([target]), topology=topology)
        expected = brute_force(logits[0].log_softmax(-1), target.tolist(), topology)
        assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["full", "constrained"])
def test_the_heads_loss_is_that_sum_too(kind: str) -> None:
    head = make(KINDS[kind]).double()
    encoded, target = torch.randn(1, 4, DIM, dtype=torch.float64), torch.tensor([2, 2, 1])
    loss = head.loss(Padded(encoded, torch.tensor([4])), pad([target]))
    logits = head.joiner(encoded[:, :, None], head.predictor(pad([target]))[:, None]).detach()
    expected = brute_force(logits[0].log_softmax(-1), target.tolist(), KINDS[kind].topology)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("topology", ["regular", "modified"])
def test_ranges_that_prune_nothing_give_the_full_loss(topology: Topology) -> None:
    head = make(SMALL.with_(prune_range=9, topology=topology)).double()
    encoded = Padded(torch.randn(2, 6, DIM, dtype=torch.float64), torch.tensor([6, 4]))
    targets = pad([torch.tensor([1, 3, 3, 2]), torch.tensor([2])])
    _, pruned = head.both_losses(encoded, targets)
    logits = head.joiner(encoded.values[:, :, None], head.predictor(targets)[:, None])
    torch.testing.assert_close(pruned, rnnt_loss(logits, encoded.lengths, targets, topology=topology))


@pytest.mark.parametrize("topology", TOPOLOGIES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), width=st.integers(2, 5))
def test_pruned_paths_are_some_of_all_paths(topology: Topology, seed: int, width: int) -> None:
    head = make(SMALL.with_(prune_range=width, topology=topology), seed).double()
    encoded = Padded(3.0 * torch.randn(4, 7, DIM, dtype=torch.float64), torch.tensor([7, 1, 3, 6]))
    targets = pad([torch.randint(1, VOCABULARY, (n,)) for n in (6, 5, 0, 6)])
    _, pruned = head.both_losses(encoded, targets)
    logits = head.joiner(encoded.values[:, :, None], head.predictor(targets)[:, None])
    full = rnnt_loss(logits, encoded.lengths, targets, topology=topology)
    assert torch.equal(pruned.isfinite(), full.isfinite())
    assert bool((pruned >= full - 1e-9).all())


@pytest.mark.parametrize("name", KINDS)
def test_gradients_pass_a_numerical_check(name: str) -> None:
    head = make(KINDS[name]).double()
    targets = pad([torch.tensor([1, 1, 2]), torch.tensor([3]), torch.tensor([], dtype=torch.int64)])
    lengths = torch.tensor([5, 4, 2])
    encoded = torch.randn(3, 5, DIM, dtype=torch.float64, requires_grad=True)
    parameters = dict(head.named_parameters())

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, values: Tensor) -> Tensor:
            return head.loss(Padded(values, lengths), targets)

    def loss(values: Tensor, *weights: Tensor) -> Tensor:
        named = {f"head.{name}": weight for name, weight in zip(parameters, weights, strict=True)}
        return torch.func.functional_call(Loss(), named, (values,))

    weights = tuple(p.detach().clone().requires_grad_() for p in parameters.values())
    assert torch.autograd.gradcheck(loss, (encoded, *weights), fast_mode=True)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=10, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(1, 3), max_size=4), min_size=1, max_size=4), seed=st.integers(0, 99)
)
def test_the_rest_of_the_batch_and_its_padding_do_not_matter(
    name: str, rows: list[list[int]], seed: int
) -> None:
    head, generator = make(KINDS[name], seed), torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (len(rows),), generator=generator)
    values = torch.randn(len(rows), 10, DIM, generator=generator)
    for row, n in enumerate(lengths.tolist()):
        values[row, n:] = 1e4
    values.requires_grad_()
    targets = pad([torch.tensor(row, dtype=torch.int64) for row in rows], least=6)
    together = head.loss(Padded(values, lengths), targets)
    together[together.isfinite()].sum().backward()
    for row, tokens in enumerate(rows):
        n = int(lengths[row])
        own = values[row : row + 1, :n].detach().clone().requires_grad_()
        alone = head.loss(Padded(own, lengths[row : row + 1]), pad([torch.tensor(tokens, dtype=torch.int64)]))
        torch.testing.assert_close(alone[0], together[row])
        if alone.isfinite().all():
            alone.sum().backward()
            assert own.grad is not None
            assert values.grad is not None
            torch.testing.assert_close(values.grad[row, :n], own.grad[0])
            assert not values.grad[row, n:].any()


def test_without_a_path_the_loss_is_inf_and_the_gradient_zero() -> None:
    head = make(KINDS["modified"])
    encoded = torch.randn(3, 3, DIM, requires_grad=True)
    targets = pad([torch.tensor([1, 2]), torch.tensor([1, 2, 3, 1]), torch.tensor([2])])
    loss = head.loss(Padded(encoded, torch.tensor([3, 3, 0])), targets)
    assert loss.isinf().tolist() == [False, True, True]
    loss.masked_fill(loss.isinf(), 0.0).sum().backward()
    assert encoded.grad is not None
    assert bool(encoded.grad[0].any())
    assert not encoded.grad[1:].any()


def test_mixture_follows_the_count_in_training_alone() -> None:
    head = TransducerHead(SMALL, DIM, VOCABULARY)
    assert head.mixture == (0.5, 1.0)
    for count, simple, pruned in ((0.0, 1.0, 0.1), (1000.0, 0.75, 0.55), (2000.0, 0.5, 1.0), (9e9, 0.5, 1.0)):
        head.train().set_step(count)
        assert head.mixture == (pytest.approx(simple), pytest.approx(pruned))
        assert head.eval().mixture == (0.5, 1.0)


# Searches


def frames(seed: int, rows: int = 3, longest: int = 9) -> Padded:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, longest + 1, (rows,), generator=generator)
    return Padded(2.0 * torch.randn(rows, longest, DIM, generator=generator), lengths)


SEARCHES = [
    TransducerGreedyConfig(),
    TransducerGreedyConfig(symbols_per_frame=3),
    TransducerBeamConfig(),
    TransducerBeamConfig(beam=2, n_best=1, length_normalized=False),
]


@pytest.mark.parametrize("name", ["pruned", "lstm", "one token of context"])
@pytest.mark.parametrize("config", SEARCHES, ids=lambda c: c.kind)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_what_every_search_promises(
    config: TransducerGreedyConfig | TransducerBeamConfig, name: str, seed: int
) -> None:
    head, encoded = make(KINDS[name], seed), frames(seed)
    search = build_encoded_search(config, {"transducer": head}, 0.04)
    found = search(encoded)
    for row, readings in enumerate(found):
        length = int(encoded.lengths[row])
        assert readings
        assert len({r.tokens for r in readings}) == len(readings)
        alone = search(Padded(encoded.values[row : row + 1, :length], encoded.lengths[row : row + 1]))[0]
        assert [r.tokens for r in alone] == [r.tokens for r in readings]
        for reading in readings:
            assert reading.score == pytest.approx(sum(reading.parts.values()))
            assert 0 not in reading.tokens
            assert reading.times is not None
            assert reading.ends is not None
            assert reading.confidences is not None
            assert len(reading.times) == len(reading.ends) == len(reading.confidences) == len(reading.tokens)
            assert all(0 <= c <= 1 for c in reading.confidences)
            moments = list(itertools.chain(*zip(reading.times, reading.ends, strict=True)))
            assert moments == sorted(moments)
            assert all(0 <= m <= length * 0.04 + 1e-9 for m in moments)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_beam_one_with_one_symbol_per_frame_is_greedy(seed: int) -> None:
    head, encoded = make(SMALL, seed), frames(seed)
    greedy = build_encoded_search(TransducerGreedyConfig(), {"transducer": head}, 0.04)(encoded)
    beam = build_encoded_search(TransducerBeamConfig(beam=1), {"transducer": head}, 0.04)(encoded)
    for (one,), (other,) in zip(greedy, beam, strict=True):
        assert one.tokens == other.tokens
        assert one.times == other.times
        assert one.score == pytest.approx(other.score, rel=1e-5, abs=1e-5)
        assert one.confidences == pytest.approx(other.confidences)


@pytest.mark.parametrize("time", [1, 2, 4])
def test_a_wide_beam_is_exhaustive_search(time: int) -> None:
    head = make(SMALL, time).double()
    encoded = Padded(torch.randn(1, time, DIM, dtype=torch.float64), torch.tensor([time]))
    config = TransducerBeamConfig(beam=4**time, n_best=4**time, length_normalized=False)
    (found,) = build_encoded_search(config, {"transducer": head}, 0.04)(encoded)
    readings = {s for n in range(time + 1) for s in itertools.product(range(1, VOCABULARY), repeat=n)}
    assert {r.tokens for r in found} == readings
    assert sum(math.exp(r.score) for r in found) == pytest.approx(1.0, abs=1e-9)
    for reading in found:
        target = pad([torch.tensor(reading.tokens, dtype=torch.int64)])
        logits = head.joiner(encoded.values[:, :, None], head.predictor(target)[:, None])
        loss = rnnt_loss(logits, encoded.lengths, target, topology="modified")
        assert -loss.item() == pytest.approx(reading.score, abs=1e-9)


def test_greedy_writes_as_a_loop_would() -> None:
    """Three symbols per frame, one utterance, written out plainly."""
    head, encoded = make(SMALL, 5), frames(5, rows=1, longest=12)
    encoded = Padded(encoded.values, torch.tensor([12]))
    config = TransducerGreedyConfig(symbols_per_frame=3)
    (found,) = build_encoded_search(config, {"transducer": head}, 1.0)(encoded)[0]
    tokens: list[int] = []
    times: list[float] = []
    score = 0.0
    for t in range(12):
        for _ in range(3):
            history = head.predictor(pad([torch.tensor(tokens, dtype=torch.int64)]))[:, -1]
            log_probs = head.joiner(encoded.values[:, t], history).log_softmax(-1)[0].detach()
            symbol = int(log_probs.argmax())
            score += float(log_probs[symbol])
            if symbol == 0:
                break
            tokens.append(symbol)
            times.append(float(t))
    assert len(tokens) > 1
    assert found.tokens == tuple(tokens)
    assert found.times == tuple(times)
    assert found.score == pytest.approx(score, rel=1e-5)
