"""Graphs in eight bits: how far from the others they may be, and what they are made of."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import TensorProto, checker, helper, numpy_helper
from test_shrink import model_of, result

from firstwords.export.quantize import pack_vectors, quantize_weights
from firstwords.export.shrink import compact, shorten_names

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
        NODE("Min", ["b", "huge"], ["c"]),
        NODE("Add", ["c", "short"], ["y"]),
    ]
    model = model_of(nodes, weights, (2, 40))
    x = random(2, 40)
    wanted = result(model, x)
    pack_vectors(model)
    checker.check_model(model, full_check=True)
    floats = [list(t.dims) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert sorted(floats) == [[1], [9, 1], [9, 1]]
    error = np.abs(result(model, x) - wanted)
    span = float(np.ptp(weights["low"]))
    assert 0 < error.max() < 0.51 / 255 * (2 * span + np.abs(x + weights["low"]).max())


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
