"""How tensors lie in model.safetensors: fewer bytes, and a header that says how to read them.

    kind     in the file, for a tensor w of N numbers in R rows                       bytes
    fp32     w                                                                        4 N
    fp16     w, float16                                                               2 N
    bf16     w, bfloat16                                                              2 N
    int8     w, int8; w@scale, (R,) float32: w = q s of its row                       N + 4 R
    kmeans   w, (ceil(N bits / 8),) uint8: indices; w@codebooks, (G, 2**bits) float16: one codebook for
             each group of ``rows`` rows                                              N bits/8 + 2 G 2**bits
    sparse   w, (nonzero,) floats; w@mask, (ceil(N / 8),) uint8: a bit for each       N/8 + nonzero bytes

A row is what one output channel is computed from: the first axis of a matrix or kernel. The metadata key
``storage`` holds the schemes and the tensors that have one, as JSON:

    {"format": 1,
     "schemes": [{"kind": "kmeans", "bits": 4, "rows": 64}],
     "tensors": {"a.weight": [0, [96, 48]]}}

so that a file explains itself. What it says is believed only where it fits the tensors (CheckpointError).
Beside these bytes a file holds its header, at most ``HEADER_BYTES`` a stored tensor.

Weights that were unpacked lose nothing when they are packed so again, but the last bit of a scale.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch import Tensor

from firstwords.config import Config
from firstwords.errors import CheckpointError
from firstwords.model.codebook import MOST_BITS, fit_codebook, nearest, pack_bits, unpack_bits
from firstwords.nn.int8 import channel_scales, to_int8

KEY = "storage"  # in the metadata
FORMAT = 1
SCALE, CODEBOOKS, MASK = "@scale", "@codebooks", "@mask"
HEADER_BYTES = 400  # of a file's header for each stored tensor, at most; names are shorter than 100 letters
_MOST = 2**31  # of one size of a shape: a crafted file may ask for absurd ones where another size is 0
_COPY = "Was the file edited, or the copy interrupted? Copy the whole folder again."
_FLOATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Storage(Config):
    """How one tensor is kept."""

    kind: Literal["fp32", "fp16", "bf16", "int8", "kmeans", "sparse"]
    bits: int = Field(default=4, ge=1, le=MOST_BITS)  # kmeans: of an index
    rows: int = Field(default=64, ge=1)  # kmeans: that share a codebook
    values: Literal["fp32", "fp16", "bf16"] = "fp16"  # sparse: of what is not zero

    @property
    def words(self) -> str:
        """For people: "int8", "kmeans, 4 bits"."""
        return f"kmeans, {self.bits} bits" if self.kind == "kmeans" else self.kind


def stored_bytes(shape: Sequence[int], storage: Storage, *, nonzero: int | None = None) -> int:
    """Bytes of a tensor in the file, by the table above; ``nonzero``: how many numbers a sparse one has."""
    count, rows = math.prod(shape), shape[0] if shape else 1
    match storage.kind:
        case "fp32":
            return 4 * count
        case "fp16" | "bf16":
            return 2 * count
        case "int8":
            return count + 4 * rows
        case "kmeans":
            return _bytes(count * storage.bits) + 2 * 2**storage.bits * -(-rows // storage.rows)
        case "sparse":
            each = _FLOATS[storage.values].itemsize
            return _bytes(count) + each * (count if nonzero is None else nonzero)


def pack(
    state: Mapping[str, Tensor], choices: Mapping[str, Storage]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and how to keep them -> what goes into the file, and its metadata.

    Tensors without a choice, and those that hold no floats, stay as they are.
    """
    tensors: dict[str, Tensor] = {}
    schemes: list[Storage] = []
    table: dict[str, tuple[int, list[int]]] = {}
    for name, tensor in state.items():
        storage = choices.get(name)
        if storage is None or storage.kind == "fp32" or not tensor.is_floating_point():
            tensors[name] = tensor
            continue
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"Tensor '{name}' holds values that are no numbers, so it cannot be kept as {storage.words}.",
                mend="This model is broken: take weights of before.",
            )
        tensors |= _packed(name, tensor.detach().float().cpu(), storage)
        if storage not in schemes:
            schemes.append(storage)
        table[name] = (schemes.index(storage), list(tensor.shape))
    if not table:
        return tensors, {}
    told = [scheme.model_dump(include=_meaning(scheme)) for scheme in schemes]
    record = {"format": FORMAT, "schemes": told, "tensors": table}
    return tensors, {KEY: json.dumps(record, separators=(",", ":"))}


def unpack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, source: str) -> dict[str, Tensor]:
    """What ``pack`` made -> weights as float32; CheckpointError, naming ``source``, where it does not fit."""
    state = dict(tensors)
    for name, (storage, shape) in read_table(metadata, source=source).items():
        parts = [name, *(name + suffix for suffix in _suffixes(storage))]
        if missing := [part for part in parts if part not in state]:
            raise _fault(source, name, f"its part '{missing[0]}' is missing")
        state[name] = _unpacked(name, [state.pop(part) for part in parts], storage, shape, source)
    return state


def choices_of(metadata: Mapping[str, str], *, source: str) -> dict[str, Storage]:
    """How the tensors of a file are kept; those that it leaves out as they are."""
    return {name: storage for name, (storage, _) in read_table(metadata, source=source).items()}


def read_table(metadata: Mapping[str, str], *, source: str) -> dict[str, tuple[Storage, tuple[int, ...]]]:
    """The metadata of a file -> storage and shape of the tensors that it names."""
    text = metadata.get(KEY)
    if text is None:
        return {}
    try:
        record: Any = json.loads(text)
        if record["format"] != FORMAT:
            raise CheckpointError(
                f"'{source}' says that its tensors are kept in format {record['format']}; this version of "
                f"firstwords reads format {FORMAT}.",
                mend="Update firstwords.",
            )
        schemes = [Storage.model_validate(scheme) for scheme in record["schemes"]]
        table = cast("dict[str, tuple[int, list[int]]]", record["tensors"])
        found: dict[str, tuple[Storage, tuple[int, ...]]] = {}
        for name, (number, shape) in table.items():
            if type(number) is not int or number < 0:
                raise ValueError(f"'{name}' has no scheme {number}")
            if not all(type(size) is int and size >= 0 for size in shape):
                raise ValueError(f"'{name}' has shape {shape}")
            found[name] = (schemes[number], tuple(shape))
        return found
    except (
        ValidationError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        RecursionError,
    ) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise CheckpointError(
            f"'{source}': the header does not say how its tensors are kept ({type(e).__name__}: {reason}).",
            mend=_COPY,
        ) from None


def storage_words(choices: Mapping[str, Storage]) -> str:
    """For people: "int8 (93 tensors), fp16 (120 tensors)"; "" where all are as they were."""
    counts = Counter(storage.words for storage in choices.values())
    return ", ".join(f"{words} ({number} tensors)" for words, number in counts.most_common())


def restored(state: Mapping[str, Tensor], choices: Mapping[str, Storage]) -> dict[str, Tensor]:
    """Weights as they will be when they have been kept so and loaded again."""
    tensors, metadata = pack(state, choices)
    return unpack(tensors, metadata, source="weights")


def _meaning(storage: Storage) -> set[str]:
    """The settings that a kind has."""
    own = {"kmeans": {"bits", "rows"}, "sparse": {"values"}}
    return {"kind"} | own.get(storage.kind, set())


def _suffixes(storage: Storage) -> tuple[str, ...]:
    return {"int8": (SCALE,), "kmeans": (CODEBOOKS,), "sparse": (MASK,)}.get(storage.kind, ())


def _packed(name: str, tensor: Tensor, storage: Storage) -> dict[str, Tensor]:
    if storage.kind in _FLOATS:
        return {name: _as_float(name, tensor, storage.kind)}
    if storage.kind == "sparse":
        flat = tensor.flatten()
        mask = flat != 0
        bits = torch.from_numpy(np.packbits(mask.numpy(), bitorder="little"))
        return {name: _as_float(name, flat[mask], storage.values), name + MASK: bits}
    if tensor.ndim < 2 or not tensor.numel():
        raise CheckpointError(
            f"Tensor '{name}' of shape {tuple(tensor.shape)} has no rows to be kept as {storage.words}.",
            mend="Keep it as fp16.",
        )
    if storage.kind == "int8":
        scales = channel_scales(tensor)
        quantized = to_int8(tensor.flatten(1), scales.unsqueeze(1)).view(tensor.shape)
        return {name: quantized, name + SCALE: scales}
    _as_float(name, tensor, "fp16")  # centroids are
    books: list[NDArray[np.float16]] = []
    indices: list[NDArray[np.uint8]] = []
    for group in tensor.flatten(1).split(storage.rows):
        values = group.flatten().numpy()
        books.append(fit_codebook(values, storage.bits))
        indices.append(nearest(values, books[-1]))
    packed = pack_bits(np.concatenate(indices), storage.bits)
    return {name: torch.from_numpy(packed), name + CODEBOOKS: torch.from_numpy(np.stack(books))}


def _as_float(name: str, tensor: Tensor, kind: str) -> Tensor:
    found = tensor.to(_FLOATS[kind])
    if not found.isfinite().all():
        raise CheckpointError(
            f"Tensor '{name}' has values up to {float(tensor.abs().max()):.3g}, more than {kind} can hold.",
            mend="Keep it as bf16 or fp32.",
        )
    return found


def _unpacked(
    name: str, parts: Sequence[Tensor], storage: Storage, shape: tuple[int, ...], source: str
) -> Tensor:
    count, first = math.prod(shape), parts[0]

    def expect(part: Tensor, dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
        if part.dtype is not dtype or tuple(part.shape) != sizes:
            raise _fault(
                source,
                name,
                f"{storage.words} of shape {shape} wants {_dtype(dtype)} {sizes}, "
                f"found {_dtype(part.dtype)} {tuple(part.shape)}",
            )
        if part.is_floating_point() and not part.isfinite().all():
            raise _fault(source, name, "it holds values that are no numbers")

    if not count and any(size > _MOST for size in shape):
        raise _fault(source, name, f"there is no tensor of shape {shape}")
    if storage.kind in ("int8", "kmeans") and (len(shape) < 2 or not count):
        raise _fault(source, name, f"{storage.words} wants rows, it has shape {shape}")
    match storage.kind:
        case "fp32" | "fp16" | "bf16":
            expect(first, _FLOATS[storage.kind], shape)
            return first.float()
        case "int8":
            expect(first, torch.int8, shape)
            expect(parts[1], torch.float32, shape[:1])
            return first.float() * parts[1].view(-1, *[1] * (len(shape) - 1))
        case "kmeans":
            groups = -(-shape[0] // storage.rows) if shape else 0
            expect(first, torch.uint8, (_bytes(count * storage.bits),))
            expect(parts[1], torch.float16, (groups, 2**storage.bits))
            indices = torch.from_numpy(unpack_bits(first.numpy(), storage.bits, count)).long()
            books = parts[1].float().repeat_interleave(min(storage.rows, shape[0]), dim=0)[: shape[0]]
            return books.gather(1, indices.view(shape[0], -1)).view(shape)
        case "sparse":
            expect(parts[1], torch.uint8, (_bytes(count),))
            mask = torch.from_numpy(np.unpackbits(parts[1].numpy(), count=count, bitorder="little")).bool()
            expect(first, _FLOATS[storage.values], (int(mask.sum()),))
            return torch.zeros(count).masked_scatter_(mask, first.float()).view(shape)


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fault(source: str, name: str, reason: str) -> CheckpointError:
    return CheckpointError(f"'{source}': tensor '{name}' cannot be unpacked: {reason}.", mend=_COPY)
