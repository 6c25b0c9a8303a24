"""Speller and Transformer decoder: causality, cache, attention pictures, gradients, number formats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, cast

import pytest
import torch
from torch import Tensor, nn

from firstwords.errors import SearchError
from firstwords.heads.attention.mechanisms import DotEnergy, LocationAttentionConfig
from firstwords.heads.attention.objective import lesson_of
from firstwords.heads.attention.recurrent import LstmCell
from firstwords.heads.attention.speller import SpellerConfig, SpellerHead
from firstwords.heads.attention.transformer import TransformerDecoderConfig, TransformerDecoderHead
from firstwords.heads.head import TokenHead
from firstwords.nn.positions import sinusoids
from firstwords.tensors import Padded, pad, real_frames

DIM, VOCABULARY = 6, 5


def speller(**settings: object) -> SpellerHead:
    return SpellerHead(SpellerConfig.model_validate({"width": 8} | settings), DIM, VOCABULARY)


def transformer(**settings: object) -> TransformerDecoderHead:
    base = {"width": 8, "heads": 2, "feedforward": 16}
    return TransformerDecoderHead(TransformerDecoderConfig.model_validate(base | settings), DIM, VOCABULARY)


HEADS: dict[str, Callable[[], TokenHead]] = {
    "speller": speller,
    "speller, two heads": lambda: speller(attention={"kind": "additive", "heads": 2}, layers=1),
    "speller, dot": lambda: speller(attention={"kind": "dot"}, layers=3),
    "transformer": transformer,
    "transformer, post": lambda: transformer(norm="post", activation="gelu", positions="learned"),
    "transformer, swish": lambda: transformer(activation="swish", layers=1),
}


def make(name: str) -> TokenHead:
    torch.manual_seed(4)
    return HEADS[name]().eval()


def utterances() -> tuple[Padded, Padded]:
    values = torch.randn(3, 9, DIM, generator=torch.Generator().manual_seed(3))
    encoded = pad([values[0], values[1, :6], values[2, :8]])
    return encoded, pad([torch.tensor(t) for t in ([1, 2, 3, 4, 4], [4, 4], [2])])


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    head = make(name).train()
    encoded, targets = utterances()
    encoded.values.requires_grad_()
    head.loss(encoded, targets).sum().backward()
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None, parameter_name
        if not parameter_name.endswith("key.bias"):  # moves all energies alike where the network is linear
            assert parameter.grad.any(), parameter_name
    assert encoded.values.grad is not None
    assert encoded.values.grad[1, :6].any()
    assert not encoded.values.grad[1, 6:].any()


@pytest.mark.parametrize("name", HEADS)
def test_attention_rows_sum_to_one_over_real_frames(name: str) -> None:
    head = make(name)
    encoded, targets = utterances()
    picture = head.attention(encoded, targets)
    assert picture.lengths.tolist() == [6, 3, 2]
    assert picture.values.shape == (3, 6, 9)
    for row, (tokens, frames) in enumerate(zip((6, 3, 2), (9, 6, 8), strict=True)):
        torch.testing.assert_close(picture.values[row, :tokens].sum(dim=1), torch.ones(tokens))
        assert not picture.values[row, tokens:].any()
        assert not picture.values[row, :, frames:].any()


@pytest.mark.parametrize("name", HEADS)
def test_the_picture_is_what_the_search_looked_at(name: str) -> None:
    """Coverage counts frames whose summed weights exceed one half."""
    head = make(name)
    encoded, targets = utterances()
    picture = head.attention(encoded, targets).values[0]
    scorer = head.scorer(Padded(encoded.values[:1], encoded.lengths[:1]))
    state = scorer.start(1)
    for i, last in enumerate([0, *targets.values[0].tolist()]):
        _, state = scorer.score(torch.tensor([last]), state)
        assert scorer.covered(state).item() == (picture[: i + 1].sum(dim=0) > 0.5).sum().item()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_a_transformer_decoder_is_torchs_own(
    norm: Literal["pre", "post"], activation: Literal["relu", "gelu"]
) -> None:
    """Two layers with embeddings and sinusoids before them; both are given the same weights."""
    torch.manual_seed(2)
    config = TransformerDecoderConfig(width=8, heads=2, feedforward=12, norm=norm, activation=activation)
    ours = TransformerDecoderHead(config, 8, VOCABULARY).eval()
    one = nn.TransformerDecoderLayer(8, 2, 12, 0.0, activation, batch_first=True, norm_first=norm == "pre")
    theirs = nn.TransformerDecoder(one, 2, nn.LayerNorm(8) if norm == "pre" else None).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    given = theirs.state_dict()
    weights = {name: value for name, value in ours.state_dict().items() if not name.startswith("layers.")}
    if norm == "pre":
        weights |= {f"norm.{part}": given[f"norm.{part}"] for part in ("weight", "bias")}
    for n in range(2):
        names = {
            "self_attention.write": "self_attn.out_proj",
            "frame_attention.write": "multihead_attn.out_proj",
            "feedforward.0": "linear1",
            "feedforward.3": "linear2",
            **{f"norms.{k}": f"norm{k + 1}" for k in range(3)},
        }
        for part in ("weight", "bias"):
            for own, other in names.items():
                weights[f"layers.{n}.{own}.{part}"] = given[f"layers.{n}.{other}.{part}"]
            weights[f"layers.{n}.self_attention.read.{part}"] = given[f"layers.{n}.self_attn.in_proj_{part}"]
            ask, read = given[f"layers.{n}.multihead_attn.in_proj_{part}"].split([8, 16])
            weights[f"layers.{n}.frame_attention.ask.{part}"] = ask
            weights[f"layers.{n}.frame_attention.read.{part}"] = read
    ours.load_state_dict(weights)
    encoded = Padded(torch.randn(2, 6, 8), torch.tensor([6, 4]))
    lesson = lesson_of(pad([torch.tensor([2, 3, 1]), torch.tensor([4])]), VOCABULARY)
    places = sinusoids(torch.arange(4.0), 8, halves=True)
    x = math.sqrt(8) * ours.embedding.weight[lesson.inputs] + places
    y = theirs(
        x,
        encoded.values,
        tgt_mask=torch.ones(4, 4, dtype=torch.bool).triu(1),
        memory_key_padding_mask=~real_frames(encoded.lengths, 6),
    )
    found, expected = ours.write(encoded, lesson).logits, ours.output(y)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1, :2], expected[1, :2], rtol=0, atol=1e-5)  # a token and the end


@torch.no_grad()
def test_a_speller_is_torchs_cells_and_the_papers_equations() -> None:
    """Token by token: s_i = LSTM([e(y_i-1); c_i-1], s_i-1), c_i = Attend(s_i, h), W [s_i; c_i]."""
    torch.manual_seed(4)
    head = speller(attention={"kind": "dot", "dim": 5}, layers=2).double().eval()
    encoded = Padded(torch.randn(1, 7, DIM, dtype=torch.float64), torch.tensor([7]))
    frames = encoded.values[0]
    cells = [nn.LSTMCell(8 + DIM, 8).double(), nn.LSTMCell(8, 8).double()]
    for n, (cell, own) in enumerate(zip(cells, head.cells, strict=True)):
        gates = cast("LstmCell", own).gates
        below, before = gates.weight[:, :-8], gates.weight[:, -8:]
        cell.weight_ih.copy_(torch.cat([head.embedded_gates.weight, below], dim=1) if n == 0 else below)
        cell.weight_hh.copy_(before)
        cell.bias_ih.copy_(gates.bias)
        cell.bias_hh.zero_()
    energy = cast("DotEnergy", head.attend.energy)
    states: list[tuple[Tensor, Tensor]] = [(frames.new_zeros(1, 8), frames.new_zeros(1, 8))] * 2
    context, said = frames.new_zeros(1, DIM), [1, 4, 2]
    start = VOCABULARY - 1  # start and end; the units before it are the tokens from 1 on
    total, read = 0.0, start
    for token in (*said, 0):
        x = torch.cat([head.embedding.weight[[read]], context], dim=1)
        for n, cell in enumerate(cells):
            states[n] = cell(x, states[n])
            x = states[n][0]
        energies = energy.query(x).relu() @ energy.key(frames).relu().t() / math.sqrt(5)
        context = energies.softmax(dim=1) @ frames
        read = token - 1 if token else start
        total += head.output(torch.cat([x, context], dim=1)).log_softmax(dim=1)[0, read].item()
    found = head.log_likelihood(encoded, pad([torch.tensor(said)])).item()
    assert found == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("name", HEADS)
def test_losses_are_float32_under_autocast(name: str) -> None:
    head = make(name).train()
    encoded, targets = utterances()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(encoded, targets)
    assert loss.dtype is torch.float32
    loss.sum().backward()
    head.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, _ = (scorer := head.scorer(encoded)).score(torch.zeros(3, dtype=torch.int64), scorer.start(3))
        half = head.loss(encoded, targets)
    assert scores.dtype is torch.float32
    torch.testing.assert_close(half, head.loss(encoded, targets), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", HEADS)
def test_later_tokens_never_change_earlier_predictions(name: str) -> None:
    """log P(a b c ...) - log P(a b d ...) depends on nothing behind the difference: read it off prefixes."""
    head = make(name)
    encoded, _ = utterances()
    one = Padded(encoded.values[:1], encoded.lengths[:1])
    short, long = (head.attention(one, pad([torch.tensor(t)])).values[0] for t in ([1, 2], [1, 2, 4, 3]))
    torch.testing.assert_close(short, long[:3])


@pytest.mark.parametrize("name", HEADS)
def test_no_frames_and_no_tokens(name: str) -> None:
    head = make(name)
    empty = pad([torch.tensor([], dtype=torch.int64), torch.tensor([1])])
    for time in (0, 4):
        encoded = Padded(torch.zeros(2, time, DIM), torch.tensor([0, 0]))
        assert bool(head.loss(encoded, empty).isfinite().all())


def test_sinusoids_as_published() -> None:
    """PE(p, 2i) = sin(p / 10000^(2i / d)), PE(p, 2i + 1) = cos of the same; ours: sines, then cosines."""
    table = sinusoids(torch.arange(3.0, 6.0), 8, halves=True)
    for row, position in enumerate((3, 4, 5)):
        for i in range(4):
            angle = torch.tensor(position / 10000 ** (2 * i / 8))
            assert table[row, i].item() == pytest.approx(angle.sin().item(), abs=1e-5)
            assert table[row, 4 + i].item() == pytest.approx(angle.cos().item(), abs=1e-5)


def test_more_tokens_than_learned_positions_have_probability_zero() -> None:
    """Four positions hold three tokens and the end; the other rows of the batch are what they are alone."""
    head = transformer(positions="learned", most_tokens=4).eval()
    assert head.longest == 3
    encoded, targets = utterances()
    fits = targets.lengths <= 3
    assert fits.any()
    assert not fits.all()
    loss = head.loss(encoded, targets)
    assert loss.isinf().tolist() == (~fits).tolist()
    assert (-head.log_likelihood(encoded, targets)).tolist() == pytest.approx(loss.tolist())
    loss[fits].sum().backward(retain_graph=True)
    alone = [p.grad.clone() for p in head.parameters() if p.grad is not None]
    head.zero_grad()
    loss.sum().backward()
    for grad, expected in zip((p.grad for p in head.parameters()), alone, strict=True):
        torch.testing.assert_close(grad, expected)
    with pytest.raises(SearchError, match="learned 4 positions"):
        head.attention(encoded, targets)


def test_width_must_fit_the_heads() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        TransformerDecoderConfig(width=10, heads=4)


def test_post_norm_gradients_grow_towards_the_output_pre_norm_ones_do_not() -> None:
    """Xiong et al., 2020, figure 3: at the start the last post-norm layers have the largest gradients."""
    ratios: dict[str, float] = {}
    for norm in ("pre", "post"):
        torch.manual_seed(0)
        head = TransformerDecoderHead(
            TransformerDecoderConfig(width=32, heads=4, feedforward=64, layers=8, norm=norm, dropout=0.0),
            DIM,
            VOCABULARY,
        )
        head.loss(*utterances()).sum().backward()
        sizes = [float(layer.feedforward[3].weight.grad.norm()) for layer in head.layers]
        ratios[norm] = sizes[-1] / sizes[0]
    assert ratios["post"] > 1 > ratios["pre"]


def test_both_decoders_learn_a_batch_by_heart() -> None:
    encoded, targets = utterances()
    plain = {"width": 32, "dropout": 0.0, "label_smoothing": 0.0}
    for build in (speller, transformer):
        torch.manual_seed(0)
        head = build(**plain)
        for step in range(40):
            head.zero_grad()
            head.loss(encoded, targets).sum().backward()
            with torch.no_grad():
                for parameter in head.parameters():
                    assert parameter.grad is not None
                    parameter -= 0.02 * (1 - step / 40) * parameter.grad.sign()
        assert head.eval().loss(encoded, targets).max().item() < 0.5


def test_defaults_are_those_of_the_recipes() -> None:
    assert isinstance(SpellerConfig().attention, LocationAttentionConfig)
    assert TransformerDecoderConfig().norm == "pre"
