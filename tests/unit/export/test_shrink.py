"""Smaller files compute what the larger ones did, as far as their numbers allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_graphs import session

from firstwords.errors import ConfigError
from firstwords.export.graphs import frontend_graph
from firstwords.export.shrink import shorten_names, shrink_tables
from firstwords.export.trace import refuse_branches, to_onnx
from firstwords.features.fbank import Fbank, FbankConfig

GENERATOR = np.random.default_rng(0)


def model_of(nodes: list[Any], weights: dict[str, np.ndarray], x: tuple[int, ...]) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(x))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def result(model: Any, x: np.ndarray) -> np.ndarray:
    return session(model.SerializeToString()).run(None, {"x": x})[0]


def test_names_are_all_different_and_ports_keep_theirs() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["long/0"])]
    nodes += [helper.make_node("Neg", [f"long/{i}"], [f"long/{i + 1}"], name="node") for i in range(4001)]
    nodes += [helper.make_node("Neg", ["long/4001"], ["y"])]
    model = model_of(nodes, {}, (3,))
    shorten_names(model)
    names = [node.output[0] for node in model.graph.node]
    assert len(set(names)) == len(names) == 4003
    assert max(map(len, names)) == 3
    assert (model.graph.node[0].input[0], names[-1]) == ("x", "y")
    x = np.ones(3, np.float32)
    np.testing.assert_array_equal(result(model, x), -x)


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_graphs_within_graphs_are_refused(kind: str) -> None:
    """What rewrites a graph follows the names of one."""
    given = {"yes": np.array(True), "once": np.array(1, np.int64)}
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, None)
    if kind == "If":
        body = helper.make_graph([helper.make_node("Neg", ["x"], ["v"])], "body", [], [value])
        node = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)
    else:
        inner = [helper.make_node("Neg", ["before"], ["v"]), helper.make_node("Identity", ["flag"], ["go"])]
        ports = [helper.make_tensor_value_info("i", TensorProto.INT64, []), flag]
        ports += [helper.make_tensor_value_info("before", TensorProto.FLOAT, None)]
        out = [helper.make_tensor_value_info("go", TensorProto.BOOL, []), value]
        body = helper.make_graph(inner, "body", ports, out)
        node = helper.make_node("Loop", ["once", "yes", "x"], ["y"], body=body)
    plain = model_of([helper.make_node("Neg", ["x"], ["y"])], {}, (3,))
    refuse_branches(plain)
    model = model_of([node], given, (3,))
    onnx.checker.check_model(model)
    with pytest.raises(ConfigError, match=rf"operators: {kind}\)"):
        refuse_branches(model)


def test_tables_are_given_again() -> None:
    fbank = Fbank(FbankConfig(transform="matmul"))
    cosines, sines, filters = fbank.cosines.numpy(), fbank.sines.numpy(), fbank.filters.numpy()
    other = GENERATOR.standard_normal(cosines.shape).astype(np.float32)
    for table, shrinks, exact in (
        (cosines, True, 2e-7),
        (sines, True, 2e-7),
        (filters, True, 0),
        (other, False, 0),
    ):
        x = np.eye(len(table), dtype=np.float32)
        model = model_of([helper.make_node("MatMul", ["x", "table"], ["y"])], {"table": table}, x.shape)
        shrink_tables(model, {fbank.fft_size: (cosines, sines, other)})
        onnx.checker.check_model(model)
        assert (model.ByteSize() < 0.2 * table.nbytes) is shrinks
        np.testing.assert_allclose(result(model, x), table, rtol=0, atol=exact)


def test_a_front_end_is_small() -> None:
    assert len(to_onnx(frontend_graph(Fbank(FbankConfig()).eval()))) < 40_000
