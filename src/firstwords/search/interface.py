"""What a search promises, and the settings by which a recipe names one.

Laws (tests/laws): ``score`` is the weighted sum of ``parts``; beam 1 without merging is greedy; a beam wide
enough is exhaustive search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, PositiveInt

from firstwords.config import Config
from firstwords.search.hypothesis import Hypothesis
from firstwords.tensors import Padded


class Search(ABC):
    """Frame-wise log-probabilities in, readings out."""

    @abstractmethod
    def __call__(self, log_probs: Padded) -> list[list[Hypothesis]]:
        """(B, T, V) natural-log probabilities -> for each utterance at least one reading, best first."""


class EncodedSearch(ABC):
    """Encoded frames in, readings out: for heads that need more than frame-wise scores."""

    @abstractmethod
    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        """(B, T, D) encoded frames -> for each utterance at least one reading, best first."""


class GreedyConfig(Config):
    """The most probable symbol of every frame."""

    kind: Literal["greedy"] = "greedy"


class CtcBeamConfig(Config):
    """Prefix beam search; the defaults prune nothing but the beam itself."""

    kind: Literal["ctc_beam"] = "ctc_beam"
    beam: PositiveInt = 10  # prefixes kept after every frame
    n_best: PositiveInt = 10  # readings returned, at most ``beam``
    token_threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # least posterior for a token to be tried
    tokens_per_frame: PositiveInt | None = None  # symbols tried per frame, the blank counted; icefall: beam
    blank_penalty: NonNegativeFloat = 0.0  # taken off the blank's log-prob; lowers deletions, in nats


class TransducerGreedyConfig(Config):
    """The most probable symbol at every point of one path through the transducer's lattice."""

    kind: Literal["transducer_greedy"] = "transducer_greedy"
    symbols_per_frame: PositiveInt = 1  # then the next frame follows, blank or not; published: 1


class TransducerBeamConfig(Config):
    """The most probable token sequences, with at most one token per frame."""

    kind: Literal["transducer_beam"] = "transducer_beam"
    beam: PositiveInt = 4  # token sequences kept after every frame
    n_best: PositiveInt = 4  # readings returned, at most ``beam``
    length_normalized: bool = True  # order them by score per token, those of the start counted; icefall: true
    blank_penalty: NonNegativeFloat = 0.0  # taken off the blank's log-prob; lowers deletions, in nats


SearchConfig: TypeAlias = Annotated[
    GreedyConfig | CtcBeamConfig | TransducerGreedyConfig | TransducerBeamConfig,
    Field(discriminator="kind"),
]
