"""Fewer nodes and fewer bytes in an ONNX file, in standard operators that every engine knows.

    shrink_tables   window * cos(2 pi k t / n)        -> window * Gather(one turn of the cosine, k t mod n)
                    a table that is mostly zeros      -> ScatterElements of the others
    shorten_names   of nodes none, of values a few letters
    compact         attributes that say what is so without them, whole numbers in eight bytes each

What is computed of constants alone is computed once, when an engine loads the file.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_LETTERS = string.ascii_letters + string.digits
_LARGE = 4096  # numbers of a table
_SAME = 2e-7  # of a table's largest number: the last bit of float32


def shorten_names(model: Any) -> None:
    """Values and weights get short names, inputs and outputs keep theirs, nodes need none.

    No node may hold a graph (``trace.refuse_branches``): names inside would have to follow.
    """
    graph = model.graph
    kept = {port.name for port in (*graph.input, *graph.output)}
    uses = Counter(name for node in graph.node for name in (*node.input, *node.output))
    ordered = sorted((n for n in uses if n and n not in kept), key=lambda n: -uses[n])
    short = dict(zip(ordered, _names(len(ordered), kept), strict=True))
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
        inputs = [short.get(name, name) for name in node.input]
        outputs = [short.get(name, name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
    del graph.value_info[:]


def compact(model: Any) -> None:
    """The same graph in fewer bytes: no attribute that only says the default, no constant twice, and whole
    numbers in as many bytes as they need."""
    from onnx import TensorProto, defs, numpy_helper

    graph = model.graph
    for node in graph.node:
        schema = defs.get_schema(node.op_type, model.opset_import[0].version, "")
        said = [a for a in node.attribute if not _is_default(node, a, schema.attributes[a.name])]
        del node.attribute[:]
        node.attribute.extend(said)
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        key = tensor.data_type, tuple(tensor.dims), values.tobytes()
        same[tensor.name] = first.setdefault(key, tensor.name)
        if tensor.data_type == TensorProto.INT64 and tensor.raw_data:
            tensor.ClearField("raw_data")
            tensor.int64_data.extend(values.reshape(-1).tolist())
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
    drop_unused(graph)


def _is_default(node: Any, attribute: Any, known: Any) -> bool:
    """Whether an attribute says what holds without it."""
    if node.op_type == "Conv" and attribute.name in ("dilations", "strides"):
        return set(attribute.ints) == {1}
    default = known.default_value
    if not default.name:
        return False
    return all(getattr(attribute, kind) == getattr(default, kind) for kind in ("i", "f", "s"))


def shrink_tables(model: Any, transforms: Mapping[int, Sequence[npt.NDArray[np.float32]]]) -> None:
    """The large tables of a front end by what they are made of, where that gives them again.

    Args:
        transforms: size of the Fourier transform -> its tables, (samples, bins) each.
    """
    graph = model.graph
    for tensor in list(graph.initializer):
        if len(tensor.dims) != 2 or tensor.dims[0] * tensor.dims[1] < _LARGE or tensor.data_type != 1:
            continue
        values = _array(tensor)
        found = _scattered(tensor.name, values)
        for size, tables in transforms.items():
            if found is None and any(np.array_equal(values, table) for table in tables):
                found = _turned(tensor.name, values, size)
        if found is not None:
            replace(graph, *found, {tensor.name})


def _names(count: int, kept: set[str]) -> list[str]:
    """The shortest names: a to 9, then two letters, then three."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        rest, name = number, ""
        while True:
            name = _LETTERS[rest % len(_LETTERS)] + name
            rest = rest // len(_LETTERS) - 1
            if rest < 0:
                break
        number += 1
        if name not in kept:
            found.append(name)
    return found


def constants(graph: Any) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in graph.initializer}


def _array(tensor: Any) -> npt.NDArray[Any]:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def drop_unused(graph: Any) -> None:
    used = {port.name for port in graph.output}
    nodes: list[Any] = []
    for node in reversed(list(graph.node)):
        if used.intersection(node.output):
            nodes.append(node)
            used.update(node.input)
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    nodes.reverse()
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)


def replace(graph: Any, nodes: list[Any], weights: list[Any], gone: set[str]) -> None:
    """``nodes`` before all others, ``weights`` in place of those that are ``gone``."""
    body = [*nodes, *graph.node]
    kept = [*(tensor for tensor in graph.initializer if tensor.name not in gone), *weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(body)
    graph.initializer.extend(kept)


def _scattered(name: str, values: npt.NDArray[np.float32]) -> tuple[list[Any], list[Any]] | None:
    """A table with few numbers a row, as triangles on the mel scale have: nodes and weights."""
    from onnx import helper, numpy_helper

    most = int((values != 0).sum(axis=1).max())
    if most * 4 > values.shape[1]:
        return None
    places = np.argsort(values == 0, axis=1, kind="stable")[:, :most]
    given = {
        "sizes": np.array(values.shape, np.int64),
        "places": places.astype(np.int32),
        "values": np.take_along_axis(values, places, axis=1),
    }
    nodes = [
        helper.make_node("ConstantOfShape", [f"{name}/sizes"], [f"{name}/zeros"]),
        helper.make_node(
            "ScatterElements", [f"{name}/zeros", f"{name}/places", f"{name}/values"], [name], axis=1
        ),
    ]
    return nodes, [numpy_helper.from_array(value, f"{name}/{part}") for part, value in given.items()]


def _turned(name: str, values: npt.NDArray[np.float32], size: int) -> tuple[list[Any], list[Any]] | None:
    """A windowed table of cosines or sines of half or whole samples: nodes and weights."""
    from onnx import helper, numpy_helper

    rows, bins = values.shape
    for function in (np.cos, np.sin):
        for first in (1, 0):  # in half samples
            turn = function(np.pi * np.arange(2 * size) / size).astype(np.float32)
            steps = np.arange(rows, dtype=np.int64)[:, None] * 2 + first
            table = turn[steps * np.arange(bins) % (2 * size)]
            best = np.abs(table).argmax(axis=1)
            window = (values / np.where(table == 0, 1, table))[np.arange(rows), best].astype(np.float32)
            if np.abs(window[:, None] * table - values).max() > _SAME * np.abs(values).max():
                continue
            given = {
                "turn": turn,
                "steps": steps,
                "bins": np.arange(bins, dtype=np.int64),
                "size": np.array(2 * size, np.int64),
                "window": window[:, None],
            }
            nodes = [
                helper.make_node("Mul", [f"{name}/steps", f"{name}/bins"], [f"{name}/far"]),
                helper.make_node("Mod", [f"{name}/far", f"{name}/size"], [f"{name}/at"]),
                helper.make_node("Gather", [f"{name}/turn", f"{name}/at"], [f"{name}/wave"]),
                helper.make_node("Mul", [f"{name}/wave", f"{name}/window"], [name]),
            ]
            return nodes, [numpy_helper.from_array(value, f"{name}/{part}") for part, value in given.items()]
    return None
