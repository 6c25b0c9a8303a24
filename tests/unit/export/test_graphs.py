"""Graphs give what the model gives: any length, any batch, chunk by chunk."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.export.bundle import BundleFacts
from firstwords.export.graphs import frontend_graph
from firstwords.export.make import Made
from firstwords.export.trace import to_onnx
from firstwords.export.write import describe
from firstwords.features.fbank import FbankConfig
from firstwords.features.mfcc import MfccConfig
from firstwords.features.waveform import WaveformConfig
from firstwords.heads.transducer.head import TransducerHead
from firstwords.model.kinds import FrontendSettings, build_frontend
from firstwords.tensors import Padded

KINDS = ("ctc", "transducer", "streaming ctc", "streaming transducer")
TOLERANCE = 2e-6  # float32 by other kernels, of the largest value: log-probabilities here are down to -1100


def facts_of(made: Made) -> dict[str, Any]:
    return json.loads((made.folder / "bundle.json").read_text(encoding="utf-8"))


def session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def graph(made: Made, part: str, variant: str = "") -> Any:
    return session((made.folder / f"{part}{variant}.onnx").read_bytes())


def run(graph: Any, *values: Any) -> list[np.ndarray]:
    names = [port.name for port in graph.get_inputs()]
    arrays = [v.numpy() if isinstance(v, Tensor) else v for v in values]
    return graph.run(None, dict(zip(names, arrays, strict=True)))


def same(got: np.ndarray, wanted: Any) -> None:
    wanted = np.asarray(wanted)
    largest = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE * largest)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(("policy", "kept"), [("mix", "mix"), ("0", 0), (1, 1), ("error", "error")])
def test_a_bundle_knows_which_channel_its_model_hears(
    bundles: dict[str, Made], policy: str | int, kept: str | int
) -> None:
    made = bundles["ctc"]
    assert facts_of(made)["channels"] == "mix"
    recipe = made.loaded.recipe
    loaded = replace(made.loaded, recipe=recipe.with_(data=recipe.data.with_(channels=policy)))
    facts = describe(made.plan, loaded, {})
    assert facts["channels"] == kept
    read = facts_of(made) | {"channels": facts["channels"]}
    assert BundleFacts.model_validate_json(json.dumps(read)).channels == kept


@pytest.mark.parametrize("lengths", [(0,), (1,), (8,), (9,), (61, 20, 5), (16, 201), (333,)])
def test_offline_graphs_equal_the_model(bundles: dict[str, Made], lengths: tuple[int, ...]) -> None:
    x, x_lens = noise(len(lengths), max(lengths), 80), torch.tensor(lengths)
    model = bundles["ctc"].loaded.model
    head = cast("TransducerHead", model.heads["transducer"])
    with torch.inference_mode():
        encoded = model.encode_frames(Padded(x, x_lens))
        expected = {
            "ctc": model.ctc.log_probs(encoded).values,
            "transducer": head.joiner.encoder_proj(encoded.values),
        }
    for kind, part in (("ctc", "model"), ("transducer", "encoder")):
        values, count = run(graph(bundles[kind], part), x, x_lens)
        assert count.dtype == np.int64
        assert count.tolist() == encoded.lengths.tolist()
        for row, length in enumerate(count):
            got, wanted = values[row, :length], expected[kind][row, :length].numpy()
            same(got, wanted)


def test_transducer_parts_equal_the_head(bundles: dict[str, Made]) -> None:
    head = cast("TransducerHead", bundles["transducer"].loaded.model.heads["transducer"])
    y = torch.tensor([[-1, 0], [-1, 5], [3, 2], [0, 0]])
    with torch.inference_mode():
        state = head.predictor.start(4)
        _, state = head.predictor.step(y[:, 0], state)
        predicted, _ = head.predictor.step(y[:, 1], state)
        wanted = head.joiner.predictor_proj(predicted)
        frames = noise(4, 24)
        logits = head.joiner.join(frames, wanted)
    (vectors,) = run(graph(bundles["transducer"], "decoder"), y)
    same(vectors, wanted.numpy())
    (scores,) = run(graph(bundles["transducer"], "joiner"), frames, wanted)
    same(scores, logits.numpy())


@pytest.mark.parametrize("rows", [1, 3])
def test_streaming_graph_equals_the_encoder_chunk_by_chunk(bundles: dict[str, Made], rows: int) -> None:
    made = bundles["streaming ctc"]
    facts = facts_of(made)
    model = made.loaded.model
    encoder = cast("Zipformer", model.encoder)
    window, hop = facts["chunk"]["frames"], facts["chunk"]["shift"]
    assert (window, hop) == (32 + 13, 32)
    steps = graph(made, "model")
    state = encoder.start(rows, chunk=hop // 2, left=facts["chunk"]["left"] // 2)
    states: list[Any] = [
        np.zeros(_for_rows(s["name"], s["shape"], rows), s["dtype"]) for s in facts["states"]
    ]
    x = noise(rows, hop * 5 + window, 80)
    for number in range(6):
        piece = x[:, number * hop : number * hop + window]
        with torch.inference_mode():
            encoded, state = encoder.step(Padded(piece, torch.full((rows,), window)), state)
            wanted = model.ctc.log_probs(encoded).values
        got, *states = run(steps, piece, *states)
        same(got, wanted.numpy())
        assert got.shape == (rows, hop // 4, made.loaded.model.vocabulary)
    assert states[-1].tolist() == [6 * hop // 2] * rows
    before = states[-2]  # (N, 128, 3, 19): ours in front, zeros behind
    same(before[:, :8], state.before.permute(0, 3, 1, 2))
    assert not before[:, 8:].any()


def _for_rows(name: str, shape: list[int], rows: int) -> list[int]:
    axis = 1 if name.split("_")[1] in ("key", "nonlin", "val1", "val2") else 0
    return [rows if place == axis else size for place, size in enumerate(shape)]


def test_streaming_states_have_the_layout_of_the_contract(bundles: dict[str, Made]) -> None:
    facts = facts_of(bundles["streaming ctc"])
    steps = graph(bundles["streaming ctc"], "model")
    config = bundles["streaming ctc"].loaded.model.recipe.encoder
    layers = sum(config.layers)
    assert len(facts["states"]) == 6 * layers + 2
    names = [state["name"] for state in facts["states"]]
    assert names[:6] == [
        "cached_key_0",
        "cached_nonlin_attn_0",
        "cached_val1_0",
        "cached_val2_0",
        "cached_conv1_0",
        "cached_conv2_0",
    ]
    assert [p.name for p in steps.get_inputs()] == ["x", *names]
    assert [p.name for p in steps.get_outputs()] == ["log_probs", *(f"new_{n}" for n in names)]
    shapes = [state["shape"] for state in facts["states"]]
    left = facts["chunk"]["left"] // 2
    assert shapes[:6] == [
        [left, 1, 16],
        [1, 1, left, 36],
        [left, 1, 16],
        [left, 1, 16],
        [1, 48, 3],
        [1, 48, 3],
    ]
    assert shapes[6][0] == left // 2
    assert shapes[-2:] == [[1, 128, 3, 19], [1]]


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_old_enough_and_whole(bundles: dict[str, Made], kind: str) -> None:
    for path in bundles[kind].folder.glob("*.onnx"):
        model = onnx.load(path)
        assert model.ir_version <= 9, path
        assert all(node.domain == "" for node in model.graph.node), path
        assert next((o.domain, o.version) for o in model.opset_import if not o.domain)[1] <= 17
        assert not any(t.external_data for t in model.graph.initializer)
        assert not any(node.op_type in ("Loop", "If", "Scan") for node in model.graph.node), path


def test_metadata_is_what_engines_read(bundles: dict[str, Made]) -> None:
    def metadata(kind: str, part: str) -> dict[str, str]:
        model = onnx.load(bundles[kind].folder / f"{part}.onnx")
        return {p.key: p.value for p in model.metadata_props}

    for kind in KINDS:
        for part in bundles[kind].plan.graphs.keys() - {"features"}:
            found = metadata(kind, part)
            assert (found["version"], found["model_author"]) == ("1", "firstwords")
            assert found["comment"]
    assert metadata("ctc", "model")["model_type"] == "zipformer2_ctc"
    assert metadata("transducer", "encoder")["model_type"] == "zipformer2"
    decoder = metadata("transducer", "decoder")
    assert (decoder["vocab_size"], decoder["context_size"]) == ("263", "2")
    assert metadata("transducer", "joiner")["joiner_dim"] == "24"
    for kind, part in (("streaming ctc", "model"), ("streaming transducer", "encoder")):
        found = metadata(kind, part)
        assert found["model_type"] == "zipformer2"
        wanted = {
            "encoder_dims": "48,48",
            "query_head_dims": "8,8",
            "value_head_dims": "8,8",
            "num_heads": "2,2",
            "num_encoder_layers": "1,1",
            "cnn_module_kernels": "7,7",
            "left_context_len": "256,128",
            "T": "45",
            "decode_chunk_len": "32",
        }
        assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    "config",
    [
        FbankConfig(),
        FbankConfig(sample_rate=8000, mels=23, snip_edges=True, window="hann", scale=32768),
        FbankConfig(sample_rate=16000, dither=0.001),
        FbankConfig(sample_rate=11025),  # windows of 275 samples, 110 apart
        FbankConfig(window_ms=32, shift_ms=16),
        MfccConfig(mels=40, cepstra=13, deltas=2),
        WaveformConfig(),
    ],
    ids=["usual", "8 kHz", "dither", "odd windows", "half windows", "mfcc", "waveform"],
)
def test_features_equal_the_front_end(config: FrontendSettings) -> None:
    frontend = build_frontend(config).eval().requires_grad_(False)
    features = session(to_onnx(frontend_graph(frontend)))
    for lengths in ((0,), (1,), (79,), (80, 400), (16000, 3, 5601)):
        samples = 0.3 * noise(len(lengths), max(lengths)) + 0.05  # an offset that every frame must lose
        for row, length in enumerate(lengths):
            samples[row, length:] = 0
        wanted = frontend(Padded(samples, torch.tensor(lengths)))
        got, count = run(features, samples, torch.tensor(lengths))
        assert count.tolist() == wanted.lengths.tolist()
        assert got.shape[2] == frontend.dim
        for row, length in enumerate(count):
            # The logarithm of a band near silence moves with the last bit of float32.
            np.testing.assert_allclose(got[row, :length], wanted.values[row, :length], rtol=0, atol=2e-2)
            if length > 3:
                assert np.abs(got[row, :length] - wanted.values[row, :length].numpy()).mean() < 2e-4
