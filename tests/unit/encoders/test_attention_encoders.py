"""The Transformer, Conformer, Squeezeformer and E-Branchformer encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from firstwords.config import parse_config
from firstwords.encoders.conformer import Conformer, ConformerConfig
from firstwords.encoders.e_branchformer import EBranchformer, EBranchformerConfig, EBranchformerLayer
from firstwords.encoders.e_branchformer import View as BranchView
from firstwords.encoders.encoder import Encoder
from firstwords.encoders.squeezeformer import Squeezeformer, SqueezeformerConfig
from firstwords.encoders.transformer import Transformer, TransformerConfig, TransformerLayer
from firstwords.errors import ConfigError
from firstwords.heads.ctc import CtcConfig, CtcHead
from firstwords.heads.intermediate import Tappable, encode_with_taps
from firstwords.model.recipe import Recipe
from firstwords.nn.input_norm import InputNorm
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.nn.positions import distances
from firstwords.nn.subsampling import SubsamplingConfig
from firstwords.tensors import Padded, pad, real_frames

SIZES: dict[str, Any] = {
    "dim": 24, "layers": 3, "heads": 2, "feedforward": 32, "subsampling": SubsamplingConfig(channels=8)
}  # fmt: skip
SMALL: dict[str, Callable[..., Encoder]] = {
    "transformer": lambda **s: Transformer(TransformerConfig(**SIZES | s)),
    "conformer": lambda **s: Conformer(ConformerConfig(**SIZES | {"kernel": 5} | s)),
    "squeezeformer": lambda **s: Squeezeformer(
        SqueezeformerConfig(**SIZES | {"kernel": 5, "reduce_at": 1, "recover_at": 2} | s)
    ),
    "e_branchformer": lambda **s: EBranchformer(
        EBranchformerConfig(**SIZES | {"gate_width": 40, "kernel": 5, "merge_kernel": 3} | s)
    ),
}


def small(kind: str, **settings: Any) -> Encoder:
    torch.manual_seed(3)
    return SMALL[kind](**settings)


def batch(*frames: int) -> Padded:
    generator = torch.Generator().manual_seed(7)
    return pad([torch.randn(n, 80, generator=generator) for n in frames])


SIZES_OF: dict[str, Callable[[str], Encoder]] = {
    "transformer": lambda name: Transformer(TransformerConfig.preset(name)),
    "conformer": lambda name: Conformer(ConformerConfig.preset(name)),
    "squeezeformer": lambda name: Squeezeformer(SqueezeformerConfig.preset(name)),
    "e_branchformer": lambda name: EBranchformer(EBranchformerConfig.preset(name)),
}


def millions_of(kind: str, name: str) -> float:
    with torch.device("meta"):
        return sum(p.numel() for p in SIZES_OF[kind](name).parameters()) / 1e6


@pytest.mark.parametrize("kind", SIZES_OF)
def test_tiny_sizes_can_be_compared(kind: str) -> None:
    assert millions_of(kind, "tiny") == pytest.approx(2.02, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "name", "millions"),
    [
        ("transformer", "base", 17.6),
        ("conformer", "S", 8.69),
        ("conformer", "M", 27.3),
        ("conformer", "L", 114.9),
        ("conformer", "fast-L", 108.6),
        ("squeezeformer", "XS", 9.0),
        ("squeezeformer", "S", 18.6),
        ("squeezeformer", "SM", 28.2),
        ("squeezeformer", "M", 55.6),
        ("squeezeformer", "ML", 125.1),
        ("squeezeformer", "L", 236.3),
        ("e_branchformer", "base", 25.1),
        ("e_branchformer", "L", 116.0),
    ],
)
def test_published_sizes(kind: str, name: str, millions: float) -> None:
    """Squeezeformer: the numbers of its paper. The others: our own count, as theirs hold decoders too."""
    assert millions_of(kind, name) == pytest.approx(millions, rel=0.007)


@pytest.mark.parametrize(
    "config", [ConformerConfig, EBranchformerConfig, SqueezeformerConfig, TransformerConfig]
)
def test_an_unknown_size_names_the_known_ones(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"No .* size is called 'huge'\.\n  Sizes: tiny"):
        config.preset("huge")


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (TransformerConfig, {"dim": 30}, "multiple of heads = 4"),
        (ConformerConfig, {"dim": 27, "heads": 3}, "must be even"),
        (ConformerConfig, {"kernel": 8}, "kernel = 8 must be odd"),
        (ConformerConfig, {"left_chunks": (0,)}, "each is positive, or -1"),
        (ConformerConfig, {"left_chunks": ()}, "at least one number"),
        (SqueezeformerConfig, {"reduce_at": 3, "recover_at": 3}, "must be below recover_at"),
        (SqueezeformerConfig, {"layers": 6}, "at most layers = 6"),
        (SqueezeformerConfig, {"kernel": 8}, "kernel = 8 must be odd"),
        (EBranchformerConfig, {"gate_width": 33}, "gate_width = 33 must be even"),
        (EBranchformerConfig, {"merge_kernel": 4}, "must be odd"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(settings, config, name="encoder", source="recipe.toml")


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_transformer_layer_is_torchs_own(norm: Any) -> None:
    torch.manual_seed(2)
    config = TransformerConfig(dim=8, heads=2, feedforward=12, norm=norm)
    ours = TransformerLayer(config).eval()
    theirs = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm == "pre").eval()
    names = {
        "self_attn.in_proj_weight": "attention.in_proj.weight",
        "self_attn.in_proj_bias": "attention.in_proj.bias",
        "self_attn.out_proj.weight": "attention.out_proj.weight",
        "self_attn.out_proj.bias": "attention.out_proj.bias",
        "linear1.weight": "feed.in_proj.weight",
        "linear1.bias": "feed.in_proj.bias",
        "linear2.weight": "feed.out_proj.weight",
        "linear2.bias": "feed.out_proj.bias",
        "norm1.weight": "attention_norm.weight",
        "norm1.bias": "attention_norm.bias",
        "norm2.weight": "feed_norm.weight",
        "norm2.bias": "feed_norm.bias",
    }
    weights = {name: value + 0.1 * torch.randn_like(value) for name, value in theirs.state_dict().items()}
    theirs.load_state_dict(weights)
    ours.load_state_dict({names[name]: value for name, value in weights.items()})
    x, padded = torch.randn(2, 6, 8), ~real_frames(torch.tensor([6, 4]), 6)
    expected = theirs(x, src_key_padding_mask=padded)
    found = ours(x, padded[:, None, None])
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1, :4], expected[1, :4], rtol=0, atol=1e-5)


def test_e_branchformer_layer_is_that_of_the_paper() -> None:
    """The merge and the gate written out for one utterance, the attention taken from the layer."""
    torch.manual_seed(2)
    config = EBranchformerConfig(dim=8, heads=2, feedforward=12, gate_width=10, kernel=5, merge_kernel=3)
    layer = EBranchformerLayer(config).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(1, 6, 8)
    positions = distances(6, 6, 8, x)

    def around(y: Tensor, conv: nn.Conv1d) -> Tensor:
        """Each channel's sum over the frames around, zeros beyond the ends."""
        kernel, out = conv.kernel_size[0], torch.zeros_like(y)
        for t in range(6):
            for k in range(kernel):
                source = t + k - kernel // 2
                if 0 <= source < 6:
                    out[0, t] += conv.weight[:, 0, k] * y[0, source]
        assert conv.bias is not None
        return out + conv.bias

    with torch.no_grad():
        a = x + 0.5 * layer.feed_in(layer.feed_in_norm(x))
        wide = F.gelu(layer.gate.in_proj(layer.gate_norm(a)))
        gated = wide[..., :5] * around(layer.gate.norm(wide[..., 5:]), layer.gate.convolution.conv)
        near, far = layer.gate.out_proj(gated), layer.attention(layer.attention_norm(a), positions)
        both = torch.cat((far, near), dim=2)
        a = a + layer.merge_proj(both + around(both, layer.merge_convolution.conv))
        expected = layer.norm(a + 0.5 * layer.feed_out(layer.feed_out_norm(a)))
        found = layer(x, BranchView(positions, None))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_gate_of_an_e_branchformer_starts_open() -> None:
    encoder = small("e_branchformer")
    assert isinstance(encoder, EBranchformer)
    layer = encoder.layers[0]
    assert isinstance(layer, EBranchformerLayer)
    gate = layer.gate.convolution(torch.randn(1, 9, 20))
    torch.testing.assert_close(gate, torch.ones_like(gate), rtol=0, atol=1e-4)


def test_squeezeformer_adds_the_halved_middle_to_what_was_saved() -> None:
    encoder = small("squeezeformer").eval()
    assert isinstance(encoder, Squeezeformer)
    frames = batch(4 * 7 + 3)  # 7 output frames: 4 in the middle
    seen: dict[str, Tensor] = {}
    for name in ("layers.0", "reduction", "layers.1", "layers.2"):
        module = encoder.get_submodule(name)
        module.register_forward_hook(lambda m, given, out, name=name: seen.update({name: out}))  # type: ignore[misc]
    encoder.layers[2].register_forward_pre_hook(lambda m, given: seen.update({"recovered": given[0]}))
    encoder(frames)
    conv, x = encoder.reduction.depthwise, seen["layers.0"]
    strided = F.conv1d(x.transpose(1, 2), conv.weight, conv.bias, 2, 1, groups=24).transpose(1, 2)
    torch.testing.assert_close(seen["reduction"], encoder.reduction.pointwise(strided), rtol=0, atol=1e-5)
    assert seen["layers.1"].shape[1] == 4
    for t in range(7):
        expected = x[:, t] + encoder.recovery(seen["layers.1"][:, t // 2])
        torch.testing.assert_close(seen["recovered"][:, t], expected, rtol=0, atol=1e-5)


def test_squeezeformer_scales_before_and_normalizes_after_each_module() -> None:
    encoder = small("squeezeformer").eval()
    assert isinstance(encoder, Squeezeformer)
    part = encoder.layers[0].get_submodule("feed_after_attention")
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(1, 5, 24)
    weights = dict(part.named_parameters())
    fed = part.get_submodule("module")(weights["scale"] * x + weights["shift"])
    expected = F.layer_norm(x + fed, (24,), weights["norm.weight"], weights["norm.bias"])
    torch.testing.assert_close(part(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_reach_every_parameter(kind: str) -> None:
    encoder = small(kind).train()
    encoder(batch(90, 61)).values.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("transformer", {}),
        ("conformer", {"convolution_norm": "batch"}),
        ("conformer", {"subsampling": SubsamplingConfig(channels=8, separable=True), "causal": True}),
        ("squeezeformer", {}),
        ("e_branchformer", {}),
    ],
)
def test_training_in_bfloat16_is_close_to_float32(kind: str, settings: dict[str, Any]) -> None:
    gradients: list[dict[str, Tensor]] = []
    for enabled in (False, True):
        encoder = small(kind, dropout=0.0, **settings).train()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            encoded = encoder(batch(150, 90))
        encoded.values.float().tanh().sum().backward()
        assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in encoder.parameters())
        gradients.append({n: p.grad.flatten() for n, p in encoder.named_parameters() if p.grad is not None})
    one, other = (torch.cat(list(g.values())) for g in gradients)
    # bfloat16 has 8 bits, and three layers of it add up: the direction of the step must agree
    assert float(F.cosine_similarity(one, other, dim=0)) > 0.99


@pytest.mark.parametrize("kind", SMALL)
def test_weights_in_bfloat16_can_be_read_with(kind: str) -> None:
    encoder = small(kind).eval()
    frames = batch(150, 90)
    with torch.no_grad():
        exact = encoder(frames).values
        rough = encoder.bfloat16()(Padded(frames.values.bfloat16(), frames.lengths)).values
    assert rough.dtype is torch.bfloat16
    assert float(F.cosine_similarity(exact.flatten(), rough.float().flatten(), dim=0)) > 0.99


@pytest.mark.parametrize("kind", SMALL)
def test_a_seed_decides_what_training_drops(kind: str) -> None:
    frames = batch(90, 61)
    outputs: list[Tensor] = []
    for seed in (1, 1, 2):
        encoder = small(kind, dropout=0.3, layer_drop=0.5).train()
        torch.manual_seed(seed)
        outputs.append(encoder(frames).values)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_layers_are_dropped_for_whole_utterances_in_training_alone() -> None:
    encoder = small("transformer", dropout=0.0, layer_drop=0.9, layers=1).train()
    assert isinstance(encoder, Transformer)
    frames = Padded(batch(40).values.expand(200, -1, -1), torch.full((200,), 40))
    encoder.embed.eval()  # whose statistics would move
    kept = encoder.embed(frames).values
    skipped = encoder.norm(encoder.positions(kept))
    torch.manual_seed(0)
    same = (encoder(frames).values == skipped).flatten(1)
    assert torch.equal(same.all(dim=1), same.any(dim=1))
    assert float(same.all(dim=1).float().mean()) == pytest.approx(0.9, abs=0.11)  # 5 standard deviations
    assert not (encoder.eval()(frames).values == skipped).any()


@pytest.mark.parametrize("kind", SMALL)
def test_inner_outputs_can_be_tapped(kind: str) -> None:
    """The last tap is the output; a condition that answers zero changes nothing, another does."""
    encoder = small(kind).eval()
    assert isinstance(encoder, Tappable)
    frames = batch(150, 90)
    plain = encoder(frames)
    encoded, taps = encoder.forward_with_intermediate(frames, (0, 1, 2))
    assert torch.equal(encoded.values, plain.values)
    assert torch.equal(taps[2].values, plain.values)
    assert not torch.equal(taps[0].values, taps[1].values)
    for tap in taps:
        assert tap.values.shape == plain.values.shape
        assert tap.lengths.tolist() == plain.lengths.tolist()
        assert not tap.values[1, int(tap.lengths[1]) :].any()
    with pytest.raises(ConfigError, match=r"\[3\] do not exist.*\n.*0 to 2"):
        encoder.forward_with_intermediate(frames, (3,))
    head = CtcHead(CtcConfig(intermediate=(0, 1), self_conditioned=True, dropout=0.0), 24, 5)
    assert head.feedback is not None
    inner = encode_with_taps(encoder, head, frames)
    assert not torch.equal(inner.encoded.values, plain.values)
    nn.init.zeros_(head.feedback.weight)
    nn.init.zeros_(head.feedback.bias)
    assert torch.equal(encode_with_taps(encoder, head, frames).encoded.values, plain.values)


def test_a_causal_conformer_is_trained_in_chunks_and_in_full() -> None:
    encoder = small("conformer", causal=True, dropout=0.0, max_chunk=4, left_chunks=(1, 2))
    assert isinstance(encoder, Conformer)
    frames = batch(4 * 30 + 3)
    encoder.eval()
    with torch.no_grad():
        full = encoder(frames).values
        known = {
            (chunk, behind): encoder(frames, chunk=chunk, left=behind * chunk).values
            for chunk in range(1, 5)
            for behind in (1, 2)
        }
        encoder.train()
        for part in encoder.modules():
            if isinstance(part, InputNorm | MaskedBatchNorm):
                part.eval()  # their statistics would move
        torch.manual_seed(0)
        drawn = [encoder(frames).values for _ in range(80)]
    assert torch.equal(full, encoder.eval()(frames, chunk=-1).values)
    count = sum(torch.equal(y, full) for y in drawn)
    assert 20 < count < 60  # half of them; 4.5 standard deviations
    for context, values in known.items():
        assert any(torch.equal(y, values) for y in drawn), context
    assert count + sum(torch.equal(y, v) for y in drawn for v in known.values()) == 80


def test_streaming_asks_for_what_it_needs() -> None:
    plain, causal = small("conformer"), small("conformer", causal=True)
    assert isinstance(plain, Conformer)
    assert isinstance(causal, Conformer)
    with pytest.raises(ConfigError, match=r"not causal.*\n.*encoder\.causal = true"):
        plain(batch(90), chunk=4)
    with pytest.raises(ConfigError, match="not causal"):
        plain.start(1, chunk=4, left=8)
    for chunk, left in ((4, 6), (4, 0), (0, 4)):
        with pytest.raises(ConfigError, match=f"left = {left} is not a positive multiple of chunk = {chunk}"):
            causal.start(1, chunk=chunk, left=left)


@pytest.mark.parametrize("kind", SMALL)
def test_a_recipe_names_its_encoder(kind: str) -> None:
    given = {"encoder": {"kind": kind, "layers": 13, "subsampling": {"channels": 16}}, "heads": {"ctc": {}}}
    recipe = parse_config(given, Recipe, name="recipe", source="recipe.toml")
    assert recipe.encoder.kind == kind
    again = parse_config(recipe.model_dump(mode="json"), Recipe, name="recipe", source="recipe.toml")
    assert again == recipe
    given["encoder"]["dimm"] = 8
    with pytest.raises(ConfigError, match=r"recipe\.encoder\.dimm: no such setting\. Did you mean 'dim'"):
        parse_config(given, Recipe, name="recipe", source="recipe.toml")
    wrong = {"encoder": {"kind": kind, "dim": 7}, "heads": {"ctc": {}}}
    with pytest.raises(ConfigError, match=r"recipe\.encoder: dim = 7"):
        parse_config(wrong, Recipe, name="recipe", source="recipe.toml")


def test_a_recipe_from_the_time_of_one_encoder_still_means_a_zipformer() -> None:
    recipe = parse_config(
        {"encoder": {"causal": True}, "heads": {"ctc": {}}}, Recipe, name="recipe", source="recipe.toml"
    )
    assert recipe.encoder.kind == "zipformer"
