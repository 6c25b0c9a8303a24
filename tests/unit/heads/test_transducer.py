"""Transducer losses in blocks, in half precision, and in sizes at the edge."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from firstwords.heads.transducer import joiner as joining
from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
from firstwords.heads.transducer.lattice import Paths
from firstwords.heads.transducer.predictor import (
    LstmConfig,
    PredictorConfig,
    StatelessConfig,
    build_predictor,
)
from firstwords.heads.transducer.pruned import prune_ranges
from firstwords.heads.transducer.rnnt import joint_rnnt_loss, rnnt_loss
from firstwords.tensors import Padded, pad

CONFIG = TransducerConfig(predictor=StatelessConfig(dim=8), joiner_dim=6)


def inputs() -> tuple[Padded, Padded]:
    torch.manual_seed(3)
    encoded = torch.randn(3, 11, 5, dtype=torch.float64, requires_grad=True)
    targets = pad([torch.randint(1, 7, (n,)) for n in (5, 0, 3)])
    return Padded(encoded, torch.tensor([11, 4, 9])), targets


def plain_loss(head: TransducerHead, encoded: Padded, targets: Padded) -> Tensor:
    """Every node scored by autograd, the sum over paths by a loop over nodes."""
    logits = head.joiner(encoded.values[:, :, None], head.predictor(targets)[:, None])
    scores, losses = logits.log_softmax(-1), list[Tensor]()
    for row, (frames, tokens) in enumerate(
        zip(encoded.lengths.tolist(), targets.lengths.tolist(), strict=True)
    ):
        sums: dict[tuple[int, int], Tensor] = {}
        for t in range(frames):
            for u in range(tokens + 1):
                ways = [torch.zeros((), dtype=scores.dtype)] if t == u == 0 else []
                if t:
                    ways.append(sums[t - 1, u] + scores[row, t - 1, u, 0])
                if u:
                    ways.append(sums[t, u - 1] + scores[row, t, u - 1, targets.values[row, u - 1]])
                sums[t, u] = torch.stack(ways).logsumexp(0)
        losses.append(-(sums[frames - 1, tokens] + scores[row, frames - 1, tokens, 0]))
    return torch.stack(losses)


def gradients(head: TransducerHead, encoded: Padded, loss: Tensor) -> list[Tensor]:
    weights = [*head.joiner.parameters(), *head.predictor.parameters(), encoded.values]
    return list(torch.autograd.grad((loss * torch.tensor([1.0, -2.0, 0.5])).sum(), weights))


@pytest.mark.parametrize("kind", ["joint", "logits", "pruned"])
@pytest.mark.parametrize("block", [1, 50, 1 << 19])
def test_blocks_of_any_size_give_the_plain_loss(
    kind: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "_BLOCK", block)
    head = TransducerHead(CONFIG.with_(prune_range=6), 5, 7).double()
    encoded, targets = inputs()
    if kind == "pruned":
        loss = head.both_losses(encoded, targets)[1]
    elif kind == "joint":
        loss = joint_rnnt_loss(head.joiner, encoded, head.predictor(targets), targets)
    else:
        logits = head.joiner(encoded.values[:, :, None], head.predictor(targets)[:, None])
        loss = rnnt_loss(logits, encoded.lengths, targets)
    plain = plain_loss(head, encoded, targets)
    torch.testing.assert_close(loss, plain)
    for ours, right in zip(gradients(head, encoded, loss), gradients(head, encoded, plain), strict=True):
        torch.testing.assert_close(ours, right)


@pytest.mark.parametrize("kind", ["pruned", "full"])
def test_half_precision_training(kind: str) -> None:
    head = TransducerHead(CONFIG.with_(loss=kind), 5, 7)
    encoded, targets = inputs()
    exact = head.loss(Padded(encoded.values.float(), encoded.lengths), targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head.loss(Padded(encoded.values.bfloat16(), encoded.lengths), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.03, atol=0.03)
    loss.sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("kind", ["pruned", "full"])
@pytest.mark.parametrize(("rows", "frames", "tokens"), [(0, 4, 2), (2, 0, 0), (2, 0, 3), (2, 1, 0)])
def test_edges(kind: str, rows: int, frames: int, tokens: int) -> None:
    head = TransducerHead(CONFIG.with_(loss=kind), 5, 7)
    encoded = Padded(torch.randn(rows, frames, 5, requires_grad=True), torch.full((rows,), frames))
    targets = Padded(torch.ones(rows, tokens, dtype=torch.int64), torch.full((rows,), tokens))
    loss = head.loss(encoded, targets)
    assert loss.shape == (rows,)
    loss.masked_fill(loss.isinf(), 0.0).sum().backward()
    assert bool(loss.isinf().all()) == (rows == 0 or (frames == 0 and tokens > 0))


@pytest.mark.parametrize(
    "config",
    [StatelessConfig(dim=8, context=3), StatelessConfig(dim=5, context=1), LstmConfig(dim=6, layers=2)],
)
def test_token_by_token_is_all_at_once(config: StatelessConfig | LstmConfig) -> None:
    torch.manual_seed(1)
    predictor = build_predictor(config, 9).eval()
    tokens = torch.randint(1, 9, (3, 5))
    whole = predictor(Padded(tokens, torch.tensor([5, 5, 5])))
    state = predictor.start(3)
    for u, column in enumerate((torch.zeros(3, dtype=torch.int64), *tokens.unbind(1))):
        output, state = predictor.step(column, state)
        torch.testing.assert_close(output, whole[:, u])


def test_a_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        StatelessConfig(dim=6)
    with pytest.raises(ValueError, match="below 1"):
        TransducerConfig(lm_scale=0.5, am_scale=0.5)


def test_ranges_start_at_zero_end_at_the_top_and_overlap() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        frames = torch.randint(1, 12, (4,), generator=generator)
        tokens = torch.randint(0, 9, (4,), generator=generator)
        rows = int(tokens.max()) + 1
        shape = (4, int(frames.max()), rows)
        paths = Paths(torch.zeros(4), *(torch.rand(shape, generator=generator) for _ in range(2)))
        starts, widths = prune_ranges(paths, frames, tokens, 3)
        for row in range(4):
            own = starts[row, : int(frames[row])]
            width, top = int(widths[row]), int(tokens[row])
            assert min(3, rows) <= width <= rows
            assert int(own[0]) == 0
            assert int(own[-1]) <= top < int(own[-1]) + width
            rise = own.diff()
            assert bool(((rise >= 0) & (rise < max(width, 1))).all())


def test_predictor_settings_are_told_apart_by_kind() -> None:
    config = TransducerConfig.model_validate({"predictor": {"kind": "lstm", "dim": 12}})
    assert config.predictor == LstmConfig(dim=12)
    kinds: tuple[PredictorConfig, ...] = (StatelessConfig(), LstmConfig())
    assert TransducerConfig(predictor=kinds[1]).predictor.kind == "lstm"
