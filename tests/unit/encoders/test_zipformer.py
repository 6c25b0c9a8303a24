"""Zipformer as a module: sizes, schedules, training passes, taps, autocast, export, copies."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from firstwords.encoders.zipformer import Zipformer, ZipformerConfig, constraints
from firstwords.encoders.zipformer.attention import RelativePositions
from firstwords.encoders.zipformer.frontend import ConvNeXt
from firstwords.encoders.zipformer.pieces import by_rows
from firstwords.encoders.zipformer.schedules import Scheduled
from firstwords.errors import ConfigError
from firstwords.tensors import Padded, pad
from small_zipformer import SMALL

MELS = 80


def batch(*frames: int) -> Padded:
    generator = torch.Generator().manual_seed(1)
    return pad([torch.randn(n, MELS, generator=generator) for n in frames])


def published(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "state_dict_shapes.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("preset", "reference"),
    [("S", "S_ctc"), ("M", "M_ctc"), ("L", "L_ctc"), ("kws", "KWS_tiny_transducer_causal")],
)
def test_presets_have_the_published_shapes(golden: Path, preset: str, reference: str) -> None:
    from firstwords.model.convert.icefall import encoder_weights

    with torch.device("meta"):
        ours = {
            k: list(v.shape) for k, v in Zipformer(ZipformerConfig.preset(preset), MELS).state_dict().items()
        }
        shapes = published(golden)[reference]["state_dict"]
        theirs, left_out = encoder_weights({name: torch.empty(shape) for name, shape in shapes.items()})
    assert ours == {name: list(value.shape) for name, value in theirs.items()}
    unused = [n for n in left_out if n.startswith("encoder") and not n.endswith("bypass_scale")]
    assert not unused


def test_causal_m_has_the_published_shapes(golden: Path) -> None:
    shapes = published(golden)["M_transducer_causal"]
    with torch.device("meta"):
        encoder = Zipformer(ZipformerConfig.preset("M").with_(causal=True), MELS)
    unused = sum(dim * layers for dim, layers in zip(encoder.config.dims, encoder.config.layers, strict=True))
    count = sum(p.numel() for p in encoder.parameters())
    assert count + unused == shapes["encoder_params"] + shapes["encoder_embed_params"]


@pytest.mark.parametrize(("preset", "least", "most"), [("nano", 4e5, 6e5), ("tiny", 1.7e6, 2.4e6)])
def test_slim_sizes(preset: str, least: float, most: float) -> None:
    config = ZipformerConfig.preset(preset)
    encoder = Zipformer(config, MELS)
    assert least < sum(p.numel() for p in encoder.parameters()) < most
    widths = (*config.dims, *config.unmasked_dims, *config.embed_channels, config.position_dim)
    assert all(width % 4 == 0 for width in widths)
    assert encoder.embed.bins == 19
    assert (encoder.subsampling, encoder.dim) == (4, max(config.dims))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernels": (4,)}, "odd"),
        ({"dims": (24, 32)}, "2 numbers for 3 stacks"),
        ({"unmasked_dims": 64}, "exceed"),
        ({"position_dim": 7}, "odd"),
        ({"chunks": (6,)}, "not a multiple"),
        ({"layers": 0}, "at least 1"),
        ({"chunks": ()}, "at least one"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SMALL.with_(**change)


def test_unknown_size_is_named() -> None:
    with pytest.raises(ConfigError, match="No Zipformer size is called 'huge'"):
        ZipformerConfig.preset("huge")


def test_one_number_counts_for_every_stack() -> None:
    assert ZipformerConfig.model_validate({"layers": 1}).layers == (1,) * 6
    assert ZipformerConfig.model_validate({"dims": [64], "unmasked_dims": 64}).dims == (64,) * 6
    again = ZipformerConfig.model_validate(json.loads(SMALL.model_dump_json()))
    assert again == SMALL


def test_set_step_reaches_every_schedule() -> None:
    encoder = Zipformer(SMALL, MELS)
    scheduled = [m for m in encoder.modules() if isinstance(m, Scheduled)]
    assert scheduled
    assert all(m.count is None for m in scheduled)
    encoder.set_step(4000)
    assert {m.count for m in scheduled} == {4000.0}
    layer: Any = encoder.stacks[1].layers[1]  # type: ignore[union-attr]
    assert layer.now(layer.rates.attention_skip) == 0.05
    encoder.eval()
    assert layer.now(layer.rates.attention_skip) == 0.0


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("draw", [None, 0.0, 0.9999999])
def test_every_parameter_gets_a_gradient(
    causal: bool, draw: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with every regulariser drawn, or none: DistributedDataParallel waits for all of them."""
    torch.manual_seed(5)
    encoder = Zipformer(SMALL.with_(causal=causal, chunks=(8, 16, -1)), MELS).train()
    if draw is not None:
        monkeypatch.setattr(constraints, "draw", lambda: draw)
    for count in (0.0, 3000.0, 50000.0):
        encoder.set_step(count)
        encoder.zero_grad()
        encoded = encoder(batch(90, 47))
        encoded.values.square().sum().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name


def test_same_seed_same_step() -> None:
    encoder = Zipformer(SMALL, MELS).train()
    encoder.set_step(100.0)
    losses: list[float] = []
    whitens = [part for part in encoder.modules() if isinstance(part, constraints.Whiten)]
    assert whitens
    for _ in range(2):
        for part in whitens:
            part.high = True  # as at first: what training remembers of them is kept by its task
        torch.manual_seed(11)
        loss = encoder(batch(90, 47)).values.square().sum()
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("causal", [False, True])
def test_autocast_trains_in_bfloat16(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every regulariser drawn; gradients arrive, are float32 and point where the float32 ones do."""
    torch.manual_seed(5)
    encoder = Zipformer(SMALL.with_(causal=causal, dropout=(0.0, 0.0), chunks=(8,)), MELS).train()
    encoder.set_step(1e6)
    monkeypatch.setattr(constraints, "draw", lambda: 0.0)
    gradients: list[Tensor] = []
    for enabled in (False, True):
        encoder.zero_grad()
        torch.manual_seed(6)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            encoded = encoder(batch(90, 47))
        encoded.values.float().square().sum().backward()
        found = [p.grad for p in encoder.parameters()]
        assert all(g is not None and g.dtype == torch.float32 for g in found)
        gradients.append(torch.cat([g.flatten() for g in found if g is not None]))
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0).item() > 0.98


def test_whole_model_in_bfloat16() -> None:
    torch.manual_seed(5)
    encoder = Zipformer(SMALL, MELS).eval()
    frames = batch(90, 47)
    with torch.no_grad():
        precise = encoder(frames).values
        rough = encoder.to(torch.bfloat16)(Padded(frames.values.to(torch.bfloat16), frames.lengths)).values
    assert rough.dtype == torch.bfloat16
    assert torch.cosine_similarity(precise.flatten(), rough.float().flatten(), dim=0).item() > 0.99


def test_gradients_agree_with_numbers() -> None:
    """Double precision, evaluation mode: analytic against finite differences along random directions."""
    torch.manual_seed(5)
    config = SMALL.with_(
        dims=(12, 16), layers=(1,), downsampling=(1, 2), feedforward=(16,), heads=(2,),
        query_head_dim=(4,), position_head_dim=(4,), value_head_dim=(4,), kernels=(5,), unmasked_dims=(8,),
        embed_channels=(2, 2, 4)
    )  # fmt: skip
    encoder = Zipformer(config, 24).double().eval()
    generator = torch.Generator().manual_seed(1)
    frames = pad([torch.randn(n, 24, generator=generator) for n in (34, 27)])
    frames = Padded(frames.values.double(), frames.lengths)
    weight = torch.randn(1, 1, encoder.dim, dtype=torch.float64)

    def loss() -> Tensor:
        return (encoder(frames).values * weight).square().sum()

    loss().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None
        direction = torch.randn_like(parameter)
        step = 1e-5
        with torch.no_grad():
            parameter += step * direction
            above = loss()
            parameter -= 2 * step * direction
            below = loss()
            parameter += step * direction
        numeric = ((above - below) / (2 * step)).item()
        assert (parameter.grad * direction).sum().item() == pytest.approx(numeric, rel=2e-4, abs=2e-4), name


def test_taps_have_the_width_and_rate_of_the_output() -> None:
    torch.manual_seed(5)
    encoder = Zipformer(SMALL, MELS).eval()
    frames = batch(90, 47)
    with torch.no_grad():
        encoded, taps = encoder.forward_with_intermediate(frames, (0, 1, 2))
        plain = encoder(frames)
    assert torch.equal(encoded.values, plain.values)
    for tap in taps:
        assert tap.values.shape == encoded.values.shape
        assert tap.lengths.tolist() == encoded.lengths.tolist()
    assert not taps[0].values[:, :, 24:].any()  # channels that the first stack does not have
    assert torch.equal(taps[2].values, encoded.values)


def test_what_a_condition_answers_is_fed_back() -> None:
    torch.manual_seed(5)
    encoder = Zipformer(SMALL, MELS).eval()
    frames = batch(90, 47)
    seen: list[int] = []

    def nothing(stack: int, tap: Padded) -> Tensor:
        seen.append(stack)
        return torch.zeros_like(tap.values)

    with torch.no_grad():
        plain = encoder(frames).values
        same, _ = encoder.forward_with_intermediate(frames, (0, 1), nothing)
        changed, _ = encoder.forward_with_intermediate(frames, (0, 1), lambda _, tap: tap.values)
    assert seen == [0, 1]
    assert torch.equal(same.values, plain)
    assert not torch.allclose(changed.values, plain, atol=1e-3)
    with pytest.raises(ConfigError, match="do not exist"):
        encoder.forward_with_intermediate(frames, (3,))


def test_copies_and_weights_are_plain() -> None:
    encoder = Zipformer(SMALL, MELS).eval()
    frames = batch(90)
    with torch.no_grad():
        encoder(frames)
        twin = copy.deepcopy(encoder)
        other = Zipformer(SMALL, MELS).eval()
        other.load_state_dict(encoder.state_dict())
        assert torch.equal(twin(frames).values, encoder(frames).values)
        assert torch.equal(other(frames).values, encoder(frames).values)
    assert all(isinstance(v, Tensor) for v in encoder.state_dict().values())
    assert set(encoder.state_dict()) == {name for name, _ in encoder.named_parameters()}


def test_exported_graph_gives_the_same() -> None:
    encoder = Zipformer(SMALL, MELS).eval()

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            return tuple(self.encoder(Padded(values, lengths)))

    frames = batch(90, 47)
    with torch.no_grad():
        program = torch.export.export(Whole(), tuple(frames), strict=False)
        ours = program.module()(*frames)
        theirs = encoder(frames)
    torch.testing.assert_close(ours[0], theirs.values, rtol=0, atol=1e-5)
    assert torch.equal(ours[1], theirs.lengths)


def test_encoder_that_is_not_causal_has_no_chunks() -> None:
    encoder = Zipformer(SMALL, MELS)
    with pytest.raises(ConfigError, match="not causal"):
        encoder(batch(90), chunk=8)
    with pytest.raises(ConfigError, match="cannot stream"):
        encoder.start(1, chunk=8, left=32)


@pytest.mark.parametrize(
    ("chunk", "left", "words"), [(6, 32, "multiples"), (8, 4, "look back"), (0, 32, "multiples")]
)
def test_impossible_streams_are_refused(chunk: int, left: int, words: str) -> None:
    encoder = Zipformer(SMALL.with_(causal=True, chunks=(8,)), MELS)
    with pytest.raises(ConfigError, match=words):
        encoder.start(1, chunk=chunk, left=left)


def test_positions_of_any_length_come_from_one_table() -> None:
    positions = RelativePositions(16).eval()
    short = positions(5)
    long = positions(300)
    assert torch.equal(long[295:304], short)
    assert torch.equal(positions(5, 7), long[288:304])
    assert torch.equal(positions(1), long[299:300])


def test_whiten_remembers_whether_it_is_needed() -> None:
    torch.manual_seed(1)
    white, coloured = torch.randn(400, 8), torch.randn(400, 1).expand(400, 8) + 0.1 * torch.randn(400, 8)
    whiten = constraints.Whiten(2.0).train()
    for x, high in ((white, False), (coloured, True), (white, False)):
        x = x.clone().requires_grad_(True)
        while x.grad is None or whiten.high is not high:
            whiten(x * 1.0).sum().backward()
    assert whiten.high is False


def test_position_table_does_not_grow_when_number_formats_take_turns() -> None:
    """It once doubled at each turn from bfloat16 training to float32 validation: 24 GiB in minutes."""
    positions = RelativePositions(16, dropout=0.0)
    for turn in range(40):
        like = torch.zeros(1, dtype=torch.bfloat16 if turn % 2 else torch.float32)
        rows = positions(50, like=like)
        assert rows.dtype is like.dtype
        assert rows.shape[0] == 99
    assert len(positions.table) <= 2 * 64 + 1
    longer = positions(200, like=like)
    assert longer.shape[0] == 399
    assert len(positions.table) <= 2 * 256 + 1


def test_the_front_end_in_parts_of_its_rows_is_the_whole() -> None:
    """Without gradients a few rows at a time: 5,700 of 216 places are several parts."""
    torch.manual_seed(3)
    block = ConvNeXt(72).eval()
    x = torch.randn(2, 150, 19, 72)
    whole = block(x)
    with torch.no_grad():
        torch.testing.assert_close(block(x), whole, rtol=1e-5, atol=1e-6)


def test_rows_are_worked_on_in_parts_only_where_they_do_not_fit() -> None:
    heard: list[int] = []

    def work(rows: Tensor) -> Tensor:
        heard.append(rows.numel() // 4)
        return 2 * rows[..., :3]

    x = torch.arange(4.0 * 7 * 100_000).view(7, 100_000, 4)
    with torch.no_grad():
        found = by_rows(work, x, 8)
    assert torch.equal(found, 2 * x[..., :3])
    assert len(heard) > 1
    assert sum(heard) == 700_000
    heard.clear()
    by_rows(work, x, 8)  # autograd would keep every part
    assert heard == [700_000]
