"""Every module case of the reference numbers: outputs, input gradients, parameter gradients.

Golden sequences are (T, N, C), attention weights (heads, N, target, source); ours are batch first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from firstwords.encoders.zipformer import activations, attention, constraints, frontend, layer, stack
from firstwords.encoders.zipformer.convolution import ChunkCausalDepthwiseConv, ConvolutionModule
from firstwords.encoders.zipformer.feedforward import FeedForward
from firstwords.encoders.zipformer.schedules import Schedule, set_count
from firstwords.nn import sharing
from firstwords.nn.chunks import chunk_mask, left_chunks

TOLERANCE = 2e-5  # times max(1, largest value): the reference's own README
ELSEWHERE = {"decoder", "decoder_infer", "joiner"}  # the transducer's parts


class Cases:
    def __init__(self, folder: Path) -> None:
        self.info: dict[str, Any] = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        self.tensors: dict[str, dict[str, Tensor]] = {}
        for name, value in load_file(folder / "modules.safetensors").items():
            case, _, rest = name.partition("/")
            self.tensors.setdefault(case, {})[rest] = value

    def group(self, case: str, prefix: str) -> dict[str, Tensor]:
        return {
            k.removeprefix(prefix): v for k, v in self.tensors.get(case, {}).items() if k.startswith(prefix)
        }

    def weights(self, case: str) -> dict[str, Tensor]:
        return self.group(self.info[case].get("weights_from", case), "weights/")


@pytest.fixture(scope="module")
def cases(golden: Path) -> Cases:
    return Cases(golden)


def swap(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


def layer_shape(args: dict[str, Any]) -> layer.LayerShape:
    return layer.LayerShape(
        dim=args["embed_dim"],
        position_dim=args["pos_dim"],
        heads=args["num_heads"],
        query_head_dim=args["query_head_dim"],
        position_head_dim=args["pos_head_dim"],
        value_head_dim=args["value_head_dim"],
        feedforward=args["feedforward_dim"],
        kernel=args["cnn_module_kernel"],
        causal=args["causal"],
        dropout=args["dropout"],
        attention_skip=args.get("attention_skip_rate", layer.ATTENTION_SKIP),
        convolution_skip=args.get("conv_skip_rate", layer.ATTENTION_SKIP),
        constant_attention=args.get("const_attention_rate", Schedule((0.0, 0.25), (4000.0, 0.025))),
        feedforward2_skip=args.get("ff2_skip_rate", layer.FEEDFORWARD_SKIP),
        feedforward3_skip=args.get("ff3_skip_rate", layer.FEEDFORWARD_SKIP),
        bypass_skip=args.get("bypass_skip_rate", Schedule((0.0, 0.5), (4000.0, 0.02))),
    )


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class ScaleGradient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return constraints.scale_gradient(x, 0.2, training=self.training)


class Activated(nn.Linear):
    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__(args["in_channels"], args["out_channels"])
        self.swoosh = {"SwooshL": activations.swoosh_l, "SwooshR": activations.swoosh_r}[args["activation"]]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.swoosh(x))


def balancer(a: dict[str, Any]) -> constraints.Balancer:
    known = {k: a[k] for k in ("min_positive", "max_positive", "min_abs", "max_abs", "grad_scale") if k in a}
    return constraints.Balancer(**known, probability=a["prob"])


def build(kind: str, a: dict[str, Any]) -> nn.Module:
    makers: dict[str, Callable[[], nn.Module]] = {
        "SwooshL": lambda: Function(activations.swoosh_l),
        "SwooshR": lambda: Function(activations.swoosh_r),
        "BiasNorm": lambda: activations.BiasNorm(a["num_channels"]),
        "BypassModule": lambda: layer.Bypass(a["embed_dim"]),
        "SimpleDownsample": lambda: stack.Downsample(a["downsample"]),
        "SimpleUpsample": lambda: Function(
            lambda x: stack.upsample(x, a["upsample"], x.shape[1] * a["upsample"])
        ),
        "CompactRelPositionalEncoding": lambda: attention.RelativePositions(a["embed_dim"]),
        "RelPositionMultiheadAttentionWeights": lambda: attention.AttentionWeights(
            a["embed_dim"], a["pos_dim"], a["num_heads"], a["query_head_dim"], a["pos_head_dim"]
        ),
        "SelfAttention": lambda: attention.SelfAttention(a["embed_dim"], a["num_heads"], a["value_head_dim"]),
        "NonlinAttention": lambda: attention.NonlinAttention(a["channels"], a["hidden_channels"]),
        "ConvolutionModule": lambda: ConvolutionModule(a["channels"], a["kernel_size"], causal=a["causal"]),
        "ChunkCausalDepthwiseConv1d": lambda: ChunkCausalDepthwiseConv(a["channels"], a["kernel_size"]),
        "FeedforwardModule": lambda: FeedForward(a["embed_dim"], a["feedforward_dim"], a["dropout"]),
        "ActivationDropoutAndLinear": lambda: Activated(a),
        "Zipformer2EncoderLayer": lambda: layer.ZipformerLayer(layer_shape(a)),
        "Zipformer2Encoder": lambda: stack.Stack(
            layer_shape(a["layer"]), a["num_layers"], 1, (a["warmup_begin"], a["warmup_end"])
        ),
        "DownsampledZipformer2Encoder": lambda: stack.Stack(
            layer_shape(a["layer"]),
            a["encoder"]["num_layers"],
            a["downsample"],
            (a["encoder"]["warmup_begin"], a["encoder"]["warmup_end"]),
        ),
        "Conv2dSubsampling": lambda: frontend.ConvEmbed(
            a["in_channels"],
            a["out_channels"],
            (a["layer1_channels"], a["layer2_channels"], a["layer3_channels"]),
            a["dropout"],
        ),
        "ConvNeXt": lambda: frontend.ConvNeXt(a["channels"]),
        "ScaleGrad": ScaleGradient,
        "Balancer": lambda: balancer(a),
        "Whiten": lambda: constraints.Whiten(a["whitening_limit"], a["num_groups"], a["grad_scale"]),
    }
    return makers[kind]()


def load(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Names are the reference's but for the stack's extra level and a parameter nobody uses."""
    ours = {k.removeprefix("encoder."): v for k, v in weights.items()}
    known = set(module.state_dict())
    unused = {k for k in ours if k.endswith("bypass_scale") and k not in known}
    module.load_state_dict({k: v for k, v in ours.items() if k not in unused})


def real(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else ~mask


def hidden(padding: Tensor | None, pairs: Tensor | None) -> Tensor | None:
    parts = [p for p in (padding[:, None, None] if padding is not None else None, pairs) if p is not None]
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] | parts[1]


def call(case: str, info: dict[str, Any], module: nn.Module, given: dict[str, Tensor]) -> list[Tensor]:
    """Run our module on the golden inputs; the outputs come back in the golden layout."""
    kind, streaming = info["class"], "method" in info
    padding, pairs = given.get("key_padding_mask"), given.get("attn_mask")
    padding = given.get("src_key_padding_mask", padding)
    x = given.get("x", given.get("src"))
    m: Any = module
    if kind == "CompactRelPositionalEncoding":
        assert x is not None
        return [m(x.shape[0], info["kwargs"]["left_context_len"])[None]]
    if kind == "BypassModule":
        return [swap(m(swap(given["src_orig"]), swap(given["src"])))]
    assert x is not None
    if kind == "RelPositionMultiheadAttentionWeights":
        positions = given["pos_emb"][0]
        if streaming:
            y, cache = m.step(swap(x), positions, swap(given["cached_key"]), hidden(padding, None))
            return [swap(y), swap(cache)]
        return [swap(m(swap(x), positions, hidden(padding, pairs)))]
    if kind == "SelfAttention":
        weights = swap(given["attn_weights"])
        if streaming:
            return [swap(y) for y in m.step(swap(x), weights, swap(given["cached_val"]))]
        return [swap(m(swap(x), weights))]
    if kind == "NonlinAttention":
        weights = swap(given["attn_weights"])
        if streaming:
            y, cache = m.step(swap(x), weights, given["cached_x"][0])
            return [swap(y), cache[None]]
        return [swap(m(swap(x), weights))]
    if kind == "ConvolutionModule":
        if streaming:
            y, cache = m.step(swap(x), given["cache"].transpose(1, 2), real(padding))
            return [swap(y), cache.transpose(1, 2)]
        return [swap(m(swap(x), real(padding), info.get("kwargs", {}).get("chunk_size", -1)))]
    if kind == "ChunkCausalDepthwiseConv1d":
        return [m(x.transpose(1, 2), info["kwargs"]["chunk_size"]).transpose(1, 2)]
    if kind == "Zipformer2EncoderLayer":
        if streaming:
            caches = layer.LayerCache(
                swap(given["cached_key"]),
                given["cached_nonlin_attn"][0],
                swap(given["cached_val1"]),
                swap(given["cached_val2"]),
                given["cached_conv1"].transpose(1, 2),
                given["cached_conv2"].transpose(1, 2),
            )
            y, c = m.step(swap(x), given["pos_emb"][0], caches, padding)
            conv = (c.convolution1.transpose(1, 2), c.convolution2.transpose(1, 2))
            return [swap(y), swap(c.keys), c.gated[None], swap(c.values1), swap(c.values2), *conv]
        chunk = info.get("kwargs", {}).get("chunk_size", -1)
        view = layer.View(real(padding), hidden(padding, pairs), chunk)
        return [swap(m(swap(x), given["pos_emb"][0], view))]
    if kind in ("Zipformer2Encoder", "DownsampledZipformer2Encoder"):
        return [swap(m(swap(x), layer.View(real(padding), hidden(padding, None))))]
    if kind == "Conv2dSubsampling":
        if streaming:
            y, cache = m.step(x, given["cached_left_pad"].permute(0, 2, 3, 1))
            lengths = m.output_lengths(given["x_lens"]) - frontend.LOOK_AHEAD
            return [y, lengths, cache.permute(0, 3, 1, 2)]
        return [
            m(x),
            m.output_lengths(given["x_lens"]),
        ]  # without lengths: the reference does not look at them
    channel_first = kind == "ConvNeXt" or info.get("args", {}).get("channel_dim") == 1
    if channel_first and x.dim() == 4:
        return [m(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)]
    if channel_first:
        return [m(x.transpose(1, 2)).transpose(1, 2)]
    if kind in ("SwooshL", "SwooshR", "ScaleGrad", "Whiten", "Balancer"):
        return [m(x)]
    return [swap(m(swap(x)))]


def close(ours: Tensor, theirs: Tensor, name: str) -> None:
    assert ours.shape == theirs.shape, f"{name}: {ours.shape} instead of {theirs.shape}"
    error = (ours.double() - theirs.double()).abs().max().item()
    limit = TOLERANCE * max(1.0, theirs.double().abs().max().item())
    assert error <= limit, f"{name}: {error:.2e} > {limit:.2e}"


def forced(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(constraints, "draw", lambda: value)


def prepare(info: dict[str, Any], module: nn.Module) -> None:
    module.train(info.get("mode", "eval") == "train")
    if "batch_count" in info:
        set_count(module, info["batch_count"])
    for name, value in info.get("set_attr", {}).items():
        path, _, attribute = name.rpartition(".")
        ours = {"pos_emb_skip_rate": "position_skip", "layerdrop_rate": "skip"}[attribute]
        assert hasattr(module.get_submodule(path), ours)
        setattr(module.get_submodule(path), ours, value)
    if "whitening_limit_override" in info:
        whitens = [m for m in module.modules() if isinstance(m, constraints.Whiten)]
        assert whitens
        for whiten in whitens:
            whiten.limit = info["whitening_limit_override"]


def names() -> list[str]:
    """The cases by name; the file itself is only read inside a test (it may be absent)."""
    reg, b = ["feedforward_train_reg"], [f"balancer_{i}_cd{d}" for i in range(6) for d in ("-1", "1")]
    return [
        *["swooshl", "swooshr", "biasnorm", "biasnorm_chdim1", "biasnorm_train_logscale_above_max"],
        *["biasnorm_train_logscale_below_min", "bypass", "bypass_train_bc0", "bypass_train_bc5000"],
        *["bypass_train_bc30000", *(f"simple_{way}sample_{n}" for n in (2, 4, 8) for way in ("down", "up"))],
        *[f"pos_enc_{x}" for x in "abcd"],
        *["attn_weights", "attn_weights_masked", "attn_weights_streaming", "attn_weights_train_penalty"],
        *["self_attention", "self_attention_streaming", "nonlin_attention", "nonlin_attention_streaming"],
        *["conv_module", "conv_module_nomask", "conv_module_causal_nochunk", "conv_module_streaming"],
        *[f"conv_module_causal_chunk{n}" for n in (4, 8, 12)],
        *[f"chunk_causal_dwconv_{n}" for n in (-1, 3, 8, 9, 13, 17, 27)],
        *["feedforward", *reg, "act_dropout_linear_SwooshL", "act_dropout_linear_SwooshR"],
        *["layer", "layer_causal", "layer_train_reg_bc3000", "layer_train_reg_bc30000"],
        *["layer_train_reg_whiten1", "layer_train_plain", "layer_train_const_attention", "layer_streaming"],
        *["stack", "stack_down2", "stack_down4", "conv_embed", "conv_embed_train_plain"],
        *["conv_embed_train_reg", "conv_embed_train_reg_whiten1", "conv_embed_streaming", "convnext"],
        *["scale_grad", *b, "balancer_4d", *(f"whiten_{i}" for i in range(5))],
    ]


@pytest.mark.parametrize("case", names())
def test_module_gives_the_reference_numbers(case: str, cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    info = cases.info[case]
    module = build(info["class"], info["args"])
    load(module, cases.weights(case))
    prepare(info, module)
    forced(monkeypatch, info.get("random", 0.9999999))
    given = cases.group(case, "in/")
    upstream = given.pop("gy", None)
    wanted = info.get("grad_inputs", [])
    for name in wanted:
        given[name] = given[name].clone().requires_grad_(True)
    with torch.set_grad_enabled(upstream is not None):
        outputs = call(case, info, module, given)
    for name, ours in zip(info.get("outputs", ["y"]), outputs, strict=True):
        close(ours.detach(), cases.tensors[case][f"out/{name}"], f"out/{name}")
    if upstream is None:
        return
    outputs[0].backward(upstream)
    for name in wanted:
        gradient = given[name].grad
        assert gradient is not None
        close(gradient, cases.tensors[case][f"grad/{name}"], f"grad/{name}")
    parameters = dict(module.named_parameters())
    theirs = cases.group(case, "pgrad/")
    assert bool(theirs) == bool(info.get("param_grads"))
    for name, value in theirs.items():
        ours_name = name.removeprefix("encoder.")
        gradient = parameters[ours_name].grad
        assert gradient is not None, name
        close(gradient, value, f"pgrad/{name}")
    assert not theirs or {n.removeprefix("encoder.") for n in theirs} == set(parameters)


@pytest.mark.parametrize("case", [f"limit_param_value_{i}" for i in range(2)])
def test_limit_of_a_parameter(case: str, cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(monkeypatch, 0.0)
    info, tensors = cases.info[case], cases.tensors[case]
    x = tensors["in/x"].clone().requires_grad_(True)
    y = constraints.limit_parameter(x, info["min"], info["max"], training=True)
    assert torch.equal(y, x)
    y.backward(tensors["in/gy"])
    assert x.grad is not None
    assert torch.equal(x.grad, tensors["grad/x"])


@pytest.mark.parametrize("case", [f"penalize_abs_values_gt_{i}" for i in range(3)])
def test_penalty_on_large_values(case: str, cases: Cases) -> None:
    info, tensors = cases.info[case], cases.tensors[case]
    sign = sharing.beyond(tensors["in/x"], info["limit"])
    gradient = tensors["in/gy"].clone().add_(sign, alpha=info["penalty"])
    close(gradient, tensors["grad/x"], "grad/x")


@pytest.mark.parametrize("case", [f"chunk_attn_mask_{i}" for i in range(3)])
def test_chunk_mask(case: str, cases: Cases) -> None:
    info = cases.info[case]
    ours = chunk_mask(info["seq_len"], info["chunk_size"], info["left_context_chunks"])
    assert torch.equal(ours, cases.tensors[case]["out/mask"])


def test_left_context_in_chunks(cases: Cases) -> None:
    for chunk, left, out_chunk, out_left in cases.info["chunk_info"]["rows"]:
        assert (chunk, left_chunks(chunk, left)) == (out_chunk, out_left), (chunk, left)


def test_schedules(cases: Cases) -> None:
    for name, table in cases.info["scheduled_float"]["tables"].items():
        if name.startswith("_"):
            continue
        schedule = Schedule(*(tuple(point) for point in table["schedule"]))
        for count, value in zip(table["batch_counts"], table["values"], strict=True):
            assert schedule(count) == pytest.approx(value, rel=1e-12, abs=1e-15), (name, count)


def test_schedules_add_and_join(cases: Cases) -> None:
    table = cases.info["scheduled_float"]["tables"]["_arith"]
    a, b = (Schedule(*map(tuple, table[name])) for name in ("a", "b"))
    ours = {"a+b": a + b, "a+2": a + 2, "max(a,b)": a.maximum(b), "max(a,4)": a.maximum(4)}
    for name, schedule in ours.items():
        for (x, y), (count, value) in zip(schedule.points, table[name], strict=True):
            assert (x, y) == (pytest.approx(count), pytest.approx(value)), name


def test_warm_up_of_the_bypasses(cases: Cases) -> None:
    theirs = cases.info["scheduled_float"]["tables"]["_layer_skip_rate"]["value"]
    for i, (layers, factor) in enumerate(zip((2, 1, 3), (1, 2, 4), strict=True)):
        for j, schedule in enumerate(stack.warm_up(1000.0 * (i + 1), 1000.0 * (i + 2), layers, factor)):
            assert schedule.points == tuple(pytest.approx(tuple(p)) for p in theirs[f"{i}.{j}"])


def test_every_case_is_covered(cases: Cases) -> None:
    functions = {n for n, i in cases.info.items() if i.get("kind") in ("function", "table")}
    assert set(cases.info) - {"_meta"} == set(names()) | functions | ELSEWHERE
