"""What an ONNX file says of itself, read from its bytes: no onnx package, no engine, no copy of its weights.

    ModelProto        ir_version  opset_import  metadata_props  functions
      GraphProto      input  output  initializer  node
        TensorProto   dims  data_type  raw_data  external_data

Protocol buffers are read here as the wire format has them (a varint of number and type, then a value), and
only what is asked for. Every length is checked against what is left, depth and counts are bounded: a damaged
file ends in an error that names it, before an engine sees it.

Source: onnx.proto3 (ONNX 1.x, IR version 3 and later); "Protocol Buffers: Encoding".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from firstwords.errors import CheckpointError

FLOAT, INT32, INT64, BOOL = 1, 6, 7, 9  # TensorProto.DataType
_NAMES = "float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64"
TYPE_NAMES = dict(enumerate(_NAMES.split(), start=1))
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
LARGEST = (1 << 31) - 1  # bytes; a protocol buffer cannot be longer
_DEEPEST = 12  # graphs within nodes within graphs
_MOST_DIMS, _MOST_ENTRIES, _LONGEST_TEXT = 16, 4096, 1 << 20
_MOST_NUMBERS = 1 << 36  # of one tensor
_COPY_AGAIN = (
    "Was the copy interrupted, or the file edited? Copy the bundle again, or export the model again."
)


class Port(NamedTuple):
    """An input or output. ``shape`` holds a number where the axis is fixed, None where it is not."""

    name: str
    type: int  # TensorProto.DataType
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({axes}) {TYPE_NAMES.get(self.type, f'type {self.type}')}"


class External(NamedTuple):
    """Where a weight that is not in the file lies: a file name and bytes in it."""

    tensor: str
    location: str
    offset: int
    length: int


def _no_texts() -> dict[str, str]:
    return {}


def _no_opsets() -> dict[str, int]:
    return {}


def _no_ports() -> list[Port]:
    return []


def _no_externals() -> list[External]:
    return []


@dataclass
class OnnxFile:
    """Everything but the computation itself."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=_no_opsets)  # domain -> version
    metadata: dict[str, str] = field(default_factory=_no_texts)
    inputs: list[Port] = field(default_factory=_no_ports)
    outputs: list[Port] = field(default_factory=_no_ports)
    externals: list[External] = field(default_factory=_no_externals)
    nodes: int = 0
    weights: int = 0  # numbers in tensors of the file


def parse_onnx(content: bytes, name: object) -> OnnxFile:
    """Bytes of an ONNX file -> what it says of itself; CheckpointError, with ``name``, if it is none."""
    try:
        if not content:
            raise _Damaged("it is empty")
        if len(content) > LARGEST:
            raise _Damaged(f"it has {len(content)} bytes; no ONNX file has more than {LARGEST}")
        return _model(memoryview(content))
    except _Damaged as error:
        raise CheckpointError(f"'{name}' is no whole ONNX file: {error}.", mend=_COPY_AGAIN) from None


class _Damaged(Exception):
    """Bytes that cannot be; the message says which."""


Value = int | memoryview


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """(number, the place behind it)"""
    value = shift = 0
    while True:
        if at >= len(view):
            raise _Damaged("a number is cut off")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift > 63:
            raise _Damaged(f"a number at byte {at} has no end")


def _fields(view: memoryview) -> Iterator[tuple[int, Value]]:
    """(number of the field, its value): whole numbers, or the bytes of what has a length."""
    at, end = 0, len(view)
    while at < end:
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _Damaged(f"a field has the number 0 at byte {at} of its part")
        if wire == 0:
            value, at = _varint(view, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(view, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _Damaged(f"a field of wire type {wire}, which ONNX does not use")
        if size > end - at:
            raise _Damaged(f"a part of {size} bytes is announced where {end - at} are left: it was cut off")
        yield number, view[at : at + size]
        at += size


def _part(value: Value, what: str) -> memoryview:
    if isinstance(value, int):
        raise _Damaged(f"a number stands where {what} belongs")
    return value


def _whole(value: Value, what: str) -> int:
    """A number, signed as int64."""
    if not isinstance(value, int):
        raise _Damaged(f"{what} is no whole number")
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(value: Value, what: str) -> str:
    part = _part(value, what)
    if len(part) > _LONGEST_TEXT:
        raise _Damaged(f"{what} has {len(part)} bytes")
    try:
        return bytes(part).decode()
    except UnicodeDecodeError:
        raise _Damaged(f"{what} is no UTF-8 text") from None


def _model(view: memoryview) -> OnnxFile:
    found = OnnxFile()
    graph: memoryview | None = None
    for number, value in _fields(view):
        match number:
            case 1:
                found.ir_version = _whole(value, "the IR version")
            case 7:
                if graph is not None:  # readers put them together to one
                    raise _Damaged("the graph stands twice")
                graph = _part(value, "the graph")
            case 8:
                domain, version = _opset(_part(value, "an operator set"))
                found.opsets[domain] = version
            case 14:
                key, text = _entry(_part(value, "a metadata entry"))
                if key in found.metadata:
                    raise _Damaged(f"the metadata key '{key}' stands twice")
                found.metadata[key] = text
                if len(found.metadata) > _MOST_ENTRIES:
                    raise _Damaged(f"more than {_MOST_ENTRIES} metadata entries")
            case 25:
                for inner, node in _fields(_part(value, "a function")):
                    if inner == 7:
                        _node(_part(node, "a node"), found, 1)
                    elif inner == 11:
                        _attribute(_part(node, "an attribute"), found, 1)
            case _:
                pass
    if graph is None:
        raise _Damaged("there is no graph in it")
    if not 1 <= found.ir_version < 1000 or not found.opsets:
        raise _Damaged("it names no IR version or operator set")
    _graph(graph, found, 0)
    return found


def _opset(view: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(view):
        if number == 1:
            domain = _text(value, "the domain of an operator set")
        elif number == 2:
            version = _whole(value, "the version of an operator set")
    return domain, version


def _entry(view: memoryview) -> tuple[str, str]:
    key = text = ""
    for number, value in _fields(view):
        if number == 1:
            key = _text(value, "a metadata key")
        elif number == 2:
            text = _text(value, f"the metadata '{key}'")
    return key, text


def _graph(view: memoryview, found: OnnxFile, depth: int) -> None:
    """Ports of the outermost graph; tensors of all of them."""
    if depth > _DEEPEST:
        raise _Damaged(f"graphs lie more than {_DEEPEST} deep in each other")
    for number, value in _fields(view):
        match number:
            case 1:
                _node(_part(value, "a node"), found, depth)
            case 5:
                _tensor(_part(value, "a weight"), found)
            case 11 | 12 if depth == 0:
                ports = found.inputs if number == 11 else found.outputs
                ports.append(_port(_part(value, "an input or output")))
                if len(ports) > _MOST_ENTRIES:
                    raise _Damaged(f"more than {_MOST_ENTRIES} inputs or outputs")
            case 15:
                _sparse(_part(value, "a sparse weight"), found)
            case _:
                pass


def _sparse(view: memoryview, found: OnnxFile) -> None:
    for number, value in _fields(view):
        if number in (1, 2):
            _tensor(_part(value, "a part of a sparse weight"), found)


def _node(view: memoryview, found: OnnxFile, depth: int) -> None:
    found.nodes += 1
    for number, value in _fields(view):
        if number == 5:
            _attribute(_part(value, "an attribute"), found, depth)


def _attribute(view: memoryview, found: OnnxFile, depth: int) -> None:
    for number, value in _fields(view):
        match number:
            case 5 | 10:
                _tensor(_part(value, "a tensor of a node"), found)
            case 6 | 11:
                _graph(_part(value, "a graph of a node"), found, depth + 1)
            case 22 | 23:
                _sparse(_part(value, "a sparse tensor of a node"), found)
            case _:
                pass


def _port(view: memoryview) -> Port:
    name, kind, shape = "", 0, ()
    for number, value in _fields(view):
        if number == 1:
            name = _text(value, "the name of an input or output")
        elif number == 2:
            for inner, tensor in _fields(_part(value, "the type of an input or output")):
                if inner == 1:
                    kind, shape = _tensor_type(_part(tensor, "the type of a tensor"))
    return Port(name, kind, shape)


def _tensor_type(view: memoryview) -> tuple[int, tuple[int | None, ...]]:
    kind, axes = 0, list[int | None]()
    for number, value in _fields(view):
        if number == 1:
            kind = _whole(value, "the type of a tensor")
        elif number == 2:
            for inner, axis in _fields(_part(value, "a shape")):
                if inner == 1:
                    axes.append(_axis(_part(axis, "an axis")))
                    if len(axes) > _MOST_DIMS:
                        raise _Damaged(f"a tensor has more than {_MOST_DIMS} axes")
    return kind, tuple(axes)


def _axis(view: memoryview) -> int | None:
    for number, value in _fields(view):
        if number == 1:
            size = _whole(value, "the size of an axis")
            if size < 0 or size > _MOST_NUMBERS:
                raise _Damaged(f"an axis has the size {size}")
            return size
    return None


def _tensor(view: memoryview, found: OnnxFile) -> None:
    """Count a tensor, check that its bytes are as many as its shape needs, note where it lies outside."""
    name, kind, outside, raw = "", 0, False, -1
    dims: list[int] = []
    places: dict[str, str] = {}
    for number, value in _fields(view):
        match number:
            case 1:
                dims += _numbers(value)
                if len(dims) > _MOST_DIMS:
                    raise _Damaged(f"a weight has more than {_MOST_DIMS} axes")
            case 2:
                kind = _whole(value, "the type of a weight")
            case 8:
                name = _text(value, "the name of a weight")
            case 9:
                raw = len(_part(value, "the bytes of a weight"))
            case 13:
                key, text = _entry(_part(value, "the place of a weight"))
                places[key] = text
            case 14:
                outside = _whole(value, "the place of a weight") == 1
            case _:
                pass
    if any(size < 0 for size in dims) or math.prod(dims) > _MOST_NUMBERS:
        raise _Damaged(f"the weight '{name}' has the shape {tuple(dims)}")
    count = math.prod(dims)
    found.weights += count
    needed = count * _BYTES.get(kind, 0)
    if outside or places:
        found.externals.append(_external(name, places))
    elif raw >= 0 and needed and raw != needed:
        raise _Damaged(f"the weight '{name}' has {raw} bytes where its shape needs {needed}")


def _numbers(value: Value) -> list[int]:
    """Of a repeated field: one number, or several packed into bytes."""
    if isinstance(value, int):
        return [_whole(value, "an axis")]
    found: list[int] = []
    at = 0
    while at < len(value) and len(found) <= _MOST_DIMS:
        number, at = _varint(value, at)
        found.append(_whole(number, "an axis"))
    return found


def _external(name: str, places: Mapping[str, str]) -> External:
    try:
        offset, length = int(places.get("offset", "0") or 0), int(places.get("length", "0") or 0)
    except ValueError:
        raise _Damaged(f"the place of the weight '{name}' is no number of bytes") from None
    return External(name, places.get("location", ""), offset, length)
