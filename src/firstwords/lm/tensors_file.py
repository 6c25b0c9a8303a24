"""A safetensors file as numpy arrays, without its package: 8 bytes of length, a JSON head, then the numbers.

Source: github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?"}  # fmt: skip
_LONGEST_HEAD = 100_000_000  # bytes, as the package has it


def parse_tensors(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Content of a file -> arrays by name, and its remarks; ValueError where it is no such file."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(len(content) - 8, _LONGEST_HEAD):
        raise ValueError("its head is cut off")
    head: Any = json.loads(content[8 : 8 + size].decode())
    if not isinstance(head, dict):
        raise ValueError("its head is no table")
    table = cast("dict[str, Any]", head)
    remarks: Any = table.pop("__metadata__", {})
    if not isinstance(remarks, dict):
        raise ValueError("its remarks are no table")
    body = memoryview(content)[8 + size :]
    found = {name: _tensor(name, facts, body) for name, facts in table.items()}
    if sum(tensor.nbytes for tensor in found.values()) != len(body):
        raise ValueError("it has more or fewer bytes than its head describes")
    return found, {str(key): str(value) for key, value in cast("dict[Any, Any]", remarks).items()}


def _tensor(name: str, facts: Any, body: memoryview) -> np.ndarray:
    try:
        kind, shape, (start, end) = _TYPES[facts["dtype"]], facts["shape"], facts["data_offsets"]
        dtype, count = np.dtype(kind), math.prod(shape)
        if (
            not 0 <= start <= end <= len(body)
            or end - start != count * dtype.itemsize
            or min(shape, default=0) < 0
        ):
            raise ValueError
        return np.frombuffer(body[start:end], dtype=dtype).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"the place of '{name}' is not in it") from None
