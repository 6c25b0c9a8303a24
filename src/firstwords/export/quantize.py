"""A graph with weights in eight bits: matrix products with weights per output channel, dynamic activations.

onnxruntime's dynamic quantization, as icefall exports it: weights are QInt8, one scale per output channel;
each product measures its input's range as it runs. Weights of convolutions are stored in eight bits and
computed with as floats (shrink.py): their eight-bit kernel needs unsigned weights on ARM and is slower for
depthwise ones.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from firstwords.export.shrink import shorten_names, shrink_weights
from firstwords.export.trace import IR_VERSION

_OPERATIONS = {"decoder": ["MatMul", "Gather"]}  # a table of embeddings is a weight too
_LEAST_SAVED = 0.9  # a graph that shrinks by less stays as it is


def quantize_graphs(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """``part.onnx`` -> ``part.int8.onnx``, but not of the front end nor where it gains nothing."""
    found: dict[str, bytes] = {}
    for name, content in graphs.items():
        part = name.removesuffix(".onnx")
        if part == "features":
            continue
        small = quantize_dynamic(content, _OPERATIONS.get(part, ["MatMul"]))
        if len(small) < _LEAST_SAVED * len(content):
            found[f"{part}.int8.onnx"] = small
    return found


def quantize_dynamic(content: bytes, operations: list[str]) -> bytes:
    """ONNX file -> the same with eight-bit weights in these operations."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)  # it advises on its own preprocessing, which is done
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "small.onnx"
            quantize(
                onnx.load(io.BytesIO(content)),
                path,
                op_types_to_quantize=operations,
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
            model = onnx.load(path)
    finally:
        logger.setLevel(before)
    model.ir_version = IR_VERSION
    shrink_weights(model)
    shorten_names(model)
    return model.SerializeToString()
