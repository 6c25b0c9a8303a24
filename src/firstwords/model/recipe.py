"""A recipe: everything that decides a result, as one tree of settings and one TOML file.

The file stored with a model is resolved: every default is written out, so a later version of the package
with other defaults still rebuilds the same model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator

from firstwords.config import Config, dump_config, override, parse_config, read_toml
from firstwords.errors import ConfigError
from firstwords.features.fbank import FbankConfig
from firstwords.features.waveform import WaveformConfig
from firstwords.files import write_atomically
from firstwords.formatting.settings import PostConfig
from firstwords.heads.ctc import CtcConfig
from firstwords.heads.transducer.head import TransducerConfig
from firstwords.model.kinds import ENCODERS, HEAD_NAMES, EncoderSettings, FrontendSettings, HeadSettings
from firstwords.search.search import GreedyConfig, SearchConfig, TransducerGreedyConfig, needed_heads
from firstwords.text.characters import GraphemeConfig
from firstwords.text.normalize import NORMALIZERS
from firstwords.text.subwords import SubwordConfig
from firstwords.training.settings import DataConfig, DistillationConfig, TextConfig, TrainingConfig

FORMAT = 1

TokenizerSettings = Annotated[GraphemeConfig | SubwordConfig, Field(discriminator="kind")]


def _zipformer_unless_named(encoder: Any) -> Any:
    """Recipes from the time of one encoder may leave its kind out."""
    if not isinstance(encoder, dict):
        return encoder
    named = {"kind": "zipformer"} | cast("dict[str, Any]", encoder)
    known = ENCODERS.get(str(named["kind"]))
    if known is not None and named.get("causal") and "causal" not in known.config.model_fields:
        if named["kind"] == "lstm":
            raise ValueError("causal: an lstm streams with bidirectional = false")
        raise ValueError(
            f"causal: an encoder of kind '{named['kind']}' hears a recording only as a whole and cannot "
            "stream: take zipformer or conformer, or lstm with bidirectional = false"
        )
    return named


def _usual(kind: str) -> BeforeValidator:
    """A table without a kind means this one."""

    def complete(settings: Any) -> Any:
        return {"kind": kind} | cast("dict[str, Any]", settings) if isinstance(settings, dict) else settings

    return BeforeValidator(complete)


class Recipe(Config):
    """Everything that decides a result; resolved and stored whole."""

    format: Literal[1] = FORMAT
    name: str = "firstwords"
    language: str = "und"  # BCP 47; "und" = not stated
    seed: int = 1
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    features: Annotated[FrontendSettings, Field(discriminator="kind"), _usual("fbank")] = FbankConfig()
    tokenizer: TokenizerSettings = GraphemeConfig()
    encoder: Annotated[EncoderSettings, Field(discriminator="kind"), BeforeValidator(_zipformer_unless_named)]
    heads: dict[str, HeadSettings]
    search: Annotated[SearchConfig, _usual("greedy")] = GreedyConfig()
    training: TrainingConfig = TrainingConfig()
    distillation: DistillationConfig | None = None  # a teacher; none by default
    post: PostConfig | None = None  # stages between recognised words and text for people; none by default

    @model_validator(mode="after")
    def heads_have_their_names(self) -> Self:
        if not self.heads:
            raise ValueError('heads is empty: give at least one, for example [heads.ctc] with kind = "ctc"')
        for name, head in self.heads.items():
            if name != HEAD_NAMES[head.kind]:
                raise ValueError(
                    f"heads.{name}: a head of kind '{head.kind}' is called heads.{HEAD_NAMES[head.kind]}"
                )
        return self

    @model_validator(mode="after")
    def the_search_finds_its_heads(self) -> Self:
        for name in needed_heads(self.search):
            if name not in self.heads:
                raise ValueError(
                    f"search.kind = '{self.search.kind}' needs heads.{name}, and there are only "
                    f"{', '.join(f'heads.{own}' for own in self.heads)}: set {_search_for(self.heads)}"
                )
        return self

    @model_validator(mode="after")
    def the_search_asks_heads_that_learn(self) -> Self:
        for name in needed_heads(self.search):
            if not self.heads[name].weight:
                raise ValueError(
                    f"heads.{name}.weight = 0: this head learns nothing, and search.kind = "
                    f"'{self.search.kind}' reads with it: set heads.{name}.weight above 0, or a search that "
                    "does not ask it"
                )
        return self

    @model_validator(mode="after")
    def the_search_goes_as_the_transducer_learned_to(self) -> Self:
        head = self.heads.get("transducer")
        if not isinstance(head, TransducerConfig):
            return self
        if head.durations is not None and self.search.kind == "transducer_beam":
            raise ValueError(
                "search.kind = 'transducer_beam' goes through all frames one by one and cannot skip any, as "
                f"heads.transducer.durations = {list(head.durations)} want: set "
                'search.kind = "transducer_greedy"'
            )
        most = self.search.symbols_per_frame if isinstance(self.search, TransducerGreedyConfig) else None
        if head.topology != "regular" and most is not None and most > 1:
            raise ValueError(
                f"search.symbols_per_frame = {most}: with heads.transducer.topology = '{head.topology}' a "
                "frame never learned to write more than one token: set search.symbols_per_frame = 1, or "
                'heads.transducer.topology = "regular"'
            )
        return self

    @model_validator(mode="after")
    def inner_losses_find_their_stacks(self) -> Self:
        head = self.heads.get("ctc")
        inner = ENCODERS[self.encoder.kind].build
        if (
            isinstance(head, CtcConfig)
            and head.intermediate
            and not hasattr(inner, "forward_with_intermediate")
        ):
            raise ValueError(
                f"heads.ctc.intermediate = {list(head.intermediate)}: an encoder of kind "
                f"'{self.encoder.kind}' has no stacks to look into; set it to [], self_conditioned to false"
            )
        if isinstance(head, CtcConfig) and head.intermediate:
            layers = self.encoder.layers  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
            inside = len(layers) if isinstance(layers, tuple) else int(layers)
            if wrong := [n for n in head.intermediate if not 0 <= n < inside]:
                raise ValueError(
                    f"heads.ctc.intermediate = {list(head.intermediate)}: there is no {wrong[0]}; this "
                    f"encoder has 0 to {inside - 1}"
                )
        return self

    @model_validator(mode="after")
    def what_is_causal_can_stream(self) -> Self:
        if not getattr(self.encoder, "causal", False):
            return self
        head, features = self.heads.get("ctc"), self.features
        if self.data.equalize:
            raise ValueError(
                "encoder.causal = true is for streams, and data.equalize = true listens to the whole of a "
                "recording first: set data.equalize = false"
            )
        if isinstance(head, CtcConfig) and head.self_conditioned:
            raise ValueError(
                "encoder.causal = true is for streams, and heads.ctc.self_conditioned = true feeds "
                "predictions back into the encoder, which a stream cannot: set "
                "heads.ctc.self_conditioned = false"
            )
        if not {"ctc", "transducer"} & self.heads.keys():
            raise ValueError(
                f"encoder.causal = true is for streams, and {' and '.join(self.heads)} (heads) "
                "can only read whole utterances: add heads.ctc or heads.transducer"
            )
        if isinstance(features, WaveformConfig):
            raise ValueError(
                f"encoder.causal = true is for streams, and features of kind '{features.kind}' read whole "
                'recordings: set features.kind = "fbank"'
            )
        if not features.snip_edges and 2 * features.shift_ms > features.window_ms:
            raise ValueError(
                f"encoder.causal = true is for streams, and with features.shift_ms = {features.shift_ms:g}, "
                f"more than half of window_ms = {features.window_ms:g}, the mirrored end would need samples "
                "that are already gone: set features.snip_edges = true"
            )
        return self

    @model_validator(mode="after")
    def features_fit_the_audio(self) -> Self:
        if self.features.sample_rate != self.data.sample_rate:
            raise ValueError(
                f"features.sample_rate = {self.features.sample_rate} but data.sample_rate = "
                f"{self.data.sample_rate}: the front end would hear other frequencies than it names"
            )
        return self

    @model_validator(mode="after")
    def the_encoder_can_read_the_features(self) -> Self:
        least = self.encoder.least_features
        if self.features.dim < least:
            raise ValueError(
                f"features of kind '{self.features.kind}' have {self.features.dim} values per frame, and "
                f"this encoder of kind '{self.encoder.kind}' needs at least {least}: set more, by "
                "features.mels (fbank), features.cepstra or features.deltas (mfcc), or the last of "
                "features.channels (waveform)"
            )
        return self

    @model_validator(mode="after")
    def the_teacher_hears_the_same_times(self) -> Self:
        if self.distillation is None or self.distillation.hears == "varied":
            return self
        augment = self.data.augment
        moved = {
            "training.specaugment.time_warp": self.training.specaugment.probability
            and self.training.specaugment.time_warp,
            "data.augment.speed.probability": augment.speed.probability,
            "data.augment.stretch.probability": augment.stretch.probability,
        }
        if wrong := [name for name, value in moved.items() if value]:
            raise ValueError(
                'distillation.hears = "clean": the teacher would hear everything at other times than the '
                f"student: set {' and '.join(f'{name} = 0' for name in wrong)}, or "
                'distillation.hears = "varied"'
            )
        return self

    @model_validator(mode="after")
    def normalizers_exist(self) -> Self:
        for name in (self.text.normalizer, self.text.scoring):
            if name not in NORMALIZERS:
                raise ValueError(f"text: no normalizer is named '{name}'. Known: {', '.join(NORMALIZERS)}")
        return self

    @property
    def digest(self) -> str:
        """Changes whenever any setting changes; a run is resumed only under the same digest."""
        return hashlib.sha256(dump_config(self).encode()).hexdigest()


def _search_for(heads: Mapping[str, object]) -> str:
    """A search that the given heads can do, as a user would write it."""
    if "ctc" in heads:
        return 'search.kind = "greedy"'
    if "transducer" in heads:
        return 'search.kind = "transducer_greedy"'
    return 'search.kind = "attention_beam" and search.ctc_weight = 0'


def with_search(recipe: Recipe, search: SearchConfig) -> Recipe:
    """The recipe with another search; ConfigError where its heads cannot do it."""
    if search == recipe.search:
        return recipe
    values = recipe.model_dump(mode="json", exclude_none=True)
    values["search"] = search.model_dump(mode="json", exclude_none=True)
    return parse_config(values, Recipe, name="recipe", source="search")


def read_recipe(path: Path, *, overrides: tuple[str, ...] = ()) -> Recipe:
    """TOML file (with at most one ``base``) and ``--set`` assignments -> Recipe."""
    values = override(read_toml(path), overrides)
    check_format(values.get("format", FORMAT), str(path))
    return parse_config(values, Recipe, name="recipe", source=str(path))


def check_format(number: object, source: str) -> None:
    """Refuse formats this version does not know. (There is one format so far: nothing to upgrade.)"""
    if number != FORMAT:
        raise ConfigError(
            f"'{source}' has format {number}; this version of firstwords reads format {FORMAT}.",
            mend="Install a newer version: pip install --upgrade firstwords",
        )


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Recipe -> TOML, every default written out."""
    write_atomically(path, dump_config(recipe))
