"""The states of a streaming Zipformer as sherpa-onnx hands them round ("zipformer2").

For layer i of stack s, where left_s is the left context in frames of the stack:

    cached_key_i           (left_s, N, query_head_dim * heads)
    cached_nonlin_attn_i   (1, N, left_s, 3 * dim / 4)
    cached_val1_i, 2       (left_s, N, value_head_dim * heads)
    cached_conv1_i, 2      (N, dim, kernel // 2)
    embed_states           (N, 128, 3, 19)
    processed_lens         (N)                        int64

The engine makes the first ones itself from the metadata, all zeros; the last sizes but one are fixed in its
code. A model that needs less (a slim front end, a layer that lost heads) has its own tensors in the first
places of each axis: they are cut out and filled up with zeros inside the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor

from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.encoders.zipformer.layer import LayerCache
from firstwords.encoders.zipformer.streaming import ZipformerState
from firstwords.errors import ConfigError

_EMBED = (128, 3, 19)  # channels, frames, bins: fixed in sherpa-onnx
_NAMES = ("key", "nonlin_attn", "val1", "val2", "conv1", "conv2")


@final
class StateLayout:
    """Between ``ZipformerState`` and the engine's tensors, for one chunk size and left context.

    Args:
        chunk, left: in frames at 50 Hz.
    """

    def __init__(self, encoder: Zipformer, chunk: int, left: int) -> None:
        config = encoder.config
        self.chunk, self.left = chunk, left
        start = encoder.start(2, chunk=chunk, left=left)
        self.layers = tuple(len(stack) for stack in start.stacks)
        self.own = [tuple(tensor.shape) for tensor in _flat(start)]  # ours, engine's order of axes, two rows
        self.names: list[str] = []
        self.given: list[tuple[int, ...]] = []
        number = 0
        for stack, factor in enumerate(config.downsampling):
            frames, dim = left // factor, config.dims[stack]
            values = config.value_head_dim[stack] * config.heads[stack]
            half = config.kernels[stack] // 2
            for _ in range(self.layers[stack]):
                self.names += [f"cached_{name}_{number}" for name in _NAMES]
                self.given += [
                    (frames, 2, config.query_head_dim[stack] * config.heads[stack]),
                    (1, 2, frames, 3 * dim // 4),
                    (frames, 2, values),
                    (frames, 2, values),
                    (2, dim, half),
                    (2, dim, half),
                ]
                number += 1
        self.names += ["embed_states", "processed_lens"]
        self.given += [(2, *_EMBED), (2,)]
        for name, own, given in zip(self.names, self.own, self.given, strict=True):
            if any(a > b for a, b in zip(own, given, strict=True)):
                one = _rows(name)
                raise ConfigError(
                    f"the state '{name}' of this model is {_of_one(own, one)} for one stream, and the layout "
                    f"of streaming Zipformers has room for {_of_one(given, one)} only.",
                    mend="Train with at most 128 channels in encoder.embed_channels and with 80 mels.",
                )

    def metadata(self, encoder: Zipformer) -> dict[str, str]:
        """What sherpa-onnx makes the first states of."""
        config = encoder.config
        lists = {
            "encoder_dims": config.dims,
            "query_head_dims": config.query_head_dim,
            "value_head_dims": config.value_head_dim,
            "num_heads": config.heads,
            "num_encoder_layers": self.layers,
            "cnn_module_kernels": config.kernels,
            "left_context_len": tuple(self.left // factor for factor in config.downsampling),
        }
        numbers = {"T": encoder.window(self.chunk), "decode_chunk_len": encoder.hop(self.chunk)}
        return {
            **{name: ",".join(map(str, values)) for name, values in lists.items()},
            **{name: str(value) for name, value in numbers.items()},
        }

    def start(self, rows: int, like: Tensor) -> tuple[Tensor, ...]:
        """The first states as the engine makes them."""
        found: list[Tensor] = []
        for name, shape in zip(self.names, self.given, strict=True):
            sized = [rows if axis == _rows(name) else size for axis, size in enumerate(shape)]
            zeros = like.new_zeros(sized)
            found.append(zeros.long() if name == "processed_lens" else zeros)
        return tuple(found)

    @property
    def of_one(self) -> list[dict[str, Any]]:
        """The states of bundle.json: name, shape for one stream, type."""
        return [
            {
                "name": name,
                "shape": list(_of_one(shape, _rows(name))),
                "dtype": "int64" if name == "processed_lens" else "float32",
            }
            for name, shape in zip(self.names, self.given, strict=True)
        ]

    @property
    def axes(self) -> dict[str, dict[int, str]]:
        """The batch axis of each state and of each new one."""
        own = {name: {_rows(name): "N"} for name in self.names}
        return own | {f"new_{name}": axes for name, axes in own.items()}

    def read(self, states: Sequence[Tensor]) -> ZipformerState:
        """The engine's tensors -> ours."""
        parts: list[Tensor] = []
        for name, tensor, own, given in zip(self.names, states, self.own, self.given, strict=True):
            for axis, size in enumerate(own):
                if size < given[axis]:
                    tensor = tensor.narrow(axis, 0, size)
            parts.append(_ours(name, tensor))
        stacks: list[tuple[LayerCache, ...]] = []
        at = 0
        for count in self.layers:
            layers = [LayerCache(*parts[at + 6 * i : at + 6 * i + 6]) for i in range(count)]
            stacks.append(tuple(layers))
            at += 6 * count
        return ZipformerState(tuple(stacks), parts[-2], parts[-1])

    def write(self, state: ZipformerState) -> Iterator[Tensor]:
        """Ours -> the engine's tensors, filled up with zeros."""
        for tensor, own, given in zip(_flat(state), self.own, self.given, strict=True):
            missing: list[int] = []
            for axis in reversed(range(len(own))):
                missing += [0, given[axis] - own[axis]]
            yield F.pad(tensor, missing) if any(missing) else tensor


def _rows(name: str) -> int:
    """The batch axis of a state."""
    return 1 if name.split("_")[1] in ("key", "nonlin", "val1", "val2") else 0


def _of_one(shape: Sequence[int], rows: int) -> tuple[int, ...]:
    return tuple(1 if axis == rows else size for axis, size in enumerate(shape))


def _ours(name: str, tensor: Tensor) -> Tensor:
    """Axes in our order: rows, time, width."""
    if name.startswith("cached_nonlin"):
        return tensor[0]
    if name.startswith(("cached_key", "cached_val")):
        return tensor.transpose(0, 1)
    if name.startswith("cached_conv"):
        return tensor.transpose(1, 2)
    return tensor.permute(0, 2, 3, 1) if name == "embed_states" else tensor


def _flat(state: ZipformerState) -> list[Tensor]:
    """All tensors of a state with their axes in the engine's order."""
    found: list[Tensor] = []
    for layers in state.stacks:
        for cache in layers:
            found += [
                cache.keys.transpose(0, 1),
                cache.gated.unsqueeze(0),
                cache.values1.transpose(0, 1),
                cache.values2.transpose(0, 1),
                cache.convolution1.transpose(1, 2),
                cache.convolution2.transpose(1, 2),
            ]
    return [*found, state.before.permute(0, 3, 1, 2), state.processed]
