"""Samples -> encoded frames, what a CTC head says of each, and a known text laid along them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from firstwords.audio.source import Samples
from firstwords.audio.windows import WindowConfig, cut_windows
from firstwords.device import Compute
from firstwords.errors import SearchError, UsageError
from firstwords.heads.head import FrameHead
from firstwords.inference.early_exit import EarlyExit
from firstwords.inference.transcript import Token
from firstwords.model.speech_model import SpeechModel
from firstwords.search.align import align
from firstwords.tensors import Padded, pad

_ALIGN_CELLS = 500_000_000  # frames x states of a forced alignment, a byte each
_FILLED_FROM, _FILLED_TO = 0.5, 20.0  # seconds; what is longer is mostly a window, all as long as each other
_LENGTHS = 4  # an octave

Encode = Callable[[Sequence[Samples]], Padded]  # stretches of samples -> (B, T, D) encoded frames


def encoded_frames(
    model: SpeechModel,
    compute: Compute,
    batch: Sequence[Samples],
    early_exit: EarlyExit | None = None,
) -> Padded:
    """Stretches of samples at the model's rate -> (B, T, D) encoded frames in float32."""
    least = model.shortest_samples
    audio = pad([torch.from_numpy(np.pad(s, (0, max(0, least - len(s))))) for s in batch])
    place = compute.device
    if place.type == "cpu" and compute.autocast and len(batch) == 1:
        longest = model.longest_seconds * model.recipe.data.sample_rate
        samples = filled_up(audio.values.shape[1], model.recipe.data.sample_rate, longest)
        audio = Padded(F.pad(audio.values, (0, samples - audio.values.shape[1])), audio.lengths)
    audio = Padded(audio.values.to(place), audio.lengths.to(place))
    with torch.autocast(place.type, compute.dtype, enabled=compute.autocast):
        encoded = model.encode(audio) if early_exit is None else early_exit.encode(audio)
    return Padded(encoded.values.float(), encoded.lengths)


def filled_up(samples: int, rate: int, longest: float = math.inf) -> int:
    """Samples of an utterance on a processor in bfloat16 -> as many as one of few lengths, four an octave.

    Every new length prepares some hundred products anew there, each for half a megabyte: with S, utterances
    one by one are read in 0.6 times the memory so, and faster. Batches win nothing, for there are fewer of
    them (benchmarks/filling.py; LOG.md, 2026-11-24). The model is told the true length.

    Args:
        longest: samples that the encoder reads.
    """
    if samples > _FILLED_TO * rate:
        return samples
    lengths = (math.ceil(_FILLED_FROM * rate * 2 ** (step / _LENGTHS)) for step in count())
    filled = next(length for length in lengths if length >= samples)
    return filled if filled <= longest else samples


def frame_log_probs(
    head: FrameHead | None,
    encode: Encode,
    blocks: Iterable[Samples],
    config: WindowConfig,
    sample_rate: int,
    *,
    hop: int,
) -> npt.NDArray[np.float32]:
    """Blocks of a recording -> (T, V) natural-log probabilities: each window's frames for the part it keeps.

    Args:
        head: the model's CTC head, if it has one.
        hop: samples from one encoded frame to the next.
    """
    if head is None:
        raise UsageError(
            "This model has no CTC head, and nothing else scores every frame or aligns a text.",
            mend="Train one with [heads.ctc] in its recipe; it may stand beside other heads.",
        )
    parts: list[npt.NDArray[np.float32]] = []
    for one in cut_windows(blocks, sample_rate, config, grid=hop):
        scores = head.log_probs(encode([one.samples]))
        values = scores.values[0, : int(scores.lengths[0])].float().cpu().numpy()
        first = (one.keep_start - one.start_sample) // hop
        last = len(values) if one.is_last else (one.keep_end - one.start_sample) // hop
        parts.append(values[first:last])
    return np.concatenate(parts) if parts else np.zeros((0, head.vocabulary), np.float32)


def aligned_tokens(
    log_probs: npt.NDArray[Any], ids: Sequence[int], frame_seconds: float, *, name: str
) -> list[Token]:
    """(T, V) log-probabilities and what was said -> the same tokens with their times.

    Args:
        name: of the recording, for messages.
    """
    if len(log_probs) * (2 * len(ids) + 1) > _ALIGN_CELLS:
        minutes = len(log_probs) * frame_seconds / 60
        raise SearchError(
            f"{name}: {minutes:.0f} min with {len(ids)} tokens are too long to align at once.",
            mend="Align it in pieces of about ten minutes: give start, duration and the text between.",
        )
    found = align(log_probs, ids, name=name)
    return [
        Token(id_, first * frame_seconds, (last + 1) * frame_seconds, sure)
        for id_, first, last, sure in zip(
            found.tokens, found.first, found.last, found.confidences, strict=True
        )
    ]
