"""Rewritten graphs compute what they did, in fewer steps; polynomials stay within what they promise."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import checker, helper
from test_shrink import model_of, result

from firstwords.export.simplify import fold_scales, fold_shifts, log_of_sigmoid

GENERATOR = np.random.default_rng(0)
NODE = helper.make_node


def random(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


def kinds(model: object) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)  # pyright: ignore[reportAttributeAccessIssue]


def test_shifts_become_part_of_the_biases() -> None:
    weights = {"w": random(6, 8), "b": random(8), "v": random(8, 5), "c": random(5)}
    weights |= {"four": np.array(4, np.float32), "little": np.array(0.035, np.float32)}
    nodes = [
        NODE("MatMul", ["x", "w"], ["p"]),
        NODE("Add", ["b", "p"], ["q"]),
        NODE("Transpose", ["q"], ["t"], perm=[1, 0]),
        NODE("Sub", ["t", "four"], ["s"]),
        NODE("Transpose", ["s"], ["u"], perm=[1, 0]),
        NODE("Relu", ["u"], ["r"]),
        NODE("Sub", ["r", "little"], ["m"]),
        NODE("MatMul", ["m", "v"], ["n"]),
        NODE("Add", ["n", "c"], ["o"]),
        NODE("Add", ["o", "c"], ["y"]),  # the old bias has another reader
    ]
    model = model_of(nodes, weights, (3, 6))
    x = random(3, 6)
    wanted = result(model, x)
    fold_shifts(model)
    checker.check_model(model, full_check=True)
    assert kinds(model)["Sub"] == 0
    np.testing.assert_allclose(result(model, x), wanted, atol=2e-5)


@pytest.mark.parametrize(("pads", "left"), [([0, 0], 0), ([1, 1], 1)])
def test_a_convolution_takes_a_shift_where_nothing_is_filled_up(pads: list[int], left: int) -> None:
    weights = {"w": random(4, 2, 3), "b": random(4), "s": np.array(0.5, np.float32)}
    nodes = [
        NODE("Sub", ["x", "s"], ["m"]),
        NODE("Conv", ["m", "w", "b"], ["y"], pads=pads, kernel_shape=[3]),
    ]
    model = model_of(nodes, weights, (1, 2, 9))
    x = random(1, 2, 9)
    wanted = result(model, x)
    fold_shifts(model)
    assert kinds(model)["Sub"] == left
    np.testing.assert_allclose(result(model, x), wanted, atol=1e-5)


def test_scales_become_part_of_the_matrix() -> None:
    """The second product is read twice, the third multiplied by a vector: both stay."""
    weights = {"w": random(6, 8), "b": random(8), "half": np.array(0.5, np.float32), "v": random(8)}
    nodes = [
        NODE("MatMul", ["x", "w"], ["p"]),
        NODE("Add", ["b", "p"], ["q"]),
        NODE("Mul", ["q", "half"], ["m"]),
        NODE("MatMul", ["x", "w"], ["n"]),
        NODE("Add", ["n", "b"], ["o"]),
        NODE("Mul", ["half", "o"], ["r"]),
        NODE("Add", ["o", "r"], ["s"]),
        NODE("MatMul", ["x", "w"], ["i"]),
        NODE("Add", ["i", "b"], ["j"]),
        NODE("Mul", ["j", "v"], ["k"]),
        NODE("Add", ["s", "k"], ["l"]),
        NODE("Add", ["m", "l"], ["y"]),
    ]
    model = model_of(nodes, weights, (3, 6))
    x = random(3, 6)
    wanted = result(model, x)
    fold_scales(model)
    checker.check_model(model, full_check=True)
    assert kinds(model)["Mul"] == 2
    np.testing.assert_allclose(result(model, x), wanted, atol=2e-5)


def test_what_others_read_stays() -> None:
    """The sum before the shift is read twice, the value behind it is a result."""
    weights = {"b": random(6), "s": np.array(4, np.float32)}
    nodes = [
        NODE("Add", ["x", "b"], ["q"]),
        NODE("Sub", ["q", "s"], ["m"]),
        NODE("Mul", ["m", "q"], ["n"]),
        NODE("Sub", ["n", "s"], ["y"]),
    ]
    model = model_of(nodes, weights, (3, 6))
    x = random(3, 6)
    wanted = result(model, x)
    fold_shifts(model)
    assert kinds(model)["Sub"] == 2
    np.testing.assert_array_equal(result(model, x), wanted)


def test_a_polynomial_instead_of_a_logarithm() -> None:
    nodes = [
        NODE("Abs", ["x"], ["a"]),
        NODE("Sigmoid", ["a"], ["s"]),
        NODE("Log", ["s"], ["l"]),
        NODE("Exp", ["l"], ["e"]),
        NODE("Log", ["e"], ["y"]),  # no sigmoid before it: stays
    ]
    model = model_of(nodes, {}, (5001,))
    log_of_sigmoid(model)
    checker.check_model(model, full_check=True)
    found = kinds(model)
    assert (found["Log"], found["Sigmoid"]) == (1, 0)
    x = np.concatenate([np.linspace(-30, 30, 4999), [-1e4, 1e4]]).astype(np.float32)
    error = result(model, x) + np.logaddexp(0, -np.abs(x.astype(np.float64)))
    assert 4e-4 < np.abs(error).max() < 5.5e-4
