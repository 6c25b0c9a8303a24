"""The product's Zipformer against its plain twin: outputs and every gradient, in evaluation and in training.

In training both make the same random decisions from the same seed, so nothing is switched off: Balancer,
Whiten, skips, masks and dropout all act. Evaluation is compared in float64, where only the few parts that
both compute in float32 differ; training, whose regularisers are float32 by definition, in float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from firstwords.encoders.zipformer import Zipformer, ZipformerConfig, constraints
from firstwords.model.convert.icefall import encoder_config, encoder_weights
from firstwords.model.convert.icefall_file import read_settings
from firstwords.tensors import Padded, pad
from reference.zipformer import EagerZipformer, regularizers
from reference.zipformer.operators import L, Swoosh
from small_zipformer import SMALL

MELS = 80
ENCODER_TOLERANCE = 2e-5  # of the golden numbers, as for the product

CONFIGS = {
    "small": SMALL,
    "causal": SMALL.with_(causal=True, chunks=(8, 16, -1), left_contexts=(16, 32, -1)),
    "every rate": SMALL.with_(
        dims=(16, 20, 24, 28, 24, 20), layers=(2, 1, 1, 2, 1, 1), downsampling=(1, 2, 4, 8, 4, 2),
        feedforward=(24,), heads=(2, 2, 2, 4, 2, 2), query_head_dim=(4,), position_head_dim=(4,),
        value_head_dim=(4,), kernels=(7, 7, 5, 3, 5, 7), unmasked_dims=(12,), embed_channels=(4, 4, 8),
    ),
    "one stack": SMALL.with_(
        dims=(24,), layers=(3,), downsampling=(1,), feedforward=(30,), heads=(3,), query_head_dim=(6,),
        position_head_dim=(2,), value_head_dim=(5,), kernels=(31,), unmasked_dims=(24,),
        output_downsampling=3,
    ),
}  # fmt: skip


def cases(*fast: tuple[Any, ...], every: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Parameters of a test: ``fast`` ones always, the others of ``every`` in the slow set."""
    return [*fast, *(pytest.param(*c, marks=pytest.mark.slow) for c in every if c not in fast)]


class Step(NamedTuple):
    output: Tensor
    lengths: list[int]
    gradients: dict[str, Tensor]
    next_draw: float  # the random numbers went the same way


def pair(
    name: str, dtype: torch.dtype = torch.float32, *, count: float | None = None
) -> tuple[Zipformer, EagerZipformer]:
    """Both with the same weights, none near zero as fresh ones are; in training where ``count`` is given."""
    torch.manual_seed(3)
    ours = Zipformer(CONFIGS[name], MELS, padding="reference").to(dtype)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    twin = EagerZipformer(CONFIGS[name], MELS).to(dtype)
    twin.load_state_dict(ours.state_dict())
    if count is not None:
        ours.set_step(count)
        twin.set_step(count)
    return ours.train(count is not None), twin.train(count is not None)


def noise(*frames: int) -> Padded:
    generator = torch.Generator().manual_seed(7)
    return pad([torch.randn(n, MELS, generator=generator) for n in frames])


def step(model: torch.nn.Module, frames: Padded, seed: int = 0, **context: int) -> Step:
    """One forward and backward pass of a loss that looks at all outputs differently."""
    model.zero_grad()
    torch.manual_seed(seed)
    parameter = next(model.parameters())
    values = frames.values.to(parameter.dtype).requires_grad_()
    encoded: Padded = model(Padded(values, frames.lengths), **context)
    next_draw = float(torch.rand(()))
    weight = torch.randn(encoded.values.shape, generator=torch.Generator().manual_seed(1))
    (encoded.values * weight).square().sum().backward()
    assert values.grad is not None
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    return Step(
        encoded.values.detach(), encoded.lengths.tolist(), gradients | {"input": values.grad}, next_draw
    )


def agree(ours: Step, twin: Step, *, tolerance: float, floor: float = 0.0) -> None:
    """Each tensor: norm of the difference over its norm (at least ``floor`` times the largest norm)."""
    assert ours.next_draw == twin.next_draw
    assert ours.lengths == twin.lengths
    assert ours.output.shape == twin.output.shape
    assert (ours.output - twin.output).norm() <= 1e-5 * twin.output.norm()
    assert ours.gradients.keys() == twin.gradients.keys()
    largest = max(float(g.norm()) for g in twin.gradients.values())
    wrong: dict[str, float] = {}
    for name, theirs in twin.gradients.items():
        error = (ours.gradients[name] - theirs).norm() / (float(theirs.norm()) + floor * largest)
        if not error <= tolerance:
            wrong[name] = float(error)
    assert not wrong, wrong


@pytest.mark.parametrize("name", [*CONFIGS])
def test_evaluation(name: str) -> None:
    ours, twin = pair(name, torch.float64)
    frames = noise(131, 61)
    agree(step(ours, frames), step(twin, frames), tolerance=5e-6)


@pytest.mark.parametrize(("chunk", "left"), [(8, 16), (16, -1), (64, 64), (400, 800)])
def test_evaluation_in_chunks(chunk: int, left: int) -> None:
    ours, twin = pair("causal", torch.float64)
    frames = noise(131, 61)
    agree(
        step(ours, frames, chunk=chunk, left=left),
        step(twin, frames, chunk=chunk, left=left),
        tolerance=5e-6,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_exact_padding_is_the_same_where_nothing_is_padded(name: str) -> None:
    _, twin = pair(name)
    exact = Zipformer(CONFIGS[name], MELS).eval()
    exact.load_state_dict(twin.state_dict())
    for frames in (noise(120, 120), noise(11), noise(9)):
        with torch.no_grad():
            ours, theirs = exact(frames), twin(frames)
        assert ours.lengths.tolist() == theirs.lengths.tolist()
        assert (ours.values - theirs.values).norm() <= 1e-5 * theirs.values.norm()


@pytest.mark.parametrize(
    ("name", "count"),
    cases(("small", 500.0), ("causal", 5000.0), every=product(CONFIGS, (0.0, 500.0, 5000.0))),
)
def test_training_with_the_same_seed(name: str, count: float) -> None:
    """Everything random happens at its own rate, in both alike; Whiten remembers from step to step."""
    ours, twin = pair(name, count=count)
    frames = noise(120, 90, 61)
    for seed in range(2):
        agree(step(ours, frames, seed), step(twin, frames, seed), tolerance=1e-4, floor=1e-2)
    remembered, theirs = (
        {n: m.high for n, m in model.named_modules() if isinstance(m, kind)}
        for model, kind in ((ours, constraints.Whiten), (twin, regularizers.Whiten))
    )
    assert remembered == theirs


@pytest.mark.parametrize(
    ("name", "count", "drawn"),
    cases(
        ("one stack", 0.0, 0.0),
        ("causal", 1e6, 0.0),
        ("small", 0.0, 0.9999999),
        every=product(CONFIGS, (0.0, 1e6), (0.0, 0.9999999)),
    ),
)
def test_training_with_everything_or_nothing_drawn(
    name: str, count: float, drawn: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 0, every Balancer, Whiten, limit and penalty acts in one step."""
    monkeypatch.setattr(constraints, "draw", lambda: drawn)
    monkeypatch.setattr(regularizers, "draw", lambda: drawn)
    ours, twin = pair(name, count=count)
    frames = noise(120, 90, 61)
    agree(step(ours, frames), step(twin, frames), tolerance=1e-4, floor=1e-2)


def settings(model: torch.nn.Module, kinds: tuple[type, type]) -> dict[str, list[float]]:
    """Name of every Balancer and Whiten -> its numbers now."""
    balancer, whiten = kinds
    found: dict[str, list[float]] = {}
    for name, part in model.named_modules():
        part = cast("Any", part)
        if isinstance(part, balancer):
            limits: Any = part.positive + part.size if hasattr(part, "positive") else ()
            limits = limits or (part.min_positive, part.max_positive, part.min_abs, part.max_abs)
            found[name] = [part.now(x) for x in (*limits, part.probability)]
        elif isinstance(part, whiten):
            found[name] = [part.now(part.limit), part.grad_scale, part.groups]
    return found


@pytest.mark.parametrize("count", [0.0, 1000.0, 5000.0, 10000.0, 1e6])
def test_regularisers_have_the_same_settings(count: float) -> None:
    """Limits matter only where a statistic lies near them; so they are compared themselves, too."""
    ours, twin = pair("every rate", count=count)
    names = {"embed.conv.2": "embed.balancers.0", "embed.conv.5": "embed.balancers.1"}
    names |= {"embed.conv.8": "embed.balancers.2"}
    mine = settings(ours, (constraints.Balancer, constraints.Whiten))
    theirs = settings(twin, (regularizers.Balancer, regularizers.Whiten))
    theirs = {names.get(n, n): values for n, values in theirs.items()}
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        assert values == pytest.approx(theirs[name], rel=1e-9, abs=1e-12), name


def test_the_comparison_sees_a_small_difference() -> None:
    """One head's query bias off by a thousandth: neither outputs nor gradients pass."""
    ours, twin = pair("small", torch.float64)
    frames = noise(90)
    before = step(ours, frames)
    with torch.no_grad():
        dict(twin.named_parameters())["stacks.1.layers.0.self_attn_weights.in_proj.bias"][0] += 1e-3
    with pytest.raises(AssertionError):
        agree(before, step(twin, frames), tolerance=5e-6)


def test_derivatives_in_bytes_are_right_on_average() -> None:
    x = torch.linspace(-8, 12, 401).repeat(2000, 1)
    exact, rough = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.manual_seed(0)
    Swoosh(L, in_bytes=False)(exact).sum().backward()
    y = Swoosh(L, in_bytes=True)(rough)
    saved: Any = y.grad_fn
    assert [t.dtype for t in saved.saved_tensors] == [torch.uint8]
    y.sum().backward()
    assert exact.grad is not None
    assert rough.grad is not None
    assert (exact.grad - rough.grad).abs().max() <= 1.01 * 1.005 / 255
    assert (exact.grad - rough.grad).mean(dim=0).abs().max() <= 4 * 1.005 / 255 / 2 / 2000**0.5


class Golden:
    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, read_settings(folder / "config.json")
        self.io = load_file(folder / "io.safetensors")
        self.batch = Padded(self.io["x"], self.io["x_lens"].long())

    def twin(self, name: str) -> EagerZipformer:
        weights = torch.load(self.folder / f"{name}.pt", weights_only=True)["model"]
        twin = EagerZipformer(encoder_config(weights, self.settings), MELS)
        twin.load_state_dict(encoder_weights(weights)[0])
        return twin.eval()

    def near(self, ours: Tensor, name: str) -> None:
        assert ours.shape == self.io[name].shape
        assert (ours - self.io[name]).abs().max() <= ENCODER_TOLERANCE


@pytest.fixture(scope="module")
def published(golden: Path) -> Golden:
    return Golden(golden / "zipformer_tiny")


def test_the_twin_gives_the_published_numbers(published: Golden) -> None:
    twin = published.twin("noncausal")
    stacks: list[Any] = []
    for stack in twin.stacks:
        stack.register_forward_hook(lambda _m, _i, output: stacks.append(output))
    with torch.no_grad():
        published.near(twin.embed(published.batch.values).transpose(0, 1), "noncausal/encoder_embed")
        encoded = twin(published.batch)
    for i, output in enumerate(stacks):
        published.near(output, f"noncausal/stack{i}_out_TNC")
    published.near(encoded.values, "noncausal/encoder_out")
    assert encoded.lengths.tolist() == published.io["noncausal/encoder_out_lens"].tolist()
    for u, length in enumerate(published.batch.lengths.tolist()):
        alone = Padded(published.batch.values[u : u + 1, :length], torch.tensor([length]))
        with torch.no_grad():
            published.near(twin(alone).values, f"noncausal/utt{u}_alone/encoder_out")


@pytest.mark.parametrize(("chunk", "left"), [(-1, -1), (16, 64), (32, 64)])
def test_the_twin_gives_the_published_numbers_in_chunks(published: Golden, chunk: int, left: int) -> None:
    with torch.no_grad():
        encoded = published.twin("causal")(published.batch, chunk=chunk, left=left)
    published.near(encoded.values, f"causal/sim_c{chunk}_l{left}/encoder_out")


def test_the_twin_has_the_published_shapes(golden: Path) -> None:
    """Under the names of the product."""
    shapes = json.loads((golden / "state_dict_shapes.json").read_text(encoding="utf-8"))["S_ctc"][
        "state_dict"
    ]
    with torch.device("meta"):
        theirs = encoder_weights({name: torch.empty(shape) for name, shape in shapes.items()})[0]
        twin = EagerZipformer(ZipformerConfig.preset("S"), MELS).state_dict()
    assert {n: v.shape for n, v in twin.items()} == {n: v.shape for n, v in theirs.items()}
