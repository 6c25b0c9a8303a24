"""A graph with weights in eight bits: products in integers, the range of their inputs measured on the way.

    MatMul(x, W)    -> MatMulInteger(DynamicQuantizeLinear(x), int8) * scale of x * scale per output channel
    Conv, Gather, LSTM -> the same weights, computed with as floats: Cast(int8) * scale
    scales          -> a byte each: e^(first + step * byte), rounded up
    gains, biases   -> a byte a number, between the smallest and the largest of 16, where that is near enough

Inputs that several products share are measured once. Symmetric weights from -127 to 127 (Jacob et al., 2018,
arXiv:1712.05877, section 2.1, without zero points). The eight-bit kernels of convolutions need unsigned
weights on ARM and are slower for depthwise ones. What is computed of constants alone is computed once, when
an engine loads the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import numpy.typing as npt

from firstwords.export.shrink import compact, constants, drop_unused, replace, shorten_names
from firstwords.export.simplify import log_of_sigmoid
from firstwords.export.trace import IR_VERSION

_LEAST_SAVED = 0.9  # a graph that shrinks by less stays as it is
_LEVELS = 127
_LEAST_OF_CHANNEL = 4  # weights; with fewer the scales would outweigh what is gained
_LEAST_VECTOR, _BLOCK = 8, 16  # numbers
_SPAN = 1e6  # from the smallest scale to the largest
_LEAST_LOG = math.log(2e-38)  # below, float32 has fewer digits, and engines may take it as zero
_VECTORS = {  # what vectors are for those that read them
    **dict.fromkeys((("Mul", 0), ("Mul", 1), ("LayerNormalization", 1)), "gain"),
    **dict.fromkeys((("Add", 0), ("Add", 1), ("Sub", 0), ("Sub", 1)), "bias"),
    **dict.fromkeys((("Conv", 2), ("LayerNormalization", 2)), "bias"),
}

Floats = npt.NDArray[np.float32]


def quantize_graphs(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """``part.onnx`` -> ``part.int8.onnx``, but not of the front end nor where it gains nothing."""
    found: dict[str, bytes] = {}
    for name, content in graphs.items():
        part = name.removesuffix(".onnx")
        if part == "features":
            continue
        small = in_eight_bits(content)
        if len(small) < _LEAST_SAVED * len(content):
            found[f"{part}.int8.onnx"] = small
    return found


def in_eight_bits(content: bytes) -> bytes:
    """ONNX file -> the same with weights in eight bits."""
    import onnx

    model = onnx.load_from_string(content)
    model.ir_version = IR_VERSION
    log_of_sigmoid(model)
    quantize_weights(model)
    pack_vectors(model)
    shorten_names(model)
    compact(model)
    return model.SerializeToString()


def quantize_weights(model: Any) -> None:
    """Weights of products, convolutions, recurrent layers and tables of embeddings in eight bits."""
    graph = model.graph
    _matrices_upright(graph)
    weights = _weights_of(graph)
    if not weights:
        return
    scales = _Scales(weights)
    nodes, given = scales.nodes()
    for weight in weights.values():
        tensors, more = weight.quantized(scales.of(weight))
        given += tensors
        nodes += more
    body = _products(graph, weights)
    del graph.node[:]
    graph.node.extend(body)
    replace(graph, nodes, given, set(weights))
    drop_unused(graph)


def pack_vectors(model: Any) -> None:
    """Vectors of gains and biases -> one tensor of bytes and one of float16, spread again at loading.

    Each in bytes where that is near enough, else in float16 where that is, else as it was. A gain may be off
    by 1 % of itself, a bias by a fortieth of the mean size of its vector and by 0.01 at most: behind a norm
    numbers are of size 1, however large the mean was that is taken away. Whole numbers count something, such
    as positions: they stay what they are.
    """
    from onnx import numpy_helper

    graph = model.graph
    near, fair = dict[str, Floats](), dict[str, Floats]()
    for name, (values, allowed) in _vectors_of(graph).items():
        if (
            np.abs(_spread(*_in_bytes(_blocks(values))).reshape(-1)[: len(values)] - values) <= allowed
        ).all():
            near[name] = values
        elif (np.abs(_in_halves(values).astype(np.float32) - values) <= allowed).all():
            fair[name] = values
    nodes, given, gone = list[Any](), dict[str, npt.NDArray[Any]](), set[str]()
    for vectors, packed in ((near, _packed_in_bytes), (fair, _packed_in_halves)):
        if len(vectors) > 1:
            more, constant = packed(vectors)
            nodes += more
            given |= constant
            gone |= vectors.keys()
    replace(graph, nodes, [numpy_helper.from_array(v, name) for name, v in given.items()], gone)


def _vectors_of(graph: Any) -> dict[str, tuple[Floats, Floats]]:
    """Vectors that are gains or biases for all that read them -> numbers, and how far each may be off."""
    from onnx import TensorProto, numpy_helper

    roles: dict[str, set[str]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            roles.setdefault(name, set()).add(_VECTORS.get((node.op_type, place), "other"))
    found: dict[str, tuple[Floats, Floats]] = {}
    for tensor in graph.initializer:
        own = roles.get(tensor.name, {"other"})
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 1 or "other" in own:
            continue
        values = numpy_helper.to_array(tensor)
        if len(values) >= _LEAST_VECTOR and np.isfinite(values).all():
            found[tensor.name] = values, _error_allowed(values, own)
    return found


def _packed_in_bytes(vectors: Mapping[str, Floats]) -> tuple[list[Any], dict[str, npt.NDArray[Any]]]:
    """Nodes that make these vectors of bytes, and their constants."""
    from onnx import TensorProto, helper

    sizes: dict[str, int] = {}
    for name, values in vectors.items():
        sizes[name] = len(values)
        if rest := -len(values) % _BLOCK:
            sizes[f"{name}/rest"] = rest
    levels, step, low = _in_bytes(np.concatenate([_blocks(values) for values in vectors.values()]))
    make = helper.make_node
    nodes = [
        make("Cast", ["vectors/levels"], ["vectors/float"], to=TensorProto.FLOAT),
        make("Mul", ["vectors/float", "vectors/step"], ["vectors/above"]),
        make("Add", ["vectors/above", "vectors/low"], ["vectors/blocks"]),
        make("Reshape", ["vectors/blocks", "vectors/flat"], ["vectors"]),
        make("Split", ["vectors", "vectors/sizes"], list(sizes), axis=0),
    ]
    return nodes, {
        "vectors/levels": levels,
        "vectors/step": step,
        "vectors/low": low,
        "vectors/flat": np.array([-1], np.int64),
        "vectors/sizes": np.array(list(sizes.values()), np.int64),
    }


def _packed_in_halves(vectors: Mapping[str, Floats]) -> tuple[list[Any], dict[str, npt.NDArray[Any]]]:
    """The same of float16."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["halves/short"], ["halves"], to=TensorProto.FLOAT),
        helper.make_node("Split", ["halves", "halves/sizes"], list(vectors), axis=0),
    ]
    return nodes, {
        "halves/short": _in_halves(np.concatenate(list(vectors.values()))),
        "halves/sizes": np.array([len(values) for values in vectors.values()], np.int64),
    }


def _error_allowed(values: Floats, roles: set[str]) -> Floats:
    """How far each number of a vector may be off."""
    size = np.abs(values)
    if (values == np.rint(values)).all():
        return np.zeros_like(size)
    bias = np.full_like(size, min(float(size.mean()) / 40, 0.01))
    return np.minimum(size / 100 if "gain" in roles else bias, bias if "bias" in roles else size)


def _blocks(values: Floats) -> Floats:
    """(n,) -> (blocks, 16), the last number again where some are missing."""
    return np.pad(values, (0, -len(values) % _BLOCK), mode="edge").reshape(-1, _BLOCK)


def _in_bytes(blocks: Floats) -> tuple[npt.NDArray[np.uint8], Floats, Floats]:
    """(blocks, 16) -> levels from 0 to 255, and step and lowest number (blocks, 1) of each block."""
    low = blocks.min(axis=1, keepdims=True)
    step = blocks.max(axis=1, keepdims=True) / np.float32(255) - low / np.float32(255)
    levels = np.rint((blocks - low) / np.where(step > 0, step, 1)).clip(0, 255).astype(np.uint8)
    return levels, step, low


def _spread(levels: npt.NDArray[np.uint8], step: Floats, low: Floats) -> Floats:
    return levels.astype(np.float32) * step + low


def _in_halves(values: Floats) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):  # infinite then, which is not near enough
        return values.astype(np.float16)


@final
class _Weight:
    """A constant with a scale for each place of an axis; ``whole``: it is multiplied as integers."""

    def __init__(self, name: str, values: Floats, axis: int, *, whole: bool) -> None:
        self.name, self.values, self.axis, self.whole = name, values, axis, whole

    @property
    def channels(self) -> int:
        return self.values.shape[self.axis]

    @property
    def peaks(self) -> Floats:
        """(channels,) the largest size of each."""
        return np.abs(np.moveaxis(self.values, self.axis, 0).reshape(self.channels, -1)).max(axis=1)

    def quantized(self, scale: Floats) -> tuple[list[Any], list[Any]]:
        """Scales (channels,) -> the weights as int8, and what makes floats of them where floats are read."""
        from onnx import TensorProto, helper, numpy_helper

        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        steps = np.rint(self.values / scale.reshape(shape)).clip(-_LEVELS, _LEVELS).astype(np.int8)
        tensor = numpy_helper.from_array(steps, f"{self.name}/steps")
        if self.whole:
            return [tensor], []
        ones = numpy_helper.from_array(np.array(shape, np.int64), f"{self.name}/shape")
        return [tensor, ones], [
            helper.make_node("Cast", [f"{self.name}/steps"], [f"{self.name}/float"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", [f"{self.name}/scale", f"{self.name}/shape"], [f"{self.name}/size"]),
            helper.make_node("Mul", [f"{self.name}/float", f"{self.name}/size"], [self.name]),
        ]


@final
class _Scales:
    """Scales of all weights: bytes on a logarithmic grid, the next above 1/127 of a channel's largest.

    The grid spans a millionth of the largest to the largest: channels that are dead do not make it coarse.
    """

    def __init__(self, weights: Mapping[str, _Weight]) -> None:
        self._weights = weights
        wanted = {name: weight.peaks.astype(np.float64) / _LEVELS for name, weight in weights.items()}
        every = np.concatenate(list(wanted.values()))
        some = every[every > 0]
        high = max(math.log(some.max()), _LEAST_LOG) if len(some) else 0.0
        low = max(math.log(some.min()), high - math.log(_SPAN), _LEAST_LOG) if len(some) else 0.0
        self._low = np.float32(low)
        self._step = np.float32(max((high - float(self._low)) / 254, 1e-6))
        self._codes = {name: self._code(scale) for name, scale in wanted.items()}

    def _code(self, scale: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        logs = np.log(np.where(scale > 0, scale, np.exp(float(self._low))))
        return np.ceil((logs - self._low) / self._step - 1e-6).clip(0, 255).astype(np.uint8)

    def of(self, weight: _Weight) -> Floats:
        return np.exp(self._codes[weight.name].astype(np.float32) * self._step + self._low)

    def nodes(self) -> tuple[list[Any], list[Any]]:
        """Nodes that make ``name/scale`` of all weights, and their constants."""
        from onnx import TensorProto, helper, numpy_helper

        given = {
            "scales/codes": np.concatenate([self._codes[name] for name in self._weights]),
            "scales/step": np.array(self._step),
            "scales/low": np.array(self._low),
            "scales/sizes": np.array([weight.channels for weight in self._weights.values()], np.int64),
        }
        make = helper.make_node
        nodes = [
            make("Cast", ["scales/codes"], ["scales/float"], to=TensorProto.FLOAT),
            make("Mul", ["scales/float", "scales/step"], ["scales/above"]),
            make("Add", ["scales/above", "scales/low"], ["scales/log"]),
            make("Exp", ["scales/log"], ["scales"]),
            make("Split", ["scales", "scales/sizes"], [f"{n}/scale" for n in self._weights], axis=0),
        ]
        return nodes, [numpy_helper.from_array(value, name) for name, value in given.items()]


def _weights_of(graph: Any) -> dict[str, _Weight]:
    """Constants that are read as weights only, each in one way."""
    from onnx import TensorProto, numpy_helper

    roles: dict[str, set[tuple[int, bool] | None]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            roles.setdefault(name, set()).add(_role(node, place))
    found: dict[str, _Weight] = {}
    for name, tensor in constants(graph).items():
        (role, *more) = roles.get(name, {None})
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or role is None or more:
            continue
        axis, whole = role
        values = numpy_helper.to_array(tensor)
        if (whole and values.ndim != 2) or not np.isfinite(values).all():
            continue
        weight = _Weight(name, values, axis, whole=whole)
        if values.size >= _LEAST_OF_CHANNEL * weight.channels:
            found[name] = weight
    return found


def _matrices_upright(graph: Any) -> None:
    """Gemm(x, W, b) -> Add(MatMul(x, W), b), W turned where it lies."""
    from onnx import helper, numpy_helper

    known = constants(graph)
    body: list[Any] = []
    for node in graph.node:
        plain = all(_attribute(node, name, wanted) == wanted for name, wanted in _PLAIN.items())
        if node.op_type != "Gemm" or not plain or node.input[1] not in known:
            body.append(node)
            continue
        x, weight, *bias = node.input
        (name,) = node.output
        if _attribute(node, "transB", 0):
            turned = np.ascontiguousarray(numpy_helper.to_array(known[weight]).T)
            weight = f"{weight}/turned"
            if weight not in known:
                known[weight] = numpy_helper.from_array(turned, weight)
                graph.initializer.append(known[weight])
        body.append(helper.make_node("MatMul", [x, weight], [f"{name}/plain" if bias else name]))
        if bias:
            body.append(helper.make_node("Add", [f"{name}/plain", *bias], [name]))
    del graph.node[:]
    graph.node.extend(body)


_PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0}  # of Gemm


def _role(node: Any, place: int) -> tuple[int, bool] | None:
    """The axis of the channels of a weight at this input of a node, and whether it is multiplied as integers;
    None where it is none."""
    match (node.op_type, place):
        case ("Conv", 1):
            return 0, False
        case ("Gather", 0):
            return (0, False) if _attribute(node, "axis", 0) == 0 else None
        case ("LSTM", 1 | 2):  # (directions, gates and units, inputs)
            return 1, False
        case ("MatMul", 1):
            return 1, True
        case _:
            return None


def _attribute(node: Any, name: str, default: float) -> Any:
    from onnx import helper

    found = [a for a in node.attribute if a.name == name]
    return helper.get_attribute_value(found[0]) if found else default


def _products(graph: Any, weights: Mapping[str, _Weight]) -> list[Any]:
    """The nodes of a graph, its products with quantized weights in integers."""
    from onnx import TensorProto, helper

    make = helper.make_node
    measured: set[str] = set()
    body: list[Any] = []
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            body.append(node)
            continue
        x, weight, name = node.input[0], node.input[1], node.output[0]
        if x not in measured:
            measured.add(x)
            body.append(make("DynamicQuantizeLinear", [x], [f"{x}/q", f"{x}/range", f"{x}/zero"]))
        body += [
            make("MatMulInteger", [f"{x}/q", f"{weight}/steps", f"{x}/zero"], [f"{name}/whole"]),
            make("Cast", [f"{name}/whole"], [f"{name}/float"], to=TensorProto.FLOAT),
            make("Mul", [f"{x}/range", f"{weight}/scale"], [f"{name}/size"]),
            make("Mul", [f"{name}/float", f"{name}/size"], [name]),
        ]
    return body
