"""Samples -> encoded frames, chunk by chunk, with the state of the features and of the encoder.

Joined, the frames equal one pass over the whole with the same chunk mask, to the last frame. A stream is
computed in float32: with one utterance at a time bfloat16 gains nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.audio.source import Samples
from firstwords.encoders.encoder import StreamingEncoder
from firstwords.errors import SearchError, UsageError
from firstwords.features.stream import open_stream
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded

_LONGEST_MS = 600_000.0  # of a chunk or a left context
_WHOLE = "Transcribe whole recordings ('firstwords transcribe' without --stream), or "


class Context(NamedTuple):
    """Chunk and left context in frames of the encoder's first rate; ``unit``: seconds of such a frame."""

    chunk: int
    left: int
    unit: float


def choose_context(model: SpeechModel, *, chunk_ms: float, left_ms: float | None) -> Context:
    """Milliseconds -> what the model streams with; None: the widest limited left context it was trained on.

    Raises SearchError for a model that cannot stream, UsageError for a context it cannot have.
    """
    encoder = streaming_encoder(model)
    for name, value in (("chunk", chunk_ms), ("left", left_ms)):
        if value is not None and not 0 <= value <= _LONGEST_MS:
            raise UsageError(
                f"--{name}-ms {value:g}: this is no length of audio that a stream can hold.",
                mend=f"Give milliseconds, at most {_LONGEST_MS:g}.",
            )
    unit = encoder.hop(1) * model.frontend.frame_shift
    wanted = max(1, round(chunk_ms / 1000 / unit))
    wanted_left = None if left_ms is None else max(0, round(left_ms / 1000 / unit))
    chunk, left = encoder.nearest_context(wanted, wanted_left)
    if not _near(chunk * unit, chunk_ms / 1000):
        raise UsageError(
            f"This model has no chunks of {chunk_ms:g} ms.", mend=f"Nearest: {_ms(chunk * unit)} ms."
        )
    if left_ms is not None and not _near(left * unit, left_ms / 1000):
        raise UsageError(
            f"With chunks of {chunk_ms:g} ms this model cannot look back {left_ms:g} ms.",
            mend=f"Nearest: {_ms(left * unit)} ms; left contexts are whole numbers of chunks.",
        )
    return Context(chunk, left, unit)


def streaming_encoder(model: SpeechModel) -> StreamingEncoder[Any]:
    """The model's encoder, if the model can stream at all."""
    encoder = model.encoder
    kind = model.recipe.encoder.kind
    if not isinstance(encoder, StreamingEncoder):
        raise SearchError(
            f"A model with the encoder '{kind}' cannot stream: it hears a recording only as a whole.",
            mend=_WHOLE + "train one that can: zipformer or conformer with encoder.causal = true, lstm with "
            "encoder.bidirectional = false.",
        )
    if not encoder.causal:
        raise SearchError(
            f"This model cannot stream: its encoder ('{kind}') is not causal: it hears what comes later.",
            mend=_WHOLE
            + f"train with --set encoder.{'bidirectional=false' if kind == 'lstm' else 'causal=true'}.",
        )
    return encoder


@final
class EncodingStream:
    """One stream through the front end and the encoder of a model.

    Args:
        least: samples; a stream shorter than that is filled up with silence, as a recording would be.
    """

    def __init__(self, model: SpeechModel, context: Context, *, device: torch.device, least: int) -> None:
        self._encoder = streaming_encoder(model)
        self._features = open_stream(model.frontend)
        self._context, self._device, self._least = context, device, least
        self._window = self._encoder.window(context.chunk)
        self._hop = self._encoder.hop(context.chunk)
        self._heard: Any = self._features.start()  # the state of the features
        self._frames = torch.zeros(1, 0, model.frontend.dim, device=device)  # from the next window's first on
        self._before = 0  # frames before those
        self._received = 0  # samples
        self._given = 0  # encoded frames
        with torch.inference_mode():
            self._state: Any = self._encoder.start(1, chunk=context.chunk, left=context.left)

    @property
    def wanted(self) -> int:
        """Samples that complete the next window."""
        return self._features.samples_for(self._before + self._window) - self._received

    @property
    def latency(self) -> int:
        """Samples from the first of a chunk to the last that its step waits for."""
        return self._features.samples_for(self._window)

    @torch.inference_mode()
    def push(self, samples: Samples) -> Float[Tensor, "frames dim"]:
        """The next samples, at best ``wanted`` of them -> the encoded frames of the chunks they complete."""
        self._received += len(samples)
        heard = torch.from_numpy(samples).to(self._device)[None]
        frames, self._heard = self._features.step(heard, self._heard)
        self._frames = torch.cat([self._frames, frames], dim=1)
        parts: list[Tensor] = [self._frames.new_zeros(0, self._encoder.dim)]
        while self._frames.shape[1] >= self._window:
            parts.append(self._step())
        return torch.cat(parts)

    @torch.inference_mode()
    def finish(self) -> Float[Tensor, "frames dim"]:
        """The stream is over -> the encoded frames of what was left."""
        parts = [self.push(np.zeros(max(0, self._least - self._received), np.float32))]
        self._frames = torch.cat([self._frames, self._features.finish(self._heard)], dim=1)
        total = torch.tensor([self._before + self._frames.shape[1]], device=self._device)
        if not self._before:  # no chunk was full
            whole = Padded(self._frames, total)
            encoded = self._encoder(whole, chunk=self._context.chunk, left=self._context.left)
            return encoded.values[0, : int(encoded.lengths[0])]
        count = int(self._encoder.output_lengths(total)[0])
        while self._given < count:
            parts.append(self._step())
        return torch.cat(parts)

    def _step(self) -> Float[Tensor, "frames dim"]:
        """The next window, filled up if the stream ends in it."""
        window = self._frames[:, : self._window]
        length = window.shape[1]
        filled = torch.nn.functional.pad(window, (0, 0, 0, self._window - length))
        lengths = torch.tensor([length], device=self._device)
        encoded, self._state = self._encoder.step(Padded(filled, lengths), self._state)
        self._frames = self._frames[:, self._hop :]
        self._before += self._hop
        values = encoded.values[0, : int(encoded.lengths[0])]
        self._given += len(values)
        return values


def _near(seconds: float, wanted: float) -> bool:
    """The same but for a frame shift that is no whole number of milliseconds."""
    return abs(seconds - wanted) <= 0.01 * wanted


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.6g}"
