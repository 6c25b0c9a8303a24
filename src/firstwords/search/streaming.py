"""Streams read by the heads of a model: the searches of ctc_streams.py over tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from firstwords.search.ctc_common import rows_of
from firstwords.search.ctc_streams import CtcBeamStream, CtcGreedyStream, StreamingSearch
from firstwords.search.fusion import Companion, Weighted
from firstwords.search.interface import NARROW, CtcBeamConfig, GreedyConfig
from firstwords.search.prefix_beam import Floats
from firstwords.tensors import Padded

LogProbs = Callable[[Padded], Padded]  # encoded (1, T, D) -> log-probabilities (1, T, V): a head's log_probs


def build_streaming_search(
    config: GreedyConfig | CtcBeamConfig,
    score: LogProbs,
    frame_seconds: float,
    scorers: Sequence[Weighted] = (),
) -> StreamingSearch:
    """A recipe's search -> the same for a stream. Scorers take part, but for the end of the sentence."""

    @torch.inference_mode()
    def rows(encoded: Tensor) -> Floats:
        lengths = torch.tensor([len(encoded)], device=encoded.device)
        (found,) = rows_of(score(Padded(encoded[None], lengths)))
        return found

    if isinstance(config, GreedyConfig):
        if not scorers:
            return CtcGreedyStream(rows, frame_seconds)
        config = NARROW
    beam = config.beam
    helped = (lambda vocabulary: Companion(scorers, 1, beam, vocabulary)) if scorers else None
    return CtcBeamStream(config, rows, frame_seconds, helped)
