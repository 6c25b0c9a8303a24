"""What of a model becomes a graph: modules with plain tensors in and out, in the order that engines expect.

    offline CTC          x, x_lens             -> log_probs, log_probs_len
    offline transducer   x, x_lens             -> encoder_out, encoder_out_lens   (projected for the joiner)
                         y                     -> decoder_out
                         encoder_out, decoder_out -> logit
    streaming            x, states             -> log_probs or encoder_out, new states
    front end            samples, sample_lens  -> x, x_lens

Names and order are those of icefall's exports, which sherpa-onnx reads by position. What the states are:
states.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.export.states import StateLayout
from firstwords.features.fbank import Fbank
from firstwords.features.frontend import Frontend
from firstwords.features.mfcc import Mfcc
from firstwords.features.waveform import Waveform
from firstwords.heads.ctc import CtcHead
from firstwords.heads.transducer.head import TransducerHead
from firstwords.heads.transducer.joiner import Joiner
from firstwords.heads.transducer.predictor import StatelessPredictor
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded

_NEVER = -1e4  # log-probability of what is not said


@dataclass(frozen=True)
class Graph:
    """A module to trace, with example inputs, names, free axes and the metadata of its file.

    ``least``: shortest length of the first input's axis 1 that the module takes; shorter input is filled up
    with zeros inside the graph. The lengths of sequences tell the module what is real.
    ``tables``: size of a Fourier transform -> its windowed tables, which the file then holds shorter.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, str]]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    least: int = 0
    tables: Mapping[int, Sequence[npt.NDArray[np.float32]]] = field(
        default_factory=dict[int, Sequence[npt.NDArray[np.float32]]]
    )


@final
class Spoken(nn.Module):
    """A CTC head whose pieces that are no text (``<unk>`` of a converted model) say what the blank says.

    sherpa-onnx would write their names. Where one of them is the most probable, the blank is now; else the
    most probable piece stays.
    """

    def __init__(self, head: CtcHead, silent: Sequence[int]) -> None:
        super().__init__()
        self.head, self.any = head, len(silent) > 0
        is_silent = torch.zeros(head.projection.out_features, dtype=torch.bool)
        is_silent[list(silent)] = True
        self.register_buffer("is_silent", is_silent, persistent=False)

    def forward(self, encoded: Padded) -> Padded:
        found = self.head.log_probs(encoded)
        if not self.any:
            return found
        mask = cast("Tensor", self.is_silent)
        spoken = found.values.masked_fill(mask, _NEVER)
        lifted = found.values.masked_fill(~mask, _NEVER).amax(dim=-1, keepdim=True)
        blank = torch.maximum(spoken[..., :1], lifted)
        return Padded(torch.cat([blank, spoken[..., 1:]], dim=-1), found.lengths)


@final
class OfflineCtc(nn.Module):
    """Feature frames -> log-probabilities of the pieces; ``silent``: those that are no text."""

    def __init__(self, model: SpeechModel, silent: Sequence[int] = ()) -> None:
        super().__init__()
        self.model = model
        self.spoken = Spoken(cast("CtcHead", model.ctc), silent)

    def forward(
        self, x: Float[Tensor, "batch frames mels"], x_lens: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch time pieces"], Int[Tensor, " batch"]]:
        log_probs = self.spoken(self.model.encode_frames(Padded(x, x_lens)))
        return log_probs.values, log_probs.lengths


@final
class OfflineEncoder(nn.Module):
    """Feature frames -> encoded frames, projected for the joiner."""

    def __init__(self, model: SpeechModel, head: TransducerHead) -> None:
        super().__init__()
        self.model, self.projection = model, head.joiner.encoder_proj

    def forward(
        self, x: Float[Tensor, "batch frames mels"], x_lens: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch time joiner"], Int[Tensor, " batch"]]:
        encoded = self.model.encode_frames(Padded(x, x_lens))
        return self.projection(encoded.values), encoded.lengths


@final
class TokenReader(nn.Module):
    """The last ``context`` tokens, -1 for none -> a vector, projected for the joiner."""

    def __init__(self, head: TransducerHead) -> None:
        super().__init__()
        self.predictor = cast("StatelessPredictor", head.predictor)
        self.projection = head.joiner.predictor_proj

    def forward(self, y: Int[Tensor, "batch context"]) -> Float[Tensor, "batch joiner"]:
        return self.projection(self.predictor.read(y)[:, 0])


@final
class JoinerGraph(nn.Module):
    """An encoded frame and a predictor's vector, both projected -> unnormalized scores of the pieces."""

    def __init__(self, joiner: Joiner) -> None:
        super().__init__()
        self.output = joiner.output

    def forward(
        self, encoder_out: Float[Tensor, "batch joiner"], decoder_out: Float[Tensor, "batch joiner"]
    ) -> Float[Tensor, "batch pieces"]:
        return self.output(torch.tanh(encoder_out + decoder_out))


@final
class StreamingStep(nn.Module):
    """A window of feature frames and the states -> what its chunk says, and the next states.

    Args:
        last: what makes log-probabilities (CTC) or the joiner's input of the encoded frames.
    """

    def __init__(self, encoder: Zipformer, layout: StateLayout, last: Spoken | nn.Linear) -> None:
        super().__init__()
        self.encoder, self.last, self.layout = encoder, last, layout

    def forward(self, x: Float[Tensor, "batch window mels"], *states: Tensor) -> tuple[Tensor, ...]:
        lengths = torch.full((x.shape[0],), int(x.shape[1]), dtype=torch.int64)
        encoded, after = self.encoder.step(Padded(x, lengths), self.layout.read(states))
        if isinstance(self.last, Spoken):
            said = self.last(encoded).values
        else:
            said = self.last(encoded.values)
        return said, *self.layout.write(after)


@final
class FrontendGraph(nn.Module):
    """Samples -> feature frames: the model's own front end, its spectrum by matrix products."""

    def __init__(self, frontend: Frontend) -> None:
        super().__init__()
        self.frontend = exportable(frontend)

    def forward(
        self, samples: Float[Tensor, "batch samples"], sample_lens: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch frames mels"], Int[Tensor, " batch"]]:
        frames = self.frontend(Padded(samples, sample_lens))
        return frames.values, frames.lengths


def exportable(frontend: Frontend) -> Frontend:
    """The same front end without complex numbers, which ONNX's Fourier transform has only since operator
    set 17 and few engines run fast."""
    match frontend:
        case Fbank():
            return Fbank(frontend.config.with_(transform="matmul")).eval()
        case Mfcc():
            return Mfcc(frontend.config.with_(transform="matmul")).eval()
        case _:
            return frontend


def _window(frontend: Frontend) -> tuple[int, Mapping[int, Sequence[npt.NDArray[np.float32]]]]:
    """Samples that a frame hears, and the tables of a Fourier transform, if there is one."""
    match frontend:
        case Waveform():
            return frontend.width, {}
        case _:
            fbank = frontend if isinstance(frontend, Fbank) else cast("Mfcc", frontend).fbank
            return fbank.width, {fbank.fft_size: (fbank.cosines.numpy(), fbank.sines.numpy())}


def frontend_graph(frontend: Frontend) -> Graph:
    """features.onnx."""
    graph = FrontendGraph(frontend)
    width, tables = _window(graph.frontend)
    return Graph(
        graph,
        (0.1 * torch.randn(2, 7 * width), torch.tensor([7 * width, 5 * width])),
        ("samples", "sample_lens"),
        ("x", "x_lens"),
        {"samples": {0: "N", 1: "S"}, "sample_lens": {0: "N"}, "x": {0: "N", 1: "T"}, "x_lens": {0: "N"}},
        least=2 * width,
        tables=tables,
    )
