"""Filterbank and cepstra of a stream: samples arrive in pieces of any size, frames leave once complete.

    pieces      [ a ][  b  ][ c ]
    held back        ...    .....   fewer samples than one window; they are the state
    frames       0 1  2 3 4  5 6    joined, they equal one pass over the whole

State goes in and comes out, as everywhere in this project. A frame is complete half a window (12.5 ms) after
its center, which is all the delay there is; only the first one waits for a whole window. Slopes look two
frames ahead, slopes of slopes four.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.errors import ConfigError
from firstwords.features.deltas import WINDOW, add_deltas
from firstwords.features.fbank import Fbank, full_precision
from firstwords.features.frontend import Frontend
from firstwords.features.mfcc import Mfcc
from firstwords.tensors import Padded


class FbankState(NamedTuple):
    """What a stream remembers between pieces.

    held: (B, P) samples that later frames need, mirrored start included once ``begun``.
    received: samples taken in so far.
    """

    held: Tensor
    received: int
    begun: bool


@final
class StreamingFbank:
    """The same numbers as ``fbank``, piece by piece; the rows of a batch run in step."""

    def __init__(self, fbank: Fbank) -> None:
        if not fbank.config.snip_edges and fbank.after > fbank.width - fbank.shift:
            raise ConfigError(
                f"shift_ms = {fbank.config.shift_ms:g} is more than half of window_ms = "
                f"{fbank.config.window_ms:g}: the mirrored end would need samples that are already gone.",
                mend="Transcribe whole recordings, or train with features.snip_edges = true to stream.",
            )
        self.fbank = fbank

    def samples_for(self, frames: int) -> int:
        """Samples from the start of the stream after which so many frames are complete."""
        if frames < 1:
            return 0
        fbank = self.fbank
        return max(fbank.width, (frames - 1) * fbank.shift + fbank.width - fbank.before)

    def start(self, rows: int = 1) -> FbankState:
        """The state before the first sample."""
        return FbankState(self.fbank.window.new_zeros(rows, 0), 0, self.fbank.config.snip_edges)

    def step(
        self, samples: Float[Tensor, "rows samples"], state: FbankState
    ) -> tuple[Float[Tensor, "rows frames mels"], FbankState]:
        """The next samples in [-1, 1) -> the frames they complete (perhaps none), and the new state."""
        fbank = self.fbank
        received = state.received + samples.shape[1]
        held = torch.cat([state.held, fbank.prepare(samples, state.received)], dim=1)
        begun = state.begun
        if not begun and held.shape[1] >= fbank.width:
            held = torch.cat([held[:, : fbank.before].flip(1), held], dim=1)
            begun = True
        if not begun or held.shape[1] < fbank.width:
            return self._nothing(held), FbankState(held, received, begun)
        with full_precision(held):
            frames = fbank.analyze(held)
        return frames, FbankState(held[:, frames.shape[1] * fbank.shift :], received, begun)

    def finish(self, state: FbankState) -> Float[Tensor, "rows frames mels"]:
        """The stream is over -> the frames that only its mirrored end completes."""
        fbank = self.fbank
        held = state.held
        if fbank.config.snip_edges:
            return self._nothing(held)
        if state.begun:
            held = torch.cat([held, held[:, held.shape[1] - fbank.after :].flip(1)], dim=1)
        elif state.received >= fbank.shift - fbank.shift // 2:  # one frame or two: as a whole
            held = fbank.reflect(held, torch.full((held.shape[0],), held.shape[1], device=held.device))
        if held.shape[1] < fbank.width:
            return self._nothing(held)
        with full_precision(held):
            return fbank.analyze(held)

    def _nothing(self, held: Tensor) -> Tensor:
        return held.new_zeros(held.shape[0], 0, self.fbank.dim)


class MfccState(NamedTuple):
    """What a stream of cepstra remembers.

    fbank: the state of the filterbank underneath.
    cepstra: (B, C, cepstra) of the last frames: ``done`` that are context of later ones, then those that wait
        for their slopes.
    """

    fbank: FbankState
    cepstra: Tensor
    done: int


@final
class StreamingMfcc:
    """The same numbers as ``mfcc``, piece by piece; the rows of a batch run in step."""

    def __init__(self, mfcc: Mfcc) -> None:
        self.mfcc = mfcc
        self.fbank = StreamingFbank(mfcc.fbank)
        self.reach = WINDOW * mfcc.config.deltas  # frames to either side that a frame's slopes see

    def samples_for(self, frames: int) -> int:
        """Samples from the start of the stream after which so many frames are complete."""
        return self.fbank.samples_for(frames + self.reach) if frames > 0 else 0

    def start(self, rows: int = 1) -> MfccState:
        """The state before the first sample."""
        empty = self.mfcc.transform.new_zeros(rows, 0, self.mfcc.config.cepstra)
        return MfccState(self.fbank.start(rows), empty, 0)

    def step(
        self, samples: Float[Tensor, "rows samples"], state: MfccState
    ) -> tuple[Float[Tensor, "rows frames dim"], MfccState]:
        """The next samples in [-1, 1) -> the frames they complete (perhaps none), and the new state."""
        mels, inner = self.fbank.step(samples, state.fbank)
        cepstra = torch.cat([state.cepstra, self._cepstra(mels)], dim=1)
        end = max(state.done, cepstra.shape[1] - self.reach)
        frames = self._with_slopes(cepstra)[:, state.done : end]
        # The first frame kept is either the first of all, whose edge is repeated, or so far back that
        # the repetition reaches no frame that is still to come.
        start = max(0, end - self.reach)
        return frames, MfccState(inner, cepstra[:, start:], end - start)

    def finish(self, state: MfccState) -> Float[Tensor, "rows frames dim"]:
        """The stream is over -> the frames that waited for later ones."""
        cepstra = torch.cat([state.cepstra, self._cepstra(self.fbank.finish(state.fbank))], dim=1)
        return self._with_slopes(cepstra)[:, state.done :]

    def _cepstra(self, mels: Float[Tensor, "rows frames mels"]) -> Float[Tensor, "rows frames cepstra"]:
        with full_precision(mels):
            return mels @ self.mfcc.transform

    def _with_slopes(self, cepstra: Float[Tensor, "rows frames cepstra"]) -> Float[Tensor, "rows frames dim"]:
        lengths = torch.full((cepstra.shape[0],), cepstra.shape[1], device=cepstra.device)
        return add_deltas(Padded(cepstra, lengths), self.mfcc.config.deltas).values


def open_stream(frontend: Frontend) -> StreamingFbank | StreamingMfcc:
    """A front end -> the same piece by piece; ConfigError where its settings or its kind forbid that."""
    match frontend:
        case Fbank():
            return StreamingFbank(frontend)
        case Mfcc():
            return StreamingMfcc(frontend)
        case _:
            raise ConfigError(
                f"The front end {type(frontend).__name__} cannot work piece by piece.",
                mend="Transcribe whole recordings: 'firstwords transcribe' without --stream.",
            )
