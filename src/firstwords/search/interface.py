"""What a search promises, and the settings by which a recipe names one.

Laws (tests/laws): ``score`` is the weighted sum of ``parts``; beam 1 without merging is greedy; a beam wide
enough is exhaustive search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, FiniteFloat, NonNegativeFloat, PositiveInt, model_validator

from firstwords.config import Config
from firstwords.errors import ConfigError
from firstwords.search.hypothesis import Hypothesis

if TYPE_CHECKING:  # settings are read without torch, too
    from firstwords.tensors import Padded

Weight: TypeAlias = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Search(ABC):
    """Frame-wise log-probabilities in, readings out."""

    @abstractmethod
    def __call__(self, log_probs: Padded) -> list[list[Hypothesis]]:
        """(B, T, V) natural-log probabilities -> for each utterance at least one reading, best first."""

    def many(self, batches: Sequence[Padded]) -> list[list[list[Hypothesis]]]:
        """The same for several batches; who is quicker with more utterances at once takes them all."""
        return [self(log_probs) for log_probs in batches]


class EncodedSearch(ABC):
    """Encoded frames in, readings out: for heads that need more than frame-wise scores."""

    @abstractmethod
    def __call__(self, encoded: Padded) -> list[list[Hypothesis]]:
        """(B, T, D) encoded frames -> for each utterance at least one reading, best first."""

    def many(self, batches: Sequence[Padded]) -> list[list[list[Hypothesis]]]:
        """The same for several batches, as ``Search.many``."""
        return [self(encoded) for encoded in batches]


class LanguageModelConfig(Config):
    """Weights of a language model in a search; they do nothing where there is none."""

    weight: Weight = 0.3  # of its log-probabilities
    bonus: FiniteFloat = 0.0  # nats per token; above 0 against deletions, which every weight brings
    source_weight: Weight = 0.0  # of a model of the training transcripts, taken off (density ratio)
    internal_weight: Weight = 0.0  # of what the decoder or transducer itself knows of text, taken off


class GreedyConfig(Config):
    """The most probable symbol of every frame; with a language model a beam as wide as the doubt (NARROW)."""

    kind: Literal["greedy"] = "greedy"
    language_model: LanguageModelConfig = LanguageModelConfig()


class CtcBeamConfig(Config):
    """Prefix beam search; the defaults prune nothing but the beam itself."""

    kind: Literal["ctc_beam"] = "ctc_beam"
    beam: PositiveInt = 10  # prefixes kept after every frame
    n_best: PositiveInt = 10  # readings returned, at most ``beam``
    token_threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # least posterior for a token to be tried
    tokens_per_frame: PositiveInt | None = None  # symbols tried per frame, the blank counted; icefall: beam
    blank_penalty: NonNegativeFloat = 0.0  # taken off the blank's log-prob; lowers deletions, in nats
    margin: NonNegativeFloat | None = None  # prefixes that are more nats below the best are dropped
    settled_after: PositiveInt | None = None  # tokens; of prefixes that end in the same, the best is kept
    language_model: LanguageModelConfig = LanguageModelConfig()


# Greedy search with a language model: one reading, and others beside it only where the frames are in doubt.
# Widths 2 to 10, margins 2 to 6, 2 to 5 tokens and thresholds 0.01 to 0.05 were compared on the dev split of
# Yoruba (LOG.md, 2026-11-21).
NARROW = CtcBeamConfig(beam=4, n_best=1, token_threshold=0.02, margin=3.0, settled_after=4)


def narrowness(config: SearchConfig) -> str:
    """What the settings of a search do not say of it: how narrow a greedy one is with a language model."""
    if not isinstance(config, GreedyConfig):
        return ""
    return (
        f"beam {NARROW.beam}, threshold {NARROW.token_threshold:g}, margin {NARROW.margin:g}, "
        f"settled {NARROW.settled_after}"
    )


class AttentionBeamConfig(Config):
    """Beam search over the tokens of an attention decoder, together with CTC."""

    kind: Literal["attention_beam"] = "attention_beam"
    beam: PositiveInt = 10  # sentences kept after every token
    n_best: PositiveInt = 10  # readings returned
    # Of CTC against the decoder; 0: decoder alone. Published for hundreds of hours: 0.3; decoders of an hour
    # or two of speech are read best with 0.7 (docs/attention.md).
    ctc_weight: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.7
    length_power: NonNegativeFloat = 0.6  # scores are divided by (tokens and end) to this power; 0: sums
    coverage: NonNegativeFloat = 0.0  # nats for each frame with more than half a token's attention
    max_length: NonNegativeFloat = 1.5  # tokens per encoded frame
    min_length: NonNegativeFloat = 0.0  # tokens per encoded frame; above 0 nothing is ever heard as silence
    # Stop after three tokens whose ends are so many nats below the best; infinite: never before the last.
    end_margin: float = Field(default=10.0, ge=0, allow_inf_nan=True)
    language_model: LanguageModelConfig = LanguageModelConfig()

    @model_validator(mode="after")
    def lengths_are_ordered(self) -> AttentionBeamConfig:
        if self.min_length > self.max_length:
            raise ValueError(f"min_length = {self.min_length:g} is above max_length = {self.max_length:g}")
        return self


class RescoringConfig(Config):
    """The readings of a CTC prefix beam search, put in order by an attention decoder as well."""

    kind: Literal["rescoring"] = "rescoring"
    beam: PositiveInt = 10  # of the CTC search
    n_best: PositiveInt = 10  # readings that the decoder scores
    ctc_weight: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3  # of CTC against the decoder
    language_model: LanguageModelConfig = LanguageModelConfig()


class TransducerGreedyConfig(Config):
    """The most probable symbol at every point of one path through the transducer's lattice."""

    kind: Literal["transducer_greedy"] = "transducer_greedy"
    symbols_per_frame: PositiveInt | None = None  # then the next frame follows; None: 1, with durations 10
    language_model: LanguageModelConfig = LanguageModelConfig()


class TransducerBeamConfig(Config):
    """The most probable token sequences, with at most one token per frame."""

    kind: Literal["transducer_beam"] = "transducer_beam"
    beam: PositiveInt = 4  # token sequences kept after every frame
    n_best: PositiveInt = 4  # readings returned, at most ``beam``
    length_normalized: bool = True  # order them by score per token, those of the start counted; icefall: true
    blank_penalty: NonNegativeFloat = 0.0  # taken off the blank's log-prob; lowers deletions, in nats
    language_model: LanguageModelConfig = LanguageModelConfig()


def knows_text(config: SearchConfig) -> bool:
    """Whether a search asks a part of the recogniser that knows of text by itself."""
    return not isinstance(config, GreedyConfig | CtcBeamConfig | RescoringConfig)


def check_internal_weight(config: SearchConfig) -> None:
    """ConfigError where an internal model shall be taken off by a search that knows of none."""
    weight = config.language_model.internal_weight
    if weight and not knows_text(config):
        raise ConfigError(
            f"recipe.search.language_model.internal_weight = {weight:g} does nothing: search.kind = "
            f"'{config.kind}' asks nothing that knows of text by itself.",
            mend="Set it to 0, or search with transducer_greedy, transducer_beam or attention_beam. For CTC, "
            "source_weight takes off a model of the training transcripts.",
        )


SearchConfig: TypeAlias = Annotated[
    GreedyConfig
    | CtcBeamConfig
    | TransducerGreedyConfig
    | TransducerBeamConfig
    | AttentionBeamConfig
    | RescoringConfig,
    Field(discriminator="kind"),
]

SEARCHES: dict[str, type[SearchConfig]] = {
    str(config.model_fields["kind"].default): config
    for config in (
        GreedyConfig,
        CtcBeamConfig,
        TransducerGreedyConfig,
        TransducerBeamConfig,
        AttentionBeamConfig,
        RescoringConfig,
    )
}  # by kind, as a recipe or a user names them
