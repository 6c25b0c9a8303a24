"""Laws of heads: the loss is the brute-force sum over all alignments; gradients are those of that sum.

A head that writes token by token has no alignments: its loss is -sum log P(token | tokens before), asked of
its own scorer, and all its sentences together have probability one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firstwords.heads.attention.speller import SpellerConfig, SpellerHead
from firstwords.heads.attention.transformer import TransformerDecoderConfig, TransformerDecoderHead
from firstwords.heads.ctc import CtcConfig, CtcHead, ctc_loss
from firstwords.heads.head import TokenHead
from firstwords.model import kinds
from firstwords.tensors import Padded, pad

DIM, VOCABULARY = 4, 4


def speller(**settings: object) -> SpellerHead:
    return SpellerHead(SpellerConfig.model_validate({"width": 6} | settings), DIM, VOCABULARY)


def decoder(**settings: object) -> TransformerDecoderHead:
    base = {"width": 6, "heads": 3, "feedforward": 8}
    return TransformerDecoderHead(TransformerDecoderConfig.model_validate(base | settings), DIM, VOCABULARY)


def fusion(kind: str, network: str) -> dict[str, object]:
    """With a language model of random weights."""
    sizes = {"lstm": {"dim": 4}, "transformer": {"dim": 4, "heads": 2, "layers": 2, "feedforward": 6}}
    return {"kind": kind, "width": 5, "network": {"kind": network} | sizes[network], "units": VOCABULARY}


TOKEN_HEADS: dict[str, Callable[[], TokenHead]] = {
    "speller": speller,
    "speller, dot": lambda: speller(attention={"kind": "dot", "heads": 2}, layers=1),
    "speller, additive": lambda: speller(attention={"kind": "additive"}),
    "speller, accumulating": lambda: speller(attention={"kind": "location", "accumulate": True}),
    "speller, cold fusion": lambda: speller(fusion=fusion("cold", "lstm")),
    "speller, deep fusion": lambda: speller(fusion=fusion("deep", "transformer")),
    "transformer_decoder": decoder,
    "transformer_decoder, cold fusion": lambda: decoder(fusion=fusion("cold", "transformer")),
    "transformer_decoder, deep fusion": lambda: decoder(fusion=fusion("deep", "lstm")),
    "transformer_decoder, post": lambda: decoder(norm="post", positions="learned", activation="gelu"),
}


def test_every_kind_obeys_these_laws() -> None:
    # those of the transducer are in test_transducer_laws.py
    assert {"ctc", "transducer"} | {name.partition(",")[0] for name in TOKEN_HEADS} == set(kinds.HEADS)


def make(name: str) -> TokenHead:
    torch.manual_seed(2)
    return TOKEN_HEADS[name]().double().eval()


def utterances(*lengths: int) -> Padded:
    generator = torch.Generator().manual_seed(6)
    return pad([torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in lengths])


@pytest.mark.parametrize("name", TOKEN_HEADS)
def test_token_loss_is_the_sum_over_its_tokens(name: str) -> None:
    """Teacher-forced all at once = the scorer token by token; with a cache: cache = full pass."""
    head, encoded = make(name), utterances(7, 5)
    targets = pad([torch.tensor([3, 1, 1, 2, 3]), torch.tensor([2, 2])])
    losses = head.loss(encoded, targets).tolist()
    torch.testing.assert_close(head.log_likelihood(encoded, targets), -head.loss(encoded, targets))
    scorer = head.scorer(encoded)
    state, last = scorer.start(2), torch.tensor([0, 0])
    found = [0.0, 0.0]
    said = [[3, 1, 1, 2, 3, 0], [2, 2, 0]]
    for step in range(6):
        scores, state = scorer.score(last, state)
        assert scores.exp().sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
        for row in range(2):
            if step < len(said[row]):
                found[row] -= scores[row, said[row][step]].item()
        last = torch.tensor([tokens[step] if step < len(tokens) - 1 else 1 for tokens in said])
    assert losses == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", TOKEN_HEADS)
def test_a_batch_without_utterances_has_no_losses(name: str, training: bool) -> None:
    head = make(name).train(training)
    frames = torch.zeros(0, 5, DIM, dtype=torch.float64, requires_grad=True)
    for tokens in (0, 2):
        nobody = Padded(torch.zeros(0, tokens, dtype=torch.long), torch.zeros(0, dtype=torch.long))
        loss = head.loss(Padded(frames, torch.zeros(0, dtype=torch.long)), nobody)
        loss.sum().backward()
        assert loss.shape == (0,)


@pytest.mark.parametrize("name", TOKEN_HEADS)
def test_all_sentences_together_have_probability_one(name: str) -> None:
    """Sentences of up to two tokens, and the beginnings of all longer ones."""
    head, encoded = make(name), utterances(5)
    total = 0.0
    for length in range(3):
        for tokens in itertools.product((1, 2, 3), repeat=length):
            loss = head.loss(encoded, pad([torch.tensor(tokens, dtype=torch.int64)]))
            total += math.exp(-loss.item())
    scorer = head.scorer(encoded)
    state, begun = scorer.start(1), torch.zeros(1, dtype=torch.float64)
    last = torch.tensor([0])
    for _ in range(3):
        scores, state = scorer.score(last, state)
        rows = len(begun)
        begun = (begun[:, None] + scores[:, 1:]).flatten()
        state = scorer.reorder(state, torch.arange(rows).repeat_interleave(3))
        last = torch.arange(1, 4).repeat(rows)
    assert total + begun.exp().sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", TOKEN_HEADS)
def test_reorder_commutes_with_score(name: str) -> None:
    head, encoded = make(name), utterances(6, 3)
    scorer = head.scorer(encoded)
    state = scorer.reorder(scorer.start(2), torch.tensor([0, 0, 1, 1]))
    _, state = scorer.score(torch.tensor([0, 0, 0, 0]), state)
    _, state = scorer.score(torch.tensor([1, 2, 3, 1]), state)
    kept = torch.tensor([1, 1, 0, 3, 2, 2])  # rows stay with their utterance
    before, _ = scorer.score(torch.tensor([3, 2, 2, 1]), state)
    after, _ = scorer.score(torch.tensor([2, 2, 3, 1, 2, 2]), scorer.reorder(state, kept))
    torch.testing.assert_close(after, before[kept])


@pytest.mark.parametrize("name", TOKEN_HEADS)
def test_neighbours_and_padding_do_not_change_a_token_loss(name: str) -> None:
    head, encoded = make(name), utterances(9, 4, 6)
    rows = [[1, 2, 3, 3, 1], [2], []]
    targets = pad([torch.tensor(row, dtype=torch.int64) for row in rows])
    together = head.loss(encoded, targets)
    for row, n in enumerate((9, 4, 6)):
        alone = head.loss(
            Padded(encoded.values[row : row + 1, :n], encoded.lengths[row : row + 1]),
            pad([torch.tensor(rows[row], dtype=torch.int64)]),
        )
        torch.testing.assert_close(alone[0], together[row])


@pytest.mark.parametrize("name", TOKEN_HEADS)
def test_token_gradients_pass_a_numerical_check(name: str) -> None:
    head, encoded = make(name), utterances(4, 2)
    targets = pad([torch.tensor([2, 1]), torch.tensor([3])])
    hidden = Padded(encoded.values.requires_grad_(), encoded.lengths)
    weight = head.get_parameter("output.weight")

    def loss(values: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(
            Losses(head), {"head.output.weight": output}, (values, hidden.lengths, targets)
        )

    assert torch.autograd.gradcheck(loss, (hidden.values, weight.detach().requires_grad_()), fast_mode=True)


class Losses(torch.nn.Module):
    """A head's loss as a call, so that its parameters can be replaced."""

    def __init__(self, head: TokenHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, values: torch.Tensor, lengths: torch.Tensor, targets: Padded) -> torch.Tensor:
        return self.head.loss(Padded(values, lengths), targets)


def reads_as(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != 0)


def brute_force(log_probs: torch.Tensor, tokens: tuple[int, ...]) -> float:
    """-log of the summed probability of every path that reads as ``tokens``."""
    frames, vocabulary = log_probs.shape
    total = 0.0
    for path in itertools.product(range(vocabulary), repeat=frames):
        if reads_as(path) == tokens:
            total += math.exp(sum(float(log_probs[t, s]) for t, s in enumerate(path)))
    return -math.log(total) if total else math.inf


@pytest.mark.parametrize("seed", range(4))
def test_ctc_loss_is_the_sum_over_all_alignments(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(1, 5, 3, generator=generator, dtype=torch.float64).log_softmax(-1)
    batch = Padded(log_probs, torch.tensor([5]))
    for length in range(5):
        for tokens in itertools.product((1, 2), repeat=length):
            loss = ctc_loss(batch, pad([torch.tensor(tokens, dtype=torch.int64)]))
            assert loss.item() == pytest.approx(brute_force(log_probs[0], tokens), rel=1e-9)


def test_every_reading_together_has_probability_one() -> None:
    log_probs = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(9)).double().log_softmax(-1)
    readings = {reads_as(path) for path in itertools.product(range(3), repeat=4)}
    total = 0.0
    for tokens in readings:
        loss = ctc_loss(Padded(log_probs, torch.tensor([4])), pad([torch.tensor(tokens, dtype=torch.int64)]))
        total += math.exp(-loss.item())
    assert total == pytest.approx(1.0, abs=1e-12)


def test_gradients_pass_a_numerical_check() -> None:
    torch.manual_seed(0)
    head = CtcHead(CtcConfig(dropout=0.0), 4, 5).double()
    targets = pad([torch.tensor([1, 1, 2]), torch.tensor([4]), torch.tensor([], dtype=torch.int64)])
    lengths = torch.tensor([6, 4, 3])
    encoded = torch.randn(3, 6, 4, dtype=torch.float64, requires_grad=True)

    def loss(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        head.projection.weight.data, head.projection.bias.data = weight, bias
        log_probs = (values @ weight.T + bias).log_softmax(-1)
        direct = head.loss_from_log_probs(Padded(log_probs, lengths), targets)
        torch.testing.assert_close(direct, head.loss(Padded(values, lengths), targets))
        return direct

    inputs = (
        encoded,
        head.projection.weight.detach().clone().requires_grad_(),
        head.projection.bias.detach().clone().requires_grad_(),
    )
    assert torch.autograd.gradcheck(loss, inputs)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 3), max_size=4), min_size=1, max_size=4), st.integers(0, 2**16))
def test_the_rest_of_the_batch_and_its_padding_do_not_matter(rows: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    head = CtcHead(CtcConfig(), 6, 4).eval()
    lengths = torch.randint(1, 9, (len(rows),), generator=generator)
    time = int(lengths.max())
    values = torch.randn(len(rows), time, 6, generator=generator)
    targets = pad([torch.tensor(row, dtype=torch.int64) for row in rows])
    together = head.loss(Padded(values, lengths), targets)
    for row, tokens in enumerate(rows):
        n = int(lengths[row])
        alone = head.loss(
            Padded(values[row : row + 1, :n], lengths[row : row + 1]),
            pad([torch.tensor(tokens, dtype=torch.int64)]),
        )
        torch.testing.assert_close(alone[0], together[row])
