"""Which search a recipe's settings mean. The one place that knows all searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, final

import torch

from firstwords.heads.head import FrameHead, Head, TokenHead
from firstwords.heads.transducer.head import TransducerHead
from firstwords.nn.scorer import TokenScorer
from firstwords.search.attention_beam import AttentionBeamSearch, deaf_scorer
from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.ctc_common import rows_of
from firstwords.search.fusion import NO_SCORERS, Scorers, Weighted, weigh
from firstwords.search.greedy import GreedySearch
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import (
    NARROW,
    AttentionBeamConfig,
    CtcBeamConfig,
    EncodedSearch,
    GreedyConfig,
    RescoringConfig,
    Search,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
)
from firstwords.search.rescoring import RescoringSearch
from firstwords.search.spotting import PhraseSpotter
from firstwords.search.transducer_beam import TransducerBeamSearch
from firstwords.search.transducer_common import InternalModel
from firstwords.search.transducer_greedy import TransducerGreedySearch
from firstwords.tensors import Padded, pad

__all__ = [
    "AttentionBeamConfig",
    "CtcBeamConfig",
    "FrameWise",
    "GreedyConfig",
    "RescoringConfig",
    "Scorers",
    "Search",
    "SearchConfig",
    "TransducerBeamConfig",
    "TransducerGreedyConfig",
    "build_encoded_search",
    "build_search",
    "internal_model",
    "needed_heads",
    "quick_search",
    "search_words",
]


def needed_heads(config: SearchConfig) -> tuple[str, ...]:
    """Names of the heads (as in a recipe) that a search asks."""
    match config:
        case GreedyConfig() | CtcBeamConfig():
            return ("ctc",)
        case AttentionBeamConfig():
            return ("attention", "ctc") if config.ctc_weight > 0 else ("attention",)
        case RescoringConfig():
            return ("attention", "ctc")
        case TransducerGreedyConfig() | TransducerBeamConfig():
            return ("transducer",)


_NARROW = 2  # readings of a quick search that asks an attention decoder: the fewest among which it can choose


def quick_search(config: SearchConfig) -> SearchConfig:
    """The cheapest search that asks the same heads for its tokens: to compare weights, not to read for users.

    Its errors are those of the heads that users will hear; a wide beam would tell the same order of weights
    at several times the cost.
    """
    match config:
        case GreedyConfig() | CtcBeamConfig():
            return GreedyConfig()
        case TransducerGreedyConfig():
            return config
        case TransducerBeamConfig():
            return TransducerGreedyConfig()
        case AttentionBeamConfig() | RescoringConfig():
            return config.with_(beam=min(_NARROW, config.beam), n_best=min(_NARROW, config.n_best))


def search_words(config: SearchConfig) -> str:
    """Settings -> what a reader has to know of a search, for example "attention_beam, beam 2"."""
    match config:
        case GreedyConfig() | TransducerGreedyConfig():
            return config.kind
        case CtcBeamConfig() | TransducerBeamConfig() | AttentionBeamConfig() | RescoringConfig():
            return f"{config.kind}, beam {config.beam}"


def internal_model(config: SearchConfig, heads: Mapping[str, Head], dim: int) -> TokenScorer[Any] | None:
    """What a search of a model takes off as its ``internal_weight``, for one utterance; None: nothing.

    Args:
        dim: width of the encoded frames.
    """
    match config:
        case AttentionBeamConfig():
            decoder = cast("TokenHead", heads["attention"])
            return deaf_scorer(decoder, next(decoder.parameters()).new_zeros(1, 1, dim))
        case TransducerGreedyConfig() | TransducerBeamConfig():
            return InternalModel(cast("TransducerHead", heads["transducer"]))
        case GreedyConfig() | CtcBeamConfig() | RescoringConfig():
            return None


def build_search(
    config: GreedyConfig | CtcBeamConfig, frame_seconds: float, scorers: Sequence[Weighted] = ()
) -> Search:
    """Settings, the seconds between two encoded frames and what helps -> a search over frame-wise scores.

    Greedy search with scorers is prefix beam search as narrow as ``NARROW``.
    """
    match config:
        case GreedyConfig():
            if not scorers:
                return GreedySearch(frame_seconds)
            return CtcBeamSearch(NARROW, frame_seconds, scorers)
        case CtcBeamConfig():
            return CtcBeamSearch(config, frame_seconds, scorers)


def build_encoded_search(
    config: SearchConfig, heads: Mapping[str, Head], frame_seconds: float, scorers: Scorers = NO_SCORERS
) -> EncodedSearch:
    """Settings and the heads of a model, which hold all that ``needed_heads`` names -> a search."""

    def weighed(vocabulary: int) -> tuple[Weighted, ...]:
        return weigh(scorers, config.language_model, vocabulary)

    match config:
        case GreedyConfig() | CtcBeamConfig():
            ctc = cast("FrameHead", heads["ctc"])
            own = build_search(config, frame_seconds, weighed(ctc.vocabulary))
            return FrameWise(ctc, own, scorers.spotter)
        case AttentionBeamConfig():
            decoder, ctc = cast("TokenHead", heads["attention"]), cast("FrameHead | None", heads.get("ctc"))
            return AttentionBeamSearch(config, decoder, ctc, frame_seconds, weighed(decoder.vocabulary))
        case RescoringConfig():
            decoder, ctc = cast("TokenHead", heads["attention"]), cast("FrameHead", heads["ctc"])
            return RescoringSearch(config, decoder, ctc, frame_seconds, weighed(ctc.vocabulary))
        case TransducerGreedyConfig():
            head = cast("TransducerHead", heads["transducer"])
            return TransducerGreedySearch(config, head, frame_seconds, weighed(head.vocabulary))
        case TransducerBeamConfig():
            head = cast("TransducerHead", heads["transducer"])
            return TransducerBeamSearch(config, head, frame_seconds, weighed(head.vocabulary))


@final
class FrameWise(EncodedSearch):
    """A head that scores every frame by itself, and a search over its scores.

    Args:
        spotter: writes phrases into the scores before they are searched.
    """

    def __init__(self, head: FrameHead, search: Search, spotter: PhraseSpotter | None = None) -> None:
        self.head = head
        self.search = search
        self.spotter = spotter

    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        return self.search(self._scored(encoded))

    def many(self, batches: Sequence[Padded]) -> list[list[list[Hypothesis]]]:
        return self.search.many([self._scored(encoded) for encoded in batches])

    def _scored(self, encoded: Padded) -> Padded:
        scores = self.head.log_probs(Padded(encoded.values.float(), encoded.lengths))
        if self.spotter is None:
            return scores
        return pad([torch.from_numpy(self.spotter(row)) for row in rows_of(scores)])
