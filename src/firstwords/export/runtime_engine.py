"""Graphs in onnxruntime: loaded from checked bytes, run by position, its errors in words.

Values go from graph to graph as they are (``OrtValue``), not through numpy: features to encoder, and the
states of a stream from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from firstwords.errors import CheckpointError, DependencyError, FirstwordsError

T = TypeVar("T")
Array = npt.NDArray[Any]


@cache
def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"Bundles run in the package 'onnxruntime', which cannot be imported: {error}.",
            mend='pip install "onnxruntime>=1.20"',
        ) from None
    onnxruntime.set_default_logger_severity(4)  # errors come as exceptions
    return onnxruntime


@cache
def _faults() -> tuple[type[Exception], ...]:
    """What the library raises: classes without a common one of their own."""
    _library()
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    found = [value for value in vars(state).values() if isinstance(value, type)]
    return (*(kind for kind in found if issubclass(kind, Exception)), RuntimeError, ValueError)


@final
class Engine:
    """One graph, ready to run; several threads may run it at once.

    Args:
        content: of a checked ONNX file.
        name: for messages.
        threads: that one run may use.
    """

    def __init__(self, content: bytes, name: object, *, threads: int = 1) -> None:
        library = _library()
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Planning which buffers may share memory takes four fifths of the loading time of a graph of two
        # thousand nodes; patterns keep the largest memory that each shape has ever needed.
        options.enable_mem_reuse = False
        options.enable_mem_pattern = False
        self._name = name
        self._session = self._attempt(
            lambda: library.InferenceSession(content, options, providers=["CPUExecutionProvider"]),
            "onnxruntime cannot load it",
        )
        self.inputs = tuple(str(port.name) for port in self._session.get_inputs())
        self.outputs = tuple(str(port.name) for port in self._session.get_outputs())

    def __call__(self, *values: Array) -> list[Array]:
        """Arrays by position -> arrays."""
        feeds = dict(zip(self.inputs, values, strict=True))
        return self._attempt(lambda: self._session.run(None, feeds), "it cannot be computed")

    def pass_on(self, values: Sequence[Any]) -> list[Any]:
        """The same with the library's own values, so that nothing is copied."""
        feeds = dict(zip(self.inputs, values, strict=True))
        return self._attempt(
            lambda: self._session.run_with_ort_values(self.outputs, feeds), "it cannot be computed"
        )

    def _attempt(self, work: Callable[[], T], what: str) -> T:
        try:
            return work()
        except FirstwordsError:
            raise
        except _faults() as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"'{self._name}': {what}: {lines[0][:300]}",
                mend="Export the model again, with a firstwords and an onnxruntime of today.",
            ) from None


def value_of(array: Array) -> Any:
    """An array as the library's own value; the memory is shared."""
    return _library().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
