"""Token-and-duration transducers: loss against all paths one by one, gradients, greedy search, settings."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from firstwords.config import parse_config
from firstwords.errors import ConfigError
from firstwords.heads.transducer import joiner as joining
from firstwords.heads.transducer.durations import tdt_loss
from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
from firstwords.heads.transducer.lattice import sum_paths
from firstwords.heads.transducer.predictor import LstmConfig, StatelessConfig
from firstwords.model.recipe import Recipe
from firstwords.search.search import TransducerGreedyConfig, build_encoded_search
from firstwords.tensors import Padded, pad

DIM, VOCABULARY = 6, 4
DURATIONS = [(0, 1, 2), (1, 2, 3), (0, 1, 4), (1,), (0, 1)]


def config(durations: tuple[int, ...], **changes: object) -> TransducerConfig:
    plain = TransducerConfig(predictor=StatelessConfig(dim=8), joiner_dim=5, loss="full")
    return plain.with_(durations=durations, **changes)


def make(durations: tuple[int, ...], seed: int = 0, **changes: object) -> TransducerHead:
    torch.manual_seed(seed)
    head = TransducerHead(config(durations, **changes), DIM, VOCABULARY)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(2.5)  # far from uniform
    return head.eval()


def paths(
    frames: int, tokens: int, durations: tuple[int, ...], t: int = 0, u: int = 0
) -> Iterator[list[tuple[int, int, bool, int]]]:
    """Every path as its arcs: frame, tokens written, whether it writes one, place of its duration."""
    for place, d in enumerate(durations):
        if d and t + d == frames and u == tokens:
            yield [(t, u, False, place)]
        if d and t + d < frames:
            for rest in paths(frames, tokens, durations, t + d, u):
                yield [(t, u, False, place), *rest]
        if u < tokens and t + d < frames:
            for rest in paths(frames, tokens, durations, t + d, u + 1):
                yield [(t, u, True, place), *rest]


def brute_force(
    token: Tensor, blank: Tensor, duration: Tensor, frames: int, tokens: int, durations: tuple[int, ...]
) -> Tensor:
    """-log of the summed probability of all paths of one utterance, by autograd."""
    total = [
        torch.stack(
            [(token if writes else blank)[t, u] + duration[t, u, place] for t, u, writes, place in path]
        ).sum()
        for path in (paths(frames, tokens, durations) if frames else ())
    ]
    return -torch.stack(total).logsumexp(0) if total else torch.tensor(math.inf, dtype=token.dtype)


@pytest.mark.parametrize("durations", DURATIONS, ids=str)
def test_loss_and_gradient_are_those_of_the_sum_over_all_paths(durations: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(len(durations))
    frames, tokens = torch.tensor([5, 1, 4, 0, 3, 2]), torch.tensor([2, 0, 3, 1, 0, 3])
    shape = (len(frames), 5, 4)
    token, blank = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    )
    raw = torch.randn(*shape, len(durations), generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(len(frames), generator=generator, dtype=torch.float64)
    found = tdt_loss(token, blank, raw, frames, tokens, durations)
    expected = torch.stack(
        [
            brute_force(token[n], blank[n], raw[n], int(frames[n]), int(tokens[n]), durations)
            for n in range(len(frames))
        ]
    )
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    assert found[3].isinf()  # no frames
    assert found[5].isinf() == (0 not in durations)  # three tokens in two frames
    ours = torch.autograd.grad((found.masked_fill(found.isinf(), 0) * weights).sum(), (token, blank, raw))
    possible = expected.isfinite()
    right = torch.autograd.grad((expected[possible] * weights[possible]).sum(), (token, blank, raw))
    for one, other in zip(ours, right, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("block", [1, 50, 1 << 19])
@pytest.mark.parametrize("lstm", [False, True])
def test_the_heads_loss_is_that_of_its_scores(
    block: int, lstm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "_BLOCK", block)
    durations = (0, 1, 3)
    changes = {"predictor": LstmConfig(dim=7, dropout=0.0)} if lstm else {}
    head = make(durations, **changes).double()
    encoded = torch.randn(2, 5, DIM, dtype=torch.float64, requires_grad=True)
    lengths, targets = torch.tensor([5, 3]), pad([torch.tensor([2, 2, 1]), torch.tensor([3])])
    parameters = [encoded, *head.parameters()]
    loss = head.loss(Padded(encoded, lengths), targets)
    frames = head.joiner.encoder_proj(encoded)[:, :, None]
    rows = head.joiner.predictor_proj(head.predictor(targets))[:, None]
    scores, timed = head.next_log_probs(frames, rows), head.duration_log_probs(frames, rows)
    expected: list[Tensor] = []
    for n, (t, u) in enumerate(((5, 3), (3, 1))):
        labels = torch.nn.functional.pad(targets.values[n], (0, 1)).expand(5, -1)
        token = scores[n].gather(2, labels[..., None])[..., 0]
        expected.append(brute_force(token, scores[n, :, :, 0], timed[n], t, u, durations))
    torch.testing.assert_close(loss, torch.stack(expected))
    weights = torch.tensor([1.0, -0.5])
    ours = torch.autograd.grad((loss * weights).sum(), parameters)
    right = torch.autograd.grad((torch.stack(expected) * weights).sum(), parameters)
    for one, other in zip(ours, right, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_pass_a_numerical_check() -> None:
    head = make((0, 1, 2)).double()
    targets, lengths = pad([torch.tensor([1, 1, 2]), torch.tensor([3])]), torch.tensor([4, 3])
    encoded = torch.randn(2, 4, DIM, dtype=torch.float64, requires_grad=True)
    weight = head.joiner.durations.weight

    def loss(values: Tensor, _: Tensor) -> Tensor:
        return head.loss(Padded(values, lengths), targets)

    assert torch.autograd.gradcheck(loss, (encoded, weight), fast_mode=True)


def test_with_durations_of_one_frame_tokens_take_frames_and_a_blank_ends() -> None:
    """D = {1}: the topology "modified" over all frames but the last, and then the blank of the last one."""
    generator = torch.Generator().manual_seed(4)
    token, blank = (torch.randn(2, 6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    duration = torch.randn(2, 6, 4, 1, generator=generator, dtype=torch.float64)
    frames, tokens = torch.tensor([6, 4]), torch.tensor([3, 2])
    before = sum_paths(
        token + duration[..., 0], blank + duration[..., 0], frames - 1, tokens, topology="modified"
    )
    end = (blank + duration[..., 0])[torch.arange(2), frames - 1, tokens]
    found = tdt_loss(token, blank, duration, frames, tokens, (1,))
    torch.testing.assert_close(found, -(before.log_prob + end))


def test_half_precision_and_the_rest_of_the_batch() -> None:
    head = make((0, 1, 2, 3, 4), 3)
    encoded = Padded(torch.randn(3, 9, DIM), torch.tensor([9, 5, 7]))
    targets = pad([torch.tensor([1, 2, 3]), torch.tensor([2]), torch.tensor([3, 3])])
    together = head.loss(encoded, targets)
    for n in range(3):
        own = Padded(encoded.values[n : n + 1, : int(encoded.lengths[n])], encoded.lengths[n : n + 1])
        alone = head.loss(own, pad([targets.values[n, : int(targets.lengths[n])]]))
        torch.testing.assert_close(alone[0], together[n])
    with torch.autocast("cpu", torch.bfloat16):
        half = head.loss(encoded, targets)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, together, rtol=0.05, atol=0.1)


# Greedy search


def plain_greedy(head: TransducerHead, frames: Tensor, most: int) -> tuple[list[int], list[int], float, int]:
    """One utterance (T, D) -> tokens, their frames, score, and how often the network was asked."""
    durations = head.config.durations
    assert durations is not None
    tokens: list[int] = []
    times: list[int] = []
    score, t, here, asked = 0.0, 0, 0, 0
    while t < len(frames):
        asked += 1
        history = head.predictor(pad([torch.tensor(tokens, dtype=torch.int64)]))[0, -1]
        joint = (head.joiner.encoder_proj(frames[t]), head.joiner.predictor_proj(history))
        symbol_scores, timed = head.next_log_probs(*joint).tolist(), head.duration_log_probs(*joint).tolist()
        symbol = max(range(len(symbol_scores)), key=symbol_scores.__getitem__)
        allowed = [n for n, d in enumerate(durations) if d or symbol]
        which = max(allowed, key=timed.__getitem__)
        score += symbol_scores[symbol] + timed[which]
        if symbol:
            tokens.append(symbol)
            times.append(t)
        here += 1
        ahead = durations[which]
        if ahead == 0 and here >= most:
            ahead = 1
        if ahead:
            here = 0
        t += ahead
    return tokens, times, score, asked


@pytest.mark.parametrize("most", [1, 3, None])
@pytest.mark.parametrize("durations", [(0, 1, 2, 3, 4), (1, 2), (0, 1)], ids=str)
@torch.no_grad()
def test_greedy_search_writes_as_a_loop_would(durations: tuple[int, ...], most: int | None) -> None:
    skipped = 0
    for seed in range(6):
        head = make(durations, seed)
        head.joiner.output.bias[0] += 0.5
        lengths = torch.tensor([23, 0, 11, 17])
        encoded = Padded(3.0 * torch.randn(4, 23, DIM), lengths)
        search = build_encoded_search(
            TransducerGreedyConfig(symbols_per_frame=most), {"transducer": head}, 1.0
        )
        for row, readings in enumerate(search(encoded)):
            length = int(lengths[row])
            tokens, times, score, asked = plain_greedy(head, encoded.values[row, :length], most or 10)
            assert readings[0].tokens == tuple(tokens)
            assert readings[0].times == tuple(float(t) for t in times)
            assert readings[0].score == pytest.approx(score, rel=1e-5, abs=1e-5)
            skipped += length - asked
    assert (skipped > 0) == (max(durations) > 1)


# Settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"durations": [0, 1, 2]}, 'need loss = "full"'),
        ({"durations": [0, 1, 2], "loss": "full", "topology": "modified"}, 'need topology = "regular"'),
        ({"durations": [0, 2], "loss": "full"}, "must rise and hold 1"),
        ({"durations": [2, 1], "loss": "full"}, "must rise and hold 1"),
        ({"durations": [-1, 1], "loss": "full"}, "durations"),
    ],
)
def test_what_durations_cannot_do_is_explained(settings: dict[str, object], words: str) -> None:
    values = {
        "encoder": {"kind": "dnn"},
        "heads": {"transducer": {"kind": "transducer"} | settings},
        "search": {"kind": "transducer_greedy"},
    }
    with pytest.raises(ConfigError, match=words):
        parse_config(values, Recipe, name="recipe", source="a test")


def test_beam_search_with_durations_is_refused_when_the_recipe_is_read() -> None:
    head = {"kind": "transducer", "loss": "full", "durations": [0, 1, 2, 3, 4]}
    values = {
        "encoder": {"kind": "dnn"},
        "heads": {"transducer": head},
        "search": {"kind": "transducer_beam"},
    }
    with pytest.raises(ConfigError, match=r'cannot skip any.*\n?.*search\.kind = "transducer_greedy"'):
        parse_config(values, Recipe, name="recipe", source="a test")
    values["search"] = {"kind": "transducer_greedy", "symbols_per_frame": 10}
    recipe = parse_config(values, Recipe, name="recipe", source="a test")
    assert recipe.heads["transducer"].durations == (0, 1, 2, 3, 4)
