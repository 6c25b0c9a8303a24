"""Which tensor is kept how: one plan for the whole model.

Matrices and kernels get what was asked for, but what would not be smaller than 16-bit floats is kept so.
Everything else (biases, norms, statistics) is small and becomes fp16, or stays fp32 where fp16 would lose a
value altogether.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from firstwords.model.storage import Storage, pack, stored_bytes

StorageKind = Literal["fp16", "bf16", "int8", "kmeans"]
Plan = dict[str, Storage]

FP32, FP16, INT8 = Storage(kind="fp32"), Storage(kind="fp16"), Storage(kind="int8")


def is_matrix(tensor: Tensor) -> bool:
    """True for what has rows: matrices and kernels."""
    return tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel() > 0


def of_bits(bits: int, *, rows: int) -> Storage:
    """What a layer of so many bits is kept as: 16 is fp16, 8 is int8, fewer are indices."""
    if bits == 16:
        return FP16
    return INT8 if bits == 8 else Storage(kind="kmeans", bits=bits, rows=rows)


def fitting(tensor: Tensor, storage: Storage) -> Storage:
    """``storage``, or floats where it would be no smaller than fp16 or cannot hold the values."""
    if is_matrix(tensor) and stored_bytes(tensor.shape, storage) < stored_bytes(tensor.shape, FP16):
        if storage.kind == "int8" or _holds(tensor, torch.float16):
            return storage
        return FP32
    wanted = torch.bfloat16 if storage.kind == "bf16" else torch.float16
    if not _holds(tensor, wanted) or (
        tensor.ndim < 2 and bool(((tensor.to(wanted) == 0) & (tensor != 0)).any())
    ):
        return FP32
    return Storage(kind="bf16") if storage.kind == "bf16" else FP16


def uniform(state: Mapping[str, Tensor], storage: Storage) -> Plan:
    """The same for all matrices."""
    return {name: fitting(tensor, storage) for name, tensor in state.items() if tensor.is_floating_point()}


def plan_bytes(state: Mapping[str, Tensor], plan: Mapping[str, Storage]) -> int:
    """Bytes of all tensors, the header of the file not counted."""
    return sum(
        stored_bytes(tensor.shape, plan[name]) if name in plan else math.prod(tensor.shape) * tensor.itemsize
        for name, tensor in state.items()
    )


def file_bytes(state: Mapping[str, Tensor], plan: Mapping[str, Storage]) -> int:
    """Bytes of the file that holds them, but for a few words about the recipe."""
    tensors, metadata = pack(state, plan)
    return len(save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata or None))


def blocks(state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Matrices by the block they belong to: 'encoder.layers.3.feed_in' -> those of both its layers."""
    found: dict[str, list[str]] = {}
    for name, tensor in state.items():
        if is_matrix(tensor):
            found.setdefault(".".join(name.split(".")[:-2]) or name, []).append(name)
    return found


def _holds(tensor: Tensor, dtype: torch.dtype) -> bool:
    return bool(tensor.to(dtype).isfinite().all())
