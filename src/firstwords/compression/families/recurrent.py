"""Recurrent networks and the plain one: hidden units of all layers but the last.

The units of the last layer are the encoder's output, which heads read: their number stays. An LSTM's unit
owns its four gates' rows (Hochreiter and Schmidhuber, 1997; torch's order i, f, g, o) and the columns by
which it is fed back.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from firstwords.compression.groups import Draft, Group, span, weight_of
from firstwords.encoders.dnn import Dnn
from firstwords.encoders.listener import Listener
from firstwords.encoders.lstm import Lstm
from firstwords.nn.recurrent import BidirectionalLstm


def lstm_groups(encoder: Lstm, prefix: str) -> Iterator[Group]:
    """Units of each direction."""
    yield from _recurrent(encoder, prefix, encoder.layers, [1] * len(encoder.layers))


def listener_groups(encoder: Listener, prefix: str) -> Iterator[Group]:
    """Units of each direction; a layer of the pyramid reads two frames side by side."""
    layers = encoder.layers
    yield from _recurrent(
        encoder, prefix, layers, [1 if n < encoder.bottom else 2 for n in range(len(layers))]
    )


def _recurrent(root: nn.Module, prefix: str, layers: nn.ModuleList, frames: list[int]) -> Iterator[Group]:
    """``frames`` that each layer reads side by side."""
    for number in range(len(layers) - 1):
        offset, parts = 0, _parts(layers[number], f"layers.{number}")
        total = sum(lstm.hidden_size for _, lstm in parts)
        for path, lstm in parts:
            units = lstm.hidden_size
            draft = Draft(root, prefix, f"{path}: units", "hidden", units)
            rows = span(units, offsets=tuple(gate * units for gate in range(4)))
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                draft.own(f"{path}.{name}", rows)
            draft.fed_back_by(f"{path}.weight_hh_l0").counted(path, ("hidden_size",), 1)
            draft.normalized_by(f"norms.{number}", span(units, offsets=(offset,)))
            count = frames[number + 1]
            columns = span(units, offsets=tuple(offset + total * n for n in range(count)))
            for reader, below in _parts(layers[number + 1], f"layers.{number + 1}"):
                assert below.input_size == total * count
                draft.columns_of(f"{reader}.weight_ih_l0", columns).counted(reader, ("input_size",), count)
            yield draft.done()
            offset += units


def _parts(layer: nn.Module, path: str) -> list[tuple[str, nn.LSTM]]:
    if isinstance(layer, BidirectionalLstm):
        return [
            (f"{path}.forward_lstm", layer.forward_lstm),
            (f"{path}.backward_lstm", layer.backward_lstm),
        ]
    assert isinstance(layer, nn.LSTM)
    return [(path, layer)]


def dnn_groups(encoder: Dnn, prefix: str) -> Iterator[Group]:
    """Units between one layer and the next."""
    for number in range(len(encoder.layers) - 1):
        units = len(weight_of(encoder, f"layers.{number}"))
        draft = Draft(encoder, prefix, f"layers.{number}: units", "hidden", units)
        draft.made_by(f"layers.{number}").normalized_by(f"norms.{number}")
        yield draft.read_by(f"layers.{number + 1}").done()
