"""Fewer passes over memory in an ONNX file: constants become part of the weights and biases beside them.

    Sub(Add(y, bias), c)             -> Add(y, bias - c)               SwooshL and SwooshR shift their input
    Add(MatMul(Sub(x, c), W), bias)  -> Add(MatMul(x, W), bias - c W)  and their output, by a number each
    Conv(Sub(x, c), W, bias)         -> Conv(x, W, bias - c W)         where nothing is filled up
    Mul(Add(MatMul(x, W), bias), c)  -> Add(MatMul(x, c W), c bias)    half a feed-forward module

``log_of_sigmoid`` takes a logarithm out of graphs in eight bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import numpy.typing as npt

_MOVES = ("Transpose", "Squeeze", "Unsqueeze", "Reshape")  # what changes no number

# ln(1 + u) = c1 u + c2 u^2 + c3 u^3 on [0, 1] within 5.4e-4, the least largest error (Lawson's weights).
LOG1P = (0.9874531, -0.40840641, 0.11463481)


def fold_shifts(model: Any) -> None:
    """Numbers that are taken away before or behind a bias become part of the bias."""
    graph = _Graph(model.graph)
    for node in list(graph.nodes):
        if node.op_type != "Sub" or graph.is_result(node.output[0]):
            continue
        shift = graph.number(node.input[1])
        if shift is None or _into_bias_before(graph, node, shift):
            continue
        _into_bias_behind(graph, node, shift)
    graph.write()


def fold_scales(model: Any) -> None:
    """A number that what a matrix gives is multiplied with becomes part of the matrix and its bias."""
    graph = _Graph(model.graph)
    for node in list(graph.nodes):
        if node.op_type != "Mul" or graph.is_result(node.output[0]):
            continue
        for place in range(2):
            scale = graph.number(node.input[1 - place])
            if scale is not None and _into_matrix(graph, node.input[place], scale):
                node.input[0] = node.input[place]
                graph.skip(node)
                break
    graph.write()


def log_of_sigmoid(model: Any) -> None:
    """Log(Sigmoid(Abs(x))) = -ln(1 + e^-|x|) -> a polynomial of e^-|x|, within 5.4e-4.

    onnxruntime's logarithm takes ten times as long as a product, and eight bits of what is computed of it are
    coarser by far. With w = u c3^(1/3): -ln(1 + u) = w (-a1 - w (w + a2)), two products and two sums.
    """
    from onnx import helper, numpy_helper

    graph = _Graph(model.graph)
    c1, c2, c3 = LOG1P
    size = c3 ** (1 / 3)
    numbers = {"bent/start": np.log(size), "bent/square": c2 / size**2, "bent/line": -c1 / size}
    found = False
    for node in list(graph.nodes):
        inner = graph.maker(node.input[0]) if node.op_type == "Log" else None
        outer = graph.maker(inner.input[0]) if inner is not None and inner.op_type == "Sigmoid" else None
        if inner is None or outer is None or outer.op_type != "Abs" or graph.uses(inner.output[0]) != 1:
            continue
        name, found = node.output[0], True
        steps = [
            ("Sub", ["bent/start", outer.output[0]], f"{name}/power"),
            ("Exp", [f"{name}/power"], f"{name}/w"),
            ("Add", [f"{name}/w", "bent/square"], f"{name}/sum"),
            ("Mul", [f"{name}/sum", f"{name}/w"], f"{name}/product"),
            ("Sub", ["bent/line", f"{name}/product"], f"{name}/rest"),
            ("Mul", [f"{name}/rest", f"{name}/w"], name),
        ]
        graph.replace(node, [helper.make_node(kind, inputs, [output]) for kind, inputs, output in steps])
        graph.replace(inner, [])
    if found:
        for name, value in numbers.items():
            graph.give(numpy_helper.from_array(np.array(value, np.float32), name))
    graph.write()


@final
class _Graph:
    """A graph that is being rewritten: who makes a value, how often it is used, what is constant."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.nodes: list[Any] = list(graph.node)
        self._constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in self.nodes for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._results = {port.name for port in graph.output}
        self._instead: dict[int, list[Any]] = {}

    def maker(self, name: str) -> Any | None:
        return self._makers.get(name)

    def uses(self, name: str) -> int:
        return len(self._readers.get(name, ())) + (name in self._results)

    def is_result(self, name: str) -> bool:
        return name in self._results

    def reader(self, name: str) -> Any | None:
        """The only node that reads this value."""
        return self._readers[name][0] if self.uses(name) == 1 and name not in self._results else None

    def constant(self, name: str) -> npt.NDArray[np.float32] | None:
        """A constant of floats."""
        from onnx import TensorProto, numpy_helper

        tensor = self._constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            return None
        return numpy_helper.to_array(tensor)

    def number(self, name: str) -> float | None:
        value = self.constant(name)
        return float(value) if value is not None and value.ndim == 0 else None

    def give(self, tensor: Any) -> None:
        self._constants[tensor.name] = tensor

    def change(self, node: Any, place: int, values: npt.NDArray[Any]) -> None:
        """This input of a node becomes another constant; other readers of the old one keep it."""
        from onnx import numpy_helper

        name = f"{node.output[0]}/{place}"
        self.give(numpy_helper.from_array(values.astype(np.float32), name))
        node.input[place] = name

    def skip(self, node: Any) -> None:
        """Leave out a node of one input that changes nothing any more."""
        source, name = node.input[0], node.output[0]
        for reader in self._readers.pop(name, []):
            for place, used in enumerate(reader.input):
                if used == name:
                    reader.input[place] = source
            self._readers[source] = [*(r for r in self._readers[source] if r is not node), reader]
        self.replace(node, [])

    def replace(self, node: Any, others: list[Any]) -> None:
        self._instead[id(node)] = others

    def write(self) -> None:
        """Nodes, and the constants that some node reads."""
        nodes = [new for node in self.nodes for new in self._instead.get(id(node), [node])]
        used = {name for node in nodes for name in node.input} | self._results
        weights = [tensor for name, tensor in self._constants.items() if name in used]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(nodes)
        self._graph.initializer.extend(weights)


def _into_bias_before(graph: _Graph, node: Any, shift: float) -> bool:
    """(y + bias) - shift, perhaps with moves between."""
    name = node.input[0]
    while True:
        maker = graph.maker(name)
        if maker is None or graph.uses(name) != 1:
            return False
        if maker.op_type not in _MOVES:
            break
        name = maker.input[0]
    place = _bias_place(graph, maker)
    bias = None if place is None else graph.constant(maker.input[place])
    if place is None or bias is None:
        return False
    graph.change(maker, place, bias - shift)
    graph.skip(node)
    return True


def _into_matrix(graph: _Graph, name: str, scale: float) -> bool:
    """scale * (x W + bias), read by nobody else."""
    adds = graph.maker(name)
    place = _bias_place(graph, adds) if adds is not None and adds.op_type == "Add" else None
    if adds is None or place is None or graph.uses(name) != 1:
        return False
    product = graph.maker(adds.input[1 - place])
    if product is None or product.op_type != "MatMul" or graph.uses(product.output[0]) != 1:
        return False
    weight, bias = graph.constant(product.input[1]), graph.constant(adds.input[place])
    if weight is None or bias is None or bias.shape != weight.shape[1:]:
        return False
    graph.change(product, 1, weight * np.float32(scale))
    graph.change(adds, place, bias * np.float32(scale))
    return True


def _into_bias_behind(graph: _Graph, node: Any, shift: float) -> None:
    """W (x - shift) + bias."""
    reader = graph.reader(node.output[0])
    if reader is None or reader.input[0] != node.output[0]:
        return
    weight = graph.constant(reader.input[1]) if len(reader.input) > 1 else None
    if weight is None:
        return
    if reader.op_type == "Conv":
        pads = _attributes(reader).get("pads", ())
        bias = graph.constant(reader.input[2]) if len(reader.input) > 2 else None
        if bias is None or any(pads) or _attributes(reader).get("auto_pad", b"NOTSET") != b"NOTSET":
            return
        total = weight.astype(np.float64).sum(axis=tuple(range(1, weight.ndim)))
        graph.change(reader, 2, bias - shift * total)
    elif reader.op_type == "MatMul" and weight.ndim == 2:
        adds = graph.reader(reader.output[0])
        place = _bias_place(graph, adds) if adds is not None and adds.op_type == "Add" else None
        bias = None if adds is None or place is None else graph.constant(adds.input[place])
        if adds is None or place is None or bias is None or bias.shape != weight.shape[1:]:
            return
        graph.change(adds, place, bias - shift * weight.astype(np.float64).sum(axis=0))
    else:
        return
    graph.skip(node)


def _bias_place(graph: _Graph, node: Any) -> int | None:
    """Which input of an Add or a Conv is a constant vector."""
    places = range(2) if node.op_type == "Add" else (2,) if node.op_type == "Conv" else ()
    for place in places:
        value = graph.constant(node.input[place]) if place < len(node.input) else None
        if value is not None and value.ndim == 1:
            return place
    return None


def _attributes(node: Any) -> Mapping[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
