"""The whole encoder with CTC against the reference: utterances, batches, chunks, streaming, gradients.

``padding="exact"`` is compared per utterance (the reference lets padding leak), ``padding="reference"`` on
the batch. The weights come in through the converter's name table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from firstwords.encoders.zipformer import Zipformer
from firstwords.encoders.zipformer.streaming import PADDING_VALUE, window
from firstwords.heads.ctc import CtcHead
from firstwords.heads.transducer.head import TransducerHead
from firstwords.heads.transducer.pruned import prune_ranges, simple_paths
from firstwords.model.convert.icefall import encoder_config, encoder_weights, load
from firstwords.model.convert.icefall_file import read_settings
from firstwords.search.search import TransducerBeamConfig, TransducerGreedyConfig, build_encoded_search
from firstwords.tensors import Padded, pad
from firstwords.training.scaled_adam import ScaledAdam
from firstwords.training.schedule import EdenConfig, learning_rate

ENCODER_TOLERANCE = 2e-5
CTC_TOLERANCE = 1e-4


class Tiny:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = read_settings(folder / "config.json")
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        self.io = load_file(folder / "io.safetensors")

    def weights(self, name: str) -> dict[str, Tensor]:
        return torch.load(self.folder / f"{name}.pt", weights_only=True)["model"]

    def encoder(self, name: str, padding: Literal["exact", "reference"]) -> Zipformer:
        weights = self.weights(name)
        encoder = Zipformer(encoder_config(weights, self.settings), 80, padding=padding)
        encoder.load_state_dict(encoder_weights(weights)[0])
        return encoder.eval()

    def utterance(self, u: int) -> Tensor:
        return self.io["x"][u : u + 1, : int(self.io["x_lens"][u])]

    def log_probs(self, name: str, encoded: Tensor) -> Tensor:
        weights = self.weights(name)
        return (encoded @ weights["ctc_output.1.weight"].t() + weights["ctc_output.1.bias"]).log_softmax(-1)


@pytest.fixture(scope="module")
def tiny(golden: Path) -> Tiny:
    return Tiny(golden / "zipformer_tiny")


def alone(x: Tensor) -> Padded:
    return Padded(x, torch.tensor([x.shape[1]] * x.shape[0]))


def near(ours: Tensor, theirs: Tensor, tolerance: float = ENCODER_TOLERANCE) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= tolerance


@pytest.mark.parametrize("u", [0, 1])
def test_one_utterance(tiny: Tiny, u: int) -> None:
    with torch.no_grad():
        encoded = tiny.encoder("noncausal", "exact")(alone(tiny.utterance(u)))
    near(encoded.values, tiny.io[f"noncausal/utt{u}_alone/encoder_out"])
    assert encoded.lengths.tolist() == [encoded.values.shape[1]]


def test_exact_padding_gives_the_same_in_a_batch(tiny: Tiny) -> None:
    with torch.no_grad():
        encoded = tiny.encoder("noncausal", "exact")(Padded(tiny.io["x"], tiny.io["x_lens"].long()))
    for u in (0, 1):
        theirs = tiny.io[f"noncausal/utt{u}_alone/encoder_out"]
        near(encoded.values[u : u + 1, : theirs.shape[1]], theirs)
        assert int(encoded.lengths[u]) == theirs.shape[1]
        assert not encoded.values[u, theirs.shape[1] :].any()


def test_reference_padding_gives_the_batched_numbers(tiny: Tiny) -> None:
    encoder = tiny.encoder("noncausal", "reference")
    seen: list[Tensor] = []
    for stack in encoder.stacks:
        stack.register_forward_hook(lambda _m, _i, output: seen.append(output))
    batch = Padded(tiny.io["x"], tiny.io["x_lens"].long())
    with torch.no_grad():
        embedded = encoder.embed(batch.values)
        encoded = encoder(batch)
    near(embedded, tiny.io["noncausal/encoder_embed"])
    for i, output in enumerate(seen):
        near(output.transpose(0, 1), tiny.io[f"noncausal/stack{i}_out_TNC"])
    near(encoder._all_channels(seen).transpose(0, 1), tiny.io["noncausal/full_dim_out_TNC"])
    near(encoded.values, tiny.io["noncausal/encoder_out"])
    assert encoded.lengths.tolist() == tiny.io["noncausal/encoder_out_lens"].tolist()
    near(tiny.log_probs("noncausal", encoded.values), tiny.io["noncausal/ctc_log_probs"], CTC_TOLERANCE)


def test_gradients_of_the_encoder_reach_every_parameter(tiny: Tiny) -> None:
    """The golden CTC loss from the batched encoder; its gradient agrees with a step along it."""
    encoder = tiny.encoder("noncausal", "reference")
    encoded = encoder(Padded(tiny.io["x"], tiny.io["x_lens"].long()))
    targets = tiny.expected["noncausal"]["y"]
    loss = torch.nn.functional.ctc_loss(
        tiny.log_probs("noncausal", encoded.values).transpose(0, 1),
        torch.tensor([token for y in targets for token in y]),
        encoded.lengths,
        torch.tensor([len(y) for y in targets]),
        reduction="sum",
    )
    assert loss.item() == pytest.approx(tiny.expected["noncausal"]["ctc_loss"], rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in encoder.parameters())


@pytest.mark.parametrize(("chunk", "left"), [(-1, -1), (16, 64), (32, 64)])
def test_chunk_masked_pass(tiny: Tiny, chunk: int, left: int) -> None:
    name = f"causal/sim_c{chunk}_l{left}"
    batch = Padded(tiny.io["x"], tiny.io["x_lens"].long())
    encoder = tiny.encoder("causal", "reference")
    seen: list[Tensor] = []
    for i in (0, 3):
        encoder.stacks[i].register_forward_hook(lambda _m, _i, output: seen.append(output))
    with torch.no_grad():
        encoded = encoder(batch, chunk=chunk, left=left)
    near(encoded.values, tiny.io[f"{name}/encoder_out"])
    near(seen[0].transpose(0, 1), tiny.io[f"{name}/stack0_out_TNC"])
    near(seen[1].transpose(0, 1), tiny.io[f"{name}/stack3_out_TNC"])
    assert encoded.lengths.tolist() == tiny.io[f"{name}/encoder_out_lens"].tolist()
    near(tiny.log_probs("causal", encoded.values), tiny.io[f"{name}/ctc_log_probs"], CTC_TOLERANCE)
    if chunk < 0:
        return
    with torch.no_grad():
        exact = tiny.encoder("causal", "exact")(batch, chunk=chunk, left=left)
    for u in (0, 1):
        theirs = tiny.io[f"{name}/utt{u}_alone/encoder_out"]
        near(exact.values[u, : theirs.shape[0]], theirs)


@pytest.mark.parametrize("u", [0, 1])
@pytest.mark.parametrize(("chunk", "left"), [(16, 64), (32, 64)])
def test_streaming(tiny: Tiny, chunk: int, left: int, u: int) -> None:
    encoder = tiny.encoder("causal", "exact")
    x = tiny.utterance(u)
    x = torch.nn.functional.pad(x, (0, 0, 0, 13), value=PADDING_VALUE)
    state, chunks, at = encoder.start(1, chunk=chunk, left=left), [], 0
    with torch.no_grad():
        while at < x.shape[1]:
            part = x[:, at : at + window(chunk)]
            part = torch.nn.functional.pad(
                part, (0, 0, 0, window(chunk) - part.shape[1]), value=PADDING_VALUE
            )
            encoded, state = encoder.step(alone(part), state)
            assert encoded.lengths.tolist() == [chunk // 2]
            chunks.append(encoded.values)
            at += 2 * chunk
    near(torch.cat(chunks, dim=1)[0], tiny.io[f"causal/stream_c{chunk}_l{left}/utt{u}/encoder_out"])
    if u == 1:
        return
    name = f"causal/stream_c{chunk}_l{left}/utt0/final_"
    assert state.processed.tolist() == tiny.io[f"{name}processed_lens"].tolist()
    near(state.before.permute(0, 3, 1, 2), tiny.io[f"{name}state_embed_left_pad"])
    first, name = state.stacks[0][0], f"{name}state_layer0_cached_"
    near(first.keys.transpose(0, 1), tiny.io[f"{name}key"])
    near(first.gated[None], tiny.io[f"{name}nonlin_attn"])
    near(first.values1.transpose(0, 1), tiny.io[f"{name}val1"])
    near(first.values2.transpose(0, 1), tiny.io[f"{name}val2"])
    near(first.convolution1.transpose(1, 2), tiny.io[f"{name}conv1"])
    near(first.convolution2.transpose(1, 2), tiny.io[f"{name}conv2"])


@pytest.mark.parametrize("u", [0, 1])
@pytest.mark.parametrize(("chunk", "left"), [(16, 64), (32, 64)])
def test_chunk_masked_pass_over_padded_input(tiny: Tiny, chunk: int, left: int, u: int) -> None:
    theirs = tiny.io[f"causal/sim_c{chunk}_l{left}/utt{u}_alone_logeps_padded/encoder_out"]
    x = tiny.utterance(u)
    frames = 4 * theirs.shape[0] + 13
    x = torch.nn.functional.pad(x, (0, 0, 0, max(0, frames - x.shape[1])), value=PADDING_VALUE)[:, :frames]
    with torch.no_grad():
        encoded = tiny.encoder("causal", "exact")(alone(x), chunk=chunk, left=left)
    near(encoded.values[0, : theirs.shape[0]], theirs)


@pytest.mark.parametrize("u", [0, 1])
@pytest.mark.parametrize("with_config", [True, False])
def test_converted_model(tiny: Tiny, u: int, with_config: bool) -> None:
    config = tiny.folder / "config.json" if with_config else None
    model = load(tiny.folder / "noncausal.pt", config=config)
    assert not model.training
    with torch.no_grad():
        encoded = model.encoder(alone(tiny.utterance(u)))
        log_probs = model.heads["ctc"].log_probs(encoded)  # type: ignore[operator]
    near(encoded.values, tiny.io[f"noncausal/utt{u}_alone/encoder_out"])
    if u == 0:  # not touched by padding in the batch
        near(log_probs.values, tiny.io["noncausal/ctc_log_probs"][:1], CTC_TOLERANCE)
    theirs = tiny.log_probs("noncausal", tiny.io[f"noncausal/utt{u}_alone/encoder_out"])
    near(log_probs.values, theirs, CTC_TOLERANCE)
    best = log_probs.values[0].argmax(dim=-1)
    tokens = [int(t) for t in torch.unique_consecutive(best) if t]
    if u == 0:
        assert tokens == tiny.expected["noncausal"]["decode"]["ctc_greedy"][0]


# The transducer: its losses and their gradients with those of the whole network, its searches, its training.


class Whole:
    """Encoder with the reference's padding, both heads, and the golden batch."""

    def __init__(self, tiny: Tiny) -> None:
        self.encoder = tiny.encoder("noncausal", "reference")
        heads = load(tiny.folder / "noncausal.pt", config=tiny.folder / "config.json").heads
        self.ctc = cast("CtcHead", heads["ctc"]).eval()
        self.transducer = cast("TransducerHead", heads["transducer"]).eval()
        self.batch = Padded(tiny.io["x"], tiny.io["x_lens"].long())
        self.targets = pad([torch.tensor(y) for y in tiny.expected["noncausal"]["y"]])

    def losses(self) -> tuple[Tensor, Tensor, Tensor]:
        """Simple, pruned and CTC loss, summed over the batch."""
        encoded = self.encoder(self.batch)
        simple, pruned = self.transducer.both_losses(encoded, self.targets)
        return simple.sum(), pruned.sum(), self.ctc.loss(encoded, self.targets).sum()

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """By the reference's names, in the order of the file."""
        modules = {"": self.encoder, "ctc.": self.ctc, "transducer.": self.transducer}
        return {
            theirs(prefix + name): parameter
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
        }


_BACK = (
    (r"^ctc\.projection\.", "ctc_output.1."),
    (r"^transducer\.predictor\.", "decoder."),
    (r"^transducer\.joiner\.encoder_proj\.", "joiner.encoder_proj."),
    (r"^transducer\.joiner\.predictor_proj\.", "joiner.decoder_proj."),
    (r"^transducer\.joiner\.output\.", "joiner.output_linear."),
    (r"^transducer\.simple_encoder\.", "simple_am_proj."),
    (r"^transducer\.simple_predictor\.", "simple_lm_proj."),
    (r"^embed\.", "encoder_embed."),
    (r"^stacks\.0\.", "encoder.encoders.0."),
    (r"^stacks\.(\d+)\.layers\.", r"encoder.encoders.\1.encoder.layers."),
    (r"^stacks\.(\d+)\.", r"encoder.encoders.\1."),
    (r"^downsample_output\.", "encoder.downsample_output."),
)


def theirs(name: str) -> str:
    for pattern, replacement in _BACK:
        name, changed = re.subn(pattern, replacement, name)
        if changed:
            break
    return name


def test_ranges(tiny: Tiny) -> None:
    head = Whole(tiny).transducer
    encoded = Padded(tiny.io["noncausal/encoder_out"], tiny.io["noncausal/encoder_out_lens"].long())
    targets = pad([torch.tensor(y) for y in tiny.expected["noncausal"]["y"]])
    assert head.simple_encoder is not None
    assert head.simple_predictor is not None
    paths = simple_paths(
        Padded(head.simple_encoder(encoded.values), encoded.lengths),
        head.simple_predictor(head.predictor(targets)),
        targets,
        lm_scale=0.25,
    )
    starts, widths = prune_ranges(paths, encoded.lengths, targets.lengths, 5)
    assert widths.tolist() == [5, 5]
    assert torch.equal(starts[:, :, None] + torch.arange(5), tiny.io["noncausal/ranges"].long())


def test_losses_and_gradients_of_all_heads(tiny: Tiny) -> None:
    whole, expected = Whole(tiny), tiny.expected["noncausal"]
    simple, pruned, ctc = whole.losses()
    for loss, name in ((simple, "simple_loss"), (pruned, "pruned_loss"), (ctc, "ctc_loss")):
        assert loss.item() == pytest.approx(expected[name], rel=1e-5)
    (0.5 * simple + pruned + 0.2 * ctc).backward()
    wanted = expected["grad_norm_and_sum_of_0p5simple_plus_pruned_plus_0p2ctc"]
    parameters = whole.parameters()
    assert set(wanted) <= set(parameters)
    for name, (norm, total) in wanted.items():
        gradient = parameters[name].grad
        assert gradient is not None, name
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-3), name
        assert gradient.sum().item() == pytest.approx(total, abs=1e-3 * norm * gradient.numel() ** 0.5), name
        golden = tiny.io.get(f"noncausal/grad/{name}")
        if golden is not None:
            assert (gradient - golden).norm().item() <= 1e-3 * golden.norm().item(), name


def test_twelve_training_steps(tiny: Tiny) -> None:
    expected = json.loads((tiny.folder / "train_steps.json").read_text(encoding="utf-8"))
    whole = Whole(tiny)
    parameters = whole.parameters()
    optimizer = ScaledAdam(parameters.values(), lr=0.045, clipping_scale=2.0)
    eden = EdenConfig(lr=0.045, warmup_start=0.1)
    for step in expected["steps"]:
        simple, pruned, ctc = whole.losses()
        for loss, name in ((simple, "simple_loss"), (pruned, "pruned_loss"), (ctc, "ctc_loss")):
            assert loss.item() == pytest.approx(step[name], rel=1e-3), (step["step"], name)
        (0.5 * simple + pruned + 0.2 * ctc).backward()
        rate = learning_rate(eden, step=step["step"], epoch=0, total_steps=100)
        assert rate == pytest.approx(step["lr"], rel=1e-9)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    unused = set(tiny.expected["noncausal"]["params_without_grad"])
    assert set(expected["param_norms"]) - unused == set(parameters)
    for name in parameters:
        norm = expected["param_norms"][name]
        assert parameters[name].norm().item() == pytest.approx(norm, rel=1e-2), name


SEARCHES = {
    "transducer_greedy_batch": TransducerGreedyConfig(),
    "transducer_greedy_maxsym1": TransducerGreedyConfig(symbols_per_frame=1),
    "transducer_greedy_maxsym3": TransducerGreedyConfig(symbols_per_frame=3),
    "modified_beam_search_4": TransducerBeamConfig(beam=4),
}

DECODED = (
    ("noncausal", "noncausal/encoder_out", "decode"),
    ("causal", "causal/sim_c16_l64/encoder_out", "decode_sim_first_stream_config"),
)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("model", "frames", "part"), DECODED)
def test_transducer_searches(tiny: Tiny, model: str, frames: str, part: str, search: str) -> None:
    heads = dict(load(tiny.folder / f"{model}.pt", config=tiny.folder / "config.json").named_heads())
    encoded = Padded(tiny.io[frames], tiny.io[f"{frames}_lens"].long())
    found = build_encoded_search(SEARCHES[search], heads, 1.0)(encoded)
    expected = tiny.expected[model][part]
    assert [list(readings[0].tokens) for readings in found] == expected[search]
    assert [list(readings[0].times or ()) for readings in found] == expected[f"{search}_timestamps"]
