"""A module -> the bytes of an ONNX file that engines of today and of some years ago read.

Traced with TorchScript's exporter at operator set 17: it takes seconds where torch.export's needs a minute
to reason about the Zipformer's frame counts. Tracing freezes what Python decides; ``tensors.is_captured``
keeps the encoders from deciding anything by a length, and tests run every graph at other lengths and batch
sizes than it was traced at. Then onnxruntime folds what is constant, with standard operators only.

Shorter input than the convolutions take (no audio at all: sherpa-onnx asks the model even then) is filled up
inside the graph; the lengths say that none of it is real.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jaxtyping
import torch

from firstwords.errors import ConfigError, DependencyError
from firstwords.export.graphs import Graph
from firstwords.export.shrink import shorten_names, shrink_tables
from firstwords.export.simplify import fold_scales, fold_shifts

OPSET, IR_VERSION = 17, 8  # sherpa-onnx 2.0.1 refuses IR 14, which onnx writes of itself; older engines IR 10


def require_onnx() -> None:
    """DependencyError where the packages that write ONNX are missing."""
    for name in ("onnx", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise DependencyError(
                f"Exporting a model needs the package '{name}'.", mend='pip install "firstwords[export]"'
            ) from None


def to_onnx(graph: Graph) -> bytes:
    """Graph -> ONNX file: metadata inside, weights inside, nothing but standard operators."""
    import onnx

    model = onnx.load_from_string(_folded(_traced(graph)))
    refuse_branches(model)
    fold_shifts(model)
    fold_scales(model)
    if graph.least:
        _fill_up(model, graph.inputs[0], graph.least)
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", OPSET)])
    model.producer_name, model.producer_version = "firstwords", ""
    model.doc_string = ""
    onnx.helper.set_model_props(model, dict(graph.metadata))
    if graph.tables:
        shrink_tables(model, graph.tables)
    shorten_names(model)
    onnx.checker.check_model(model, full_check=False)
    return model.SerializeToString()


def refuse_branches(model: Any) -> None:
    """ConfigError where a node holds graphs of its own (If, Loop, Scan).

    What rewrites graphs here (fold_shifts, shorten_names, quantize_weights and others) follows the names of
    one graph: names inside such a body would be lost, and its weights not be seen.
    """
    kinds = {node.op_type for node in model.graph.node for a in node.attribute if a.HasField("g") or a.graphs}
    if kinds:
        raise ConfigError(
            f"The traced model holds graphs within its graph (operators: {', '.join(sorted(kinds))}), which "
            "the export cannot rewrite: its weights in there would be missed.",
            mend="Write the module without branches and loops over values of tensors.",
        )


def _traced(graph: Graph) -> bytes:
    written = io.BytesIO()
    module = graph.module.eval()
    with torch.no_grad(), warnings.catch_warnings(), _unchecked_shapes():
        warnings.simplefilter("ignore")  # sizes that Python reads are fixed ones; tests hold it
        torch.onnx.export(
            module,
            graph.example,
            written,  # pyright: ignore[reportArgumentType] (a buffer is taken too)
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=_plain(graph.axes),
            opset_version=OPSET,
            dynamo=False,
        )
    return written.getvalue()


@contextlib.contextmanager
def _unchecked_shapes() -> Generator[None]:
    """While tracing, sizes are tensors: what checks annotations at run time (in tests) would refuse them."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _plain(axes: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, str]]:
    return {name: dict(own) for name, own in axes.items()}


def _folded(content: bytes) -> bytes:
    """Constants computed, what nobody uses and what is there twice left out."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


def _fill_up(model: Any, name: str, least: int) -> None:
    """Put before everything else: axis 1 of the input ``name`` gets zeros until it is ``least`` long."""
    from onnx import TensorProto, helper

    graph = model.graph
    rank = len(next(port for port in graph.input if port.name == name).type.tensor_type.shape.dim)
    inner = f"{name}_filled"
    for node in graph.node:
        for place, used in enumerate(node.input):
            if used == name:
                node.input[place] = inner

    def constant(label: str, *values: int) -> str:
        full = f"fill/{label}"
        graph.initializer.append(helper.make_tensor(full, TensorProto.INT64, [len(values)], list(values)))
        return full

    before, after = [0] * (rank + 1), [0] * (rank - 2)
    nodes = [
        helper.make_node("Shape", [name], ["fill/shape"], start=1, end=2),
        helper.make_node("Sub", [constant("least", least), "fill/shape"], ["fill/difference"]),
        helper.make_node("Max", ["fill/difference", constant("zero", 0)], ["fill/missing"]),
        helper.make_node(
            "Concat",
            [constant("before", *before), "fill/missing", *([constant("after", *after)] if after else [])],
            ["fill/pads"],
            axis=0,
        ),
        helper.make_node("Pad", [name, "fill/pads"], [inner], mode="constant"),
    ]
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *body])
