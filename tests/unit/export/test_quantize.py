"""Graphs in eight bits: how far from the others they may be, and what they are made of."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, checker, helper, numpy_helper
from test_graphs import session
from test_shrink import model_of, result

from firstwords.encoders.zipformer.attention import RelativePositions
from firstwords.export.graphs import Graph
from firstwords.export.quantize import in_eight_bits, pack_vectors, quantize_weights
from firstwords.export.shrink import compact, shorten_names
from firstwords.export.trace import to_onnx
from firstwords.nn.norms import MaskedBatchNorm

GENERATOR = np.random.default_rng(0)
NODE = helper.make_node
LEVELS = np.array([0, 255, 17, 99, 128, 1, 200, 64], np.float32)  # eight bits hold them as they are


def random(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


def test_products_differ_by_half_a_step_of_the_weights() -> None:
    """The input needs no rounding, so what is left is that of the weights: 1/127 of a channel's largest."""
    weight = random(8, 20) * np.logspace(-4, 1, 20, dtype=np.float32)
    weight[:, 3] = 0.0
    model = model_of([NODE("MatMul", ["x", "w"], ["y"])], {"w": weight}, (1, 8))
    quantize_weights(model)
    checker.check_model(model, full_check=True)
    step = np.abs(weight).max(axis=0) / 127 * np.exp(np.log(1e6) / 254)  # the grid of scales: 5.5 % at most
    error = np.abs(result(model, LEVELS[None]) - LEVELS[None].astype(np.float64) @ weight)[0]
    assert (error <= 0.5 * step * LEVELS.sum() * 1.001).all()
    assert error[3] == 0
    assert error.max() > 0


def test_an_input_of_several_products_is_measured_once() -> None:
    weights = {"a": random(8, 6), "b": random(8, 6), "c": random(6, 6)}
    nodes = [
        NODE("MatMul", ["x", "a"], ["p"]),
        NODE("MatMul", ["x", "b"], ["q"]),
        NODE("MatMul", ["p", "c"], ["r"]),
        NODE("Add", ["q", "r"], ["y"]),
    ]
    model = model_of(nodes, weights, (5, 8))
    x = random(5, 8)
    wanted = result(model, x)
    quantize_weights(model)
    found = Counter(node.op_type for node in model.graph.node)
    assert (found["DynamicQuantizeLinear"], found["MatMulInteger"], found["MatMul"]) == (2, 3, 0)
    assert np.abs(result(model, x) - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("turned", [0, 1])
def test_products_with_a_bias(turned: int) -> None:
    weight, bias = random(8, 6), random(6)
    given = {"w": np.ascontiguousarray(weight.T) if turned else weight, "b": bias}
    model = model_of([NODE("Gemm", ["x", "w", "b"], ["y"], transB=turned)], given, (3, 8))
    x = random(3, 8)
    quantize_weights(model)
    assert "MatMulInteger" in {node.op_type for node in model.graph.node}
    step, rounded = np.ptp(np.append(x, 0)) / 255, np.abs(weight).max(axis=0) / 127 * 1.01
    limit = 0.5 * (step * np.abs(weight).sum(axis=0) + rounded * (np.abs(x).sum(axis=1) + step)[:, None])
    assert (np.abs(result(model, x) - (x @ weight + bias)) < limit).all()


def test_convolutions_and_tables_are_stored_in_eight_bits() -> None:
    kernel = random(6, 1, 15) * np.logspace(-3, 1, 6, dtype=np.float32)[:, None, None]
    table = random(30, 6)
    weights = {"w": kernel, "t": table, "ids": np.arange(30, dtype=np.int64)[::-1].copy()}
    nodes = [
        NODE("Gather", ["t", "ids"], ["g"]),
        NODE("Transpose", ["g"], ["h"], perm=[1, 0]),
        NODE("Add", ["x", "h"], ["z"]),
        NODE("Conv", ["z", "w"], ["y"], group=6, pads=[7, 7]),
    ]
    model = model_of(nodes, weights, (1, 6, 30))
    x = random(1, 6, 30)
    wanted = result(model, x)
    quantize_weights(model)
    shorten_names(model)
    checker.check_model(model, full_check=True)
    eight = [tuple(t.dims) for t in model.graph.initializer if t.data_type == TensorProto.INT8]
    assert sorted(eight) == [(6, 1, 15), (30, 6)]
    error = np.abs(result(model, x) - wanted)[0]
    for channel in range(6):  # each has steps of its own
        peak = np.abs(kernel[channel]).max()
        limit = 0.55 / 127 * (peak * 15 * (np.abs(x).max() + 4) + np.abs(kernel[channel]).sum() * 4)
        assert error[channel].max() < limit


@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers_are_stored_in_eight_bits(directions: int) -> None:
    draw = np.random.default_rng(1)
    shapes = {"w": (directions, 16, 8), "r": (directions, 16, 4), "b": (directions, 32)}
    weights = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    way = "forward" if directions == 1 else "bidirectional"
    nodes = [
        NODE("LSTM", ["x", *weights], ["said"], hidden_size=4, direction=way),
        NODE("Reshape", ["said", "shape"], ["y"]),
    ]
    model = model_of(nodes, weights | {"shape": np.array([6, 3, -1])}, (6, 3, 8))
    x = draw.standard_normal((6, 3, 8)).astype(np.float32)
    wanted = result(model, x)
    assert wanted.shape == (6, 3, 4 * directions)
    quantize_weights(model)
    checker.check_model(model, full_check=True)
    eight = [tuple(t.dims) for t in model.graph.initializer if t.data_type == TensorProto.INT8]
    assert sorted(eight) == [(directions, 16, 4), (directions, 16, 8)]
    error = np.abs(result(model, x) - wanted).max()
    assert 0 < error < 0.05  # outputs lie between -1 and 1


def test_a_constant_that_is_no_weight_alone_stays() -> None:
    weight = random(8, 8)
    nodes = [NODE("MatMul", ["x", "w"], ["p"]), NODE("Add", ["p", "w"], ["y"])]
    model = model_of(nodes, {"w": weight}, (8, 8))
    x = random(8, 8)
    wanted = result(model, x)
    quantize_weights(model)
    np.testing.assert_array_equal(result(model, x), wanted)


def test_vectors_in_bytes() -> None:
    """A step is 1/255 of the range of 16 numbers of one vector: as fine near -4 and beside large ones."""
    weights = {
        "low": (random(40) * 0.1 - 4).astype(np.float32),
        "scale": np.linspace(1, 2, 40, dtype=np.float32),
        "huge": np.linspace(1e6, 2e6, 40, dtype=np.float32),
        "short": random(1),
    }
    nodes = [
        NODE("Add", ["x", "low"], ["a"]),
        NODE("Mul", ["a", "scale"], ["b"]),
        NODE("Min", ["b", "huge"], ["c"]),  # neither gain nor bias
        NODE("Add", ["c", "short"], ["y"]),
    ]
    model = model_of(nodes, weights, (2, 40))
    x = random(2, 40)
    wanted = result(model, x)
    pack_vectors(model)
    checker.check_model(model, full_check=True)
    floats = [list(t.dims) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert sorted(floats) == [[1], [6, 1], [6, 1], [40]]
    error = np.abs(result(model, x) - wanted)
    span = float(np.ptp(weights["low"]))
    assert 0 < error.max() < 0.51 / 255 * (2 * span + np.abs(x + weights["low"]).max())


def log_normal(seed: int, count: int) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, 2, count)).astype(np.float32)


def kept(values: np.ndarray, reader: str) -> np.ndarray:
    """What is left of a vector that this operator reads, packed beside two others."""
    x = np.full((1, len(values)), 1.0 if reader == "Mul" else 0.0, np.float32)
    others = {name: np.linspace(1, 2, len(values), dtype=np.float32) for name in ("p", "q")}
    given = {"v": values, **others, "h": log_normal(9, len(values))}
    nodes = [NODE(reader, ["x", "v"], ["y"])]
    for name in ("p", "q", "h"):  # computed, and no part of the result
        nodes += [NODE("Mul", ["x", name], [f"{name}/y"])]
    model = model_of(nodes, given, x.shape)
    pack_vectors(model)
    checker.check_model(model, full_check=True)
    return result(model, x)[0]


@pytest.mark.parametrize("seed", range(4))
def test_gains_are_near_each_by_itself(seed: int) -> None:
    gains = log_normal(seed, 64)
    error = np.abs(kept(gains, "Mul") - gains)
    assert (error <= 0.0101 * gains).all()
    assert error.max() > 0


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        (np.linspace(-1, 1, 32), 0.5 / 255),
        (np.linspace(-1e-3, 1e-3, 32), 1e-3 / 255),
        (np.r_[np.linspace(-1, 1, 31), 500.0], 1 / 4000),  # bytes would be off by 1: float16
        (np.linspace(99.3, 160.1, 32), 0.01),  # float16 would be off by 0.06: as it was
        (np.linspace(-7e4, 7e4, 33), 0.0),  # more than float16 holds
    ],
)
def test_biases_are_near_beside_their_vector(values: np.ndarray, limit: float) -> None:
    values = values.astype(np.float32)
    error = np.abs(kept(values, "Add") - values)[np.abs(values) < 400]
    assert error.max(initial=0) <= limit


@pytest.mark.parametrize(("count", "reader"), [(24, "Mul"), (40, "Add"), (3000, "Mul")])
def test_whole_numbers_stay(count: int, reader: str) -> None:
    values = np.arange(1, count + 1, dtype=np.float32)
    np.testing.assert_array_equal(kept(values, reader), values)


def test_positions_of_a_zipformer_stay() -> None:
    """Its table is cosines of multiples, 1 to half the width; eight bits would turn them by 0.02."""
    table = Positions().eval()
    graph = Graph(table, (torch.zeros(1, 9, 4),), ("x",), ("y",), {"x": {1: "T"}, "y": {0: "O"}})
    content = to_onnx(graph)
    for length in (1, 9, 40):
        x = np.zeros((1, length, 4), np.float32)
        wanted = session(content).run(None, {"x": x})[0]
        got = session(in_eight_bits(content)).run(None, {"x": x})[0]
        np.testing.assert_array_equal(got, wanted)


class Positions(torch.nn.Module):
    """The relative positions of as many frames as there are, times gains that are packed beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = RelativePositions(48, 0.0)
        self.gains = torch.nn.Parameter(torch.linspace(0.5, 0.5, 48))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.positions(x.shape[1], 0, x) * self.gains


def test_batch_norms_of_very_different_variances() -> None:
    """A variance of 0.01 beside 10 needs a gain of 10 beside 0.3: linear bytes of 16 are coarse for one."""
    norm = Normed().eval()
    content = to_onnx(Graph(norm, (torch.randn(1, 9, 32),), ("x",), ("y",), {"x": {1: "T"}, "y": {1: "T"}}))
    small = in_eight_bits(content)
    kinds = {node.op_type for node in onnx.load_from_string(small).graph.node}
    assert "BatchNormalization" not in kinds
    x = 0.5 * random(1, 400, 32)
    with torch.inference_mode():
        wanted = norm(torch.from_numpy(x)).numpy()
    exact, near = (session(graph).run(None, {"x": x})[0] for graph in (content, small))
    np.testing.assert_allclose(exact, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    rms = np.sqrt((wanted**2).mean(axis=(0, 1)))
    assert (np.sqrt(((near - exact) ** 2).mean(axis=(0, 1))) < 0.05 * rms).all()
    assert 0 < np.sqrt(((near - exact) ** 2).mean()) < 0.01 * np.sqrt((wanted**2).mean())


class Normed(torch.nn.Module):
    """A depthwise convolution and a batch norm, whose channels vary as those of trained models."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = torch.nn.Conv1d(32, 32, 5, padding=2, groups=32)
        self.norm = MaskedBatchNorm(32)
        with torch.no_grad():
            self.norm.running_var.copy_(torch.randn(32, generator=generator).exp())
            self.norm.running_var[:2] = torch.tensor([0.01, 10.0])
            sizes = self.norm.running_var.sqrt()
            self.conv.weight.normal_(generator=generator).mul_(sizes[:, None, None])
            self.norm.running_mean.normal_(generator=generator).mul_(sizes)
            self.norm.weight.normal_(1, 0.2, generator=generator)
            self.norm.bias.normal_(generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize("dead", [1e-30, 1e-45, 0.0])
def test_a_dead_channel_makes_no_other_coarse(dead: float) -> None:
    weight = random(64, 20)
    alive = model_of([NODE("MatMul", ["x", "w"], ["y"])], {"w": weight.copy()}, (1, 64))
    weight[:, 7] = dead
    model = model_of([NODE("MatMul", ["x", "w"], ["y"])], {"w": weight}, (1, 64))
    x = np.resize(LEVELS, (1, 64))
    wanted = x.astype(np.float64) @ weight
    for one in (alive, model):
        quantize_weights(one)
    got = result(model, x)
    assert np.abs(got[0, 7]) <= 1e-3
    error, before = (np.abs(found - wanted)[0] for found in (got, result(alive, x)))
    others = np.arange(20) != 7
    assert error[others].mean() < 1.2 * before[others].mean()


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38])
def test_weights_that_are_all_dead(size: float) -> None:
    weight = np.full((8, 6), size, np.float32)
    model = model_of([NODE("MatMul", ["x", "w"], ["y"])], {"w": weight}, (1, 8))
    quantize_weights(model)
    assert (np.abs(result(model, LEVELS[None])) < 1e-30).all()


def test_the_same_graph_in_fewer_bytes() -> None:
    weights = {
        "a": np.array([2, 3], np.int64),
        "b": np.array([2, 3], np.int64),
        "p": np.array([-1], np.int64),
    }
    nodes = [
        NODE("Reshape", ["x", "a"], ["r"], allowzero=0),
        NODE("Reshape", ["r", "b"], ["s"], allowzero=0),
        NODE("Softmax", ["s"], ["t"], axis=-1),
        NODE("Softmax", ["t"], ["u"], axis=0),
        NODE("Reshape", ["u", "p"], ["y"]),
    ]
    model = model_of(nodes, weights, (6,))
    x = random(6)
    wanted, before = result(model, x), model.ByteSize()
    compact(model)
    checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(result(model, x), wanted)
    assert model.ByteSize() < before - 40
    assert [len(node.attribute) for node in model.graph.node] == [0, 0, 0, 1, 0]
    assert [numpy_helper.to_array(t).tolist() for t in model.graph.initializer] == [[2, 3], [-1]]
