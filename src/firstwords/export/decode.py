"""Greedy readings of the same recordings by several engines, each on its own way from samples to tokens.

    PyTorch        the model itself
    onnxruntime    features.onnx and the graphs, with a greedy search in numpy
    firstwords     our own runtime: batches, streams in blocks, several frames at once at the joiner
    sherpa-onnx    sherpa.py, in a process of its own

All do what sherpa-onnx does: one token per frame at most; a stream is read in whole windows, and silence
behind its end pushes its last words through.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from firstwords.audio.resampling import resample
from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.export.runtime import Runtime
from firstwords.heads.transducer.head import TransducerHead
from firstwords.model.speech_model import SpeechModel
from firstwords.search.interface import TransducerGreedyConfig
from firstwords.search.transducer_greedy import TransducerGreedySearch
from firstwords.tensors import Padded, pad

Samples = npt.NDArray[np.float32]
Tokens = tuple[int, ...]
BLANK = 0


def collapse(best: Sequence[int]) -> Tokens:
    """The most probable piece of each frame -> tokens: equal neighbours are one, blanks none."""
    return tuple(t for i, t in enumerate(best) if t != BLANK and (i == 0 or best[i - 1] != t))


def tail_samples(facts: Mapping[str, Any]) -> int:
    """Silence behind a stream: a window, so that its last frame is read whatever the chunks' places."""
    shift = facts["sample_rate"] * facts["frame_shift_ms"] / 1000
    return round(shift * (facts["chunk"]["frames"] + 2))


def windows(frames: int, facts: Mapping[str, Any]) -> Iterator[slice]:
    """The windows that sherpa-onnx reads of so many frames (it waits for one more than a window)."""
    window, shift = facts["chunk"]["frames"], facts["chunk"]["shift"]
    start = 0
    while start + window < frames:
        yield slice(start, start + window)
        start += shift


class Reader(ABC):
    """One engine with one bundle."""

    name: str

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def read(self, samples: Samples, rate: int) -> Tokens:
        """Samples at any rate -> tokens."""
        own = self.facts["sample_rate"]
        samples = samples if rate == own else resample(samples, rate, own)
        if self.facts["streaming"]:
            samples = np.concatenate([samples, np.zeros(tail_samples(self.facts), np.float32)])
        return self.decode(samples)

    @abstractmethod
    def decode(self, samples: Samples) -> Tokens:
        """Samples at the model's rate -> tokens."""


@final
class TorchReader(Reader):
    """The model itself; of a CTC reading the pieces that are no text (``silent``) are left out."""

    name = "PyTorch"

    def __init__(self, facts: Mapping[str, Any], model: SpeechModel, silent: Sequence[int] = ()) -> None:
        super().__init__(facts)
        self.model, self.silent = model, frozenset(silent)

    @torch.inference_mode()
    def decode(self, samples: Samples) -> Tokens:
        frames = self.model.features(pad([torch.from_numpy(samples)]))
        if int(frames.lengths[0]) == 0:
            return ()
        encoded = self._stream(frames.values) if self.facts["streaming"] else self.model.encode_frames(frames)
        if self.facts["kind"] == "ctc":
            assert self.model.ctc is not None
            best = self.model.ctc.log_probs(encoded).values[0, : int(encoded.lengths[0])].argmax(dim=-1)
            return tuple(t for t in collapse([int(token) for token in best]) if t not in self.silent)
        head = cast("TransducerHead", self.model.heads["transducer"])
        config = TransducerGreedyConfig(symbols_per_frame=1)
        return TransducerGreedySearch(config, head, self.model.frame_seconds)(encoded)[0][0].tokens

    def _stream(self, frames: Tensor) -> Padded:
        encoder = cast("Zipformer", self.model.encoder)
        chunk, left = self.facts["chunk"]["shift"] // 2, self.facts["chunk"]["left"] // 2
        state = encoder.start(1, chunk=chunk, left=left)
        parts: list[Tensor] = [frames.new_zeros(1, 0, encoder.dim)]
        for place in windows(frames.shape[1], self.facts):
            piece = frames[:, place]
            encoded, state = encoder.step(Padded(piece, torch.tensor([piece.shape[1]])), state)
            parts.append(encoded.values)
        joined = torch.cat(parts, dim=1)
        return Padded(joined, torch.tensor([joined.shape[1]]))


@final
class OnnxReader(Reader):
    """features.onnx and the graphs of one variant in onnxruntime."""

    def __init__(self, facts: Mapping[str, Any], folder: Path, variant: str) -> None:
        super().__init__(facts)
        import onnxruntime

        self.name = "onnxruntime"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        files = {"features": "features.onnx", **facts["variants"][variant]}
        self._sessions: dict[str, Any] = {
            part: onnxruntime.InferenceSession(
                str(folder / name), options, providers=["CPUExecutionProvider"]
            )
            for part, name in files.items()
        }

    def decode(self, samples: Samples) -> Tokens:
        frames, lengths = self._run("features", samples[None], np.array([len(samples)]))
        frames = frames[:, : int(lengths[0])]
        part = "model" if self.facts["kind"] == "ctc" else "encoder"
        if self.facts["streaming"]:
            said = self._stream(part, frames)
        else:
            values, count = self._run(part, frames, lengths)
            said = values[0, : int(count[0])]
        if self.facts["kind"] == "ctc":
            return collapse([int(token) for token in said.argmax(axis=-1)])
        return self._transduce(said)

    def _run(self, part: str, *values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        session = self._sessions[part]
        names = [port.name for port in session.get_inputs()]
        return session.run(None, dict(zip(names, values, strict=True)))

    def _stream(self, part: str, frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
        states = [np.zeros(s["shape"], np.dtype(s["dtype"])) for s in self.facts["states"]]
        said: list[npt.NDArray[Any]] = []
        for place in windows(frames.shape[1], self.facts):
            values, *states = self._run(part, frames[:, place], *states)
            said.append(values[0])
        return np.concatenate(said) if said else np.zeros((0, 1), np.float32)

    def _transduce(self, said: npt.NDArray[Any]) -> Tokens:
        context = self.facts["context_size"]
        history = [-1] * (context - 1) + [BLANK]
        tokens: list[int] = []
        (predicted,) = self._run("decoder", np.array([history[-context:]]))
        for frame in said:
            (logit,) = self._run("joiner", frame[None], predicted)
            best = int(logit[0].argmax())
            if best != BLANK:
                tokens.append(best)
                history.append(best)
                (predicted,) = self._run("decoder", np.array([history[-context:]]))
        return tuple(tokens)


@final
class RuntimeReader(Reader):
    """Our own runtime, with its own resampling, batches, streams and search."""

    name = "firstwords"

    def __init__(self, facts: Mapping[str, Any], folder: Path, variant: str) -> None:
        super().__init__(facts)
        self._runtime = Runtime.load(folder, variant)

    def read(self, samples: Samples, rate: int) -> Tokens:
        if not self.facts["streaming"]:
            return self._runtime.plain_reading(samples, rate).tokens
        return super().read(samples, rate)

    def decode(self, samples: Samples) -> Tokens:
        if self.facts["streaming"]:
            # The others count the frames of the whole, half a one as one; a stream counts whole ones.
            shift = round(self.facts["sample_rate"] * self.facts["frame_shift_ms"] / 1000)
            missing = -len(samples) % shift
            samples = np.pad(samples, (0, missing if missing <= shift // 2 else 0))
        return self._runtime.plain_reading(samples).tokens
