"""A model as a listener: what of it a stream needs, with the options that a user has.

The stream itself, from samples to events, is in listener.py.
"""

from __future__ import annotations

from typing import TypedDict

import torch

from firstwords.errors import SearchError
from firstwords.heads.transducer.head import TransducerHead
from firstwords.inference.encoding_stream import EncodingStream, choose_context
from firstwords.inference.endpointing import EndpointConfig
from firstwords.inference.listener import Listener
from firstwords.model.speech_model import SpeechModel
from firstwords.search.closed import ClosedStream, ClosedVocabulary
from firstwords.search.ctc_streams import StreamingSearch
from firstwords.search.fusion import NO_SCORERS, Scorers, weigh
from firstwords.search.interface import (
    CtcBeamConfig,
    GreedyConfig,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
)
from firstwords.search.speech_gate import OPEN, SpeechGate
from firstwords.search.streaming import build_streaming_search
from firstwords.search.transducer_greedy import TransducerGreedyStream
from firstwords.text.tokenizer import Tokenizer


class ListenOptions(TypedDict, total=False):
    """What may be said about a stream; defaults as in ``open_listener``.

    sample_rate: of the blocks; None: the model's.
    chunk_ms: read at a time; 320, 640 and 1280 are those of the training.
    left_ms: how far attention looks back; None: as far as it was trained to.
    endpoints: when an utterance is over; None: the defaults of ``EndpointConfig``.
    partials: give partial text too.
    """

    sample_rate: int | None
    chunk_ms: float
    left_ms: float | None
    endpoints: EndpointConfig | None
    partials: bool


def open_listener(
    model: SpeechModel,
    tokenizer: Tokenizer,
    *,
    device: torch.device,
    speech_gate: SpeechGate = OPEN,
    search: SearchConfig | None = None,
    scorers: Scorers = NO_SCORERS,
    sample_rate: int | None = None,
    chunk_ms: float = 640.0,
    left_ms: float | None = None,
    endpoints: EndpointConfig | None = None,
    partials: bool = True,
) -> Listener:
    """A model and ``ListenOptions`` -> a stream; SearchError or UsageError where the model cannot.

    Args:
        search: the recipe's if None; what a stream makes of it, ``streamed_search`` says.
    """
    recipe = model.recipe
    rate = recipe.data.sample_rate
    context = choose_context(model, chunk_ms=chunk_ms, left_ms=left_ms)
    found, closed = _search(model, tokenizer, search or recipe.search, scorers, speech_gate.words)
    return Listener(
        EncodingStream(model, context, device=device, least=model.shortest_samples),
        tokenizer,
        found,
        rate=rate,
        chunk=context.chunk * context.unit,
        language=recipe.language,
        sample_rate=sample_rate or rate,
        endpoints=endpoints,
        speech_gate=speech_gate,
        partials=partials,
        mend=None if closed is None else closed.mend,
    )


def streamed_search(config: SearchConfig) -> GreedyConfig | CtcBeamConfig | TransducerGreedyConfig:
    """A search -> what reads a stream: itself, or a greedy one where it needs the whole.

    That is a transducer's own, and the CTC head's where an attention decoder takes part.
    """
    match config:
        case GreedyConfig() | CtcBeamConfig() | TransducerGreedyConfig():
            return config
        case TransducerBeamConfig():
            return TransducerGreedyConfig(language_model=config.language_model)
        case _:
            return GreedyConfig(language_model=config.language_model)


def read_otherwise(config: SearchConfig) -> str | None:
    """What a user must be told where a stream is read by another search than whole recordings are."""
    used = streamed_search(config)
    if used == config:
        return None
    head = "transducer" if isinstance(used, TransducerGreedyConfig) else "CTC head"
    return (
        f"This stream is read by the greedy search of the model's {head}: {config.kind}, which reads whole "
        "recordings of this model, may find other words."
    )


def _search(
    model: SpeechModel,
    tokenizer: Tokenizer,
    config: SearchConfig,
    scorers: Scorers,
    words: frozenset[str],
) -> tuple[StreamingSearch, ClosedStream | None]:
    """The search of a stream, and its closed vocabulary where one is used (as in reading.py)."""
    streamed = streamed_search(config)
    if isinstance(streamed, TransducerGreedyConfig):
        head = model.heads["transducer"]
        assert isinstance(head, TransducerHead)
        helpers = weigh(scorers, config.language_model, head.vocabulary)
        return TransducerGreedyStream(streamed, head, model.frame_seconds, helpers), None
    if model.ctc is None:
        raise SearchError(
            f"This model cannot stream: search.kind = '{config.kind}' reads whole utterances, "
            "and there is no CTC head.",
            mend="Transcribe whole recordings (without --stream), or train with [heads.ctc] in the recipe.",
        )
    weighed = weigh(scorers, config.language_model, model.ctc.vocabulary)
    score, closed = model.ctc.log_probs, None
    if words and isinstance(config, GreedyConfig) and not weighed:
        known = ClosedVocabulary(model.ctc, words, tokenizer, model.frame_seconds)
        closed = ClosedStream(known, model.frame_seconds)
        score = closed.score
    return build_streaming_search(streamed, score, model.frame_seconds, weighed), closed
