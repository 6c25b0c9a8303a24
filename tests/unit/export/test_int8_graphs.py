"""Whole models in eight bits say nearly what they said: any encoder, any length, batches, silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from test_graphs import noise, run, session

from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.export.plan import plan_bundle
from firstwords.export.quantize import in_eight_bits, pack_vectors
from firstwords.export.trace import to_onnx
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.folding import folded_copy
from firstwords.nn.norms import MaskedBatchNorm
from tone_corpus import tone_recipe

ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "zipformer": {},
    "quartznet": {
        "kind": "quartznet",
        "channels": [48, 48],
        "kernels": [5, 7],
        "blocks": [1, 1],
        "repeats": 2,
        "last": [48, 64],
        "last_kernel": 5,
    },
    "mobilenet": {
        "kind": "mobilenet",
        "channels": [24, 32],
        "blocks": [1, 2],
        "kernels": [5, 7],
        "strides": [2, 2],
        "out": 64,
    },
}
SHARE = 0.31  # of the floats' file; it is 0.298 to 0.304
SILENCE = float(np.log(1.2e-7))  # a log-mel band of nothing
INPUTS = {
    "noise": ([200], noise(1, 200, 80)),
    "batch": ([200, 61], noise(2, 200, 80)),
    "silence": ([200], torch.full((1, 200, 80), SILENCE)),
    "one frame": ([1], noise(1, 1, 80)),
    "no frame": ([0], torch.zeros(1, 0, 80)),
}


@pytest.fixture(scope="module", params=list(ENCODERS))
def graphs(request: pytest.FixtureRequest) -> tuple[str, bytes, bytes]:
    """Name of an encoder, its graph in floats, the same in eight bits."""
    torch.manual_seed(0)
    values = tone_recipe().model_dump()
    values["encoder"] = dict(ENCODERS[request.param]) or values["encoder"]
    model = SpeechModel(Recipe.model_validate(values), 30).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, MaskedBatchNorm):  # statistics as various as those of trained models
                module.running_var.copy_(torch.randn_like(module.running_var).exp())
                module.running_mean.normal_()
                module.weight.normal_(1, 0.2)
                module.bias.normal_(0, 0.5)
    content = to_onnx(plan_bundle(model, kind="ctc").graphs["model"])
    return request.param, content, in_eight_bits(content)


@pytest.mark.parametrize("kind", ["conformer", "e_branchformer"])
def test_layers_ask_for_no_sizes(kind: str) -> None:
    """Sizes of sequences are asked of what all layers share, however many there are."""
    counts: list[Counter[str]] = []
    for layers in (1, 3):
        values = tone_recipe().model_dump()
        values["encoder"] = {"kind": kind, "dim": 16, "heads": 2, "feedforward": 32, "layers": layers}
        model = folded_copy(SpeechModel(Recipe.model_validate(values), 30))[0]
        graph = onnx.load_from_string(to_onnx(plan_bundle(model, kind="ctc").graphs["model"])).graph
        counts.append(Counter(node.op_type for node in graph.node))
    assert counts[0]["Shape"] == counts[1]["Shape"]
    assert counts[0]["MatMul"] < counts[1]["MatMul"]


def test_fewer_bytes(graphs: tuple[str, bytes, bytes]) -> None:
    _, content, small = graphs
    assert len(small) < SHARE * len(content)


def test_tiny_takes_at_most_two_and_a_half_megabytes() -> None:
    """With as many pieces as a corpus of letters has; weights and vectors as various as trained ones."""
    recipe = tone_recipe().with_(encoder=ZipformerConfig.preset("tiny"))
    torch.manual_seed(0)
    model = SpeechModel(recipe, 297).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert 2.3e6 < model.num_parameters < 2.5e6
    small = in_eight_bits(to_onnx(plan_bundle(model, kind="ctc").graphs["model"]))
    assert len(small) <= 2_500_000


def test_standard_operators_alone(graphs: tuple[str, bytes, bytes]) -> None:
    model = onnx.load_from_string(graphs[2])
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize("given", list(INPUTS))
def test_near_what_floats_say(graphs: tuple[str, bytes, bytes], given: str) -> None:
    lengths, x = INPUTS[given]
    _, content, small = graphs
    wanted, count = run(session(content), x, torch.tensor(lengths))
    got, same = run(session(small), x, torch.tensor(lengths))
    assert same.tolist() == count.tolist()
    assert got.shape == wanted.shape
    for row, length in enumerate(count):
        exact, near = wanted[row, :length], got[row, :length]
        if length:
            assert np.isfinite(near).all()
            assert np.sqrt(((near - exact) ** 2).mean()) < 0.015 * exact.std(axis=1).mean()


def test_whole_numbers_of_a_graph_stay(graphs: tuple[str, bytes, bytes]) -> None:
    """Those of the Zipformer's positions, by which angles are multiplied."""
    name, content, _ = graphs
    model = onnx.load_from_string(content)
    wanted = {
        tensor.name: values
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 1
        for values in [onnx.numpy_helper.to_array(tensor)]
        if len(values) >= 8 and (values == np.rint(values)).all()
    }
    assert any(np.ptp(values) for values in wanted.values()) == (name == "zipformer")
    pack_vectors(model)
    for vector in wanted:
        model.graph.output.append(onnx.helper.make_tensor_value_info(vector, onnx.TensorProto.FLOAT, None))
    _, _, *found = run(session(model.SerializeToString()), noise(1, 20, 80), torch.tensor([20]))
    for got, values in zip(found, wanted.values(), strict=True):
        np.testing.assert_array_equal(got, values)
