"""Law: every encoder can be captured, by torch.export and as an ONNX graph, and the graph serves all lengths.

A graph is captured at one length and batch size and must give the encoder's frames at others, for
utterances alone and padded in a batch, down to no frames at all.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import onnxruntime
import pytest
import torch
from test_encoder_laws import ENCODERS, MELS, make
from torch import Tensor, nn

from firstwords.encoders.encoder import Encoder
from firstwords.export.graphs import Graph
from firstwords.export.trace import to_onnx
from firstwords.model import kinds
from firstwords.tensors import Padded

# One of each kind, small ones, and those that go another way with chunks, strides or norms.
NAMES = (
    "zipformer",
    "zipformer, causal",
    "listener",
    "quartznet",
    "mobilenet, without gates",
    "resnet",
    "resnet, separable",
    "lstm",
    "dnn, no context",
    "transformer",
    "conformer, batch norm",
    "squeezeformer",
    "e_branchformer",
)
SLOW = "zipformer, causal"  # captured in chunks; every kind has another one
EACH = [pytest.param(n, marks=pytest.mark.slow) if n == SLOW else n for n in NAMES]
TOLERANCE = 3e-5  # float32 by other kernels; values of about 3, ten layers


@final
class Whole(nn.Module):
    """An encoder with plain tensors in and out."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encoder(Padded(x, x_lens))
        return encoded.values, encoded.lengths


def noise(rows: int, frames: int) -> Tensor:
    return torch.randn(rows, frames, MELS, generator=torch.Generator().manual_seed(rows + frames))


def test_every_kind_is_exported() -> None:
    assert {name.partition(",")[0] for name in NAMES if name != SLOW} == set(kinds.ENCODERS)
    assert set(NAMES) <= set(ENCODERS)


# torch's own LSTM sets its list of weights again while it is captured; nothing comes of it.
@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
@pytest.mark.parametrize("name", EACH)
def test_torch_export_gives_the_same(name: str) -> None:
    whole = Whole(make(name)).eval()
    example = noise(2, 61), torch.tensor([61, 40])
    with torch.no_grad():
        program = torch.export.export(whole, example, strict=False)
        x, x_lens = noise(2, 61).flip(1), torch.tensor([33, 61])
        ours, theirs = program.module()(x, x_lens), whole(x, x_lens)
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=TOLERANCE)
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("name", EACH)
def test_an_onnx_graph_serves_all_lengths_and_batches(name: str) -> None:
    whole = Whole(make(name)).eval()
    graph = Graph(
        whole,
        (noise(2, 61), torch.tensor([61, 40])),
        ("x", "x_lens"),
        ("y", "y_lens"),
        {"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}, "y": {0: "N", 1: "U"}},
        least=16,
    )
    session: Any = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
    for lengths in ((0,), (1,), (17,), (57, 30, 9), (150,)):
        x, x_lens = noise(len(lengths), max(lengths)), torch.tensor(lengths)
        with torch.no_grad():
            wanted, counts = whole(x, x_lens)
        got, found = session.run(None, {"x": x.numpy(), "x_lens": x_lens.numpy()})
        assert found.tolist() == counts.tolist()
        for row, count in enumerate(found):
            np.testing.assert_allclose(got[row, :count], wanted[row, :count], rtol=0, atol=TOLERANCE)
