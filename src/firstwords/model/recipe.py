"""A recipe: everything that decides a result, as one tree of settings and one TOML file.

The file stored with a model is resolved: every default is written out, so a later version of the package
with other defaults still rebuilds the same model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator

from firstwords.config import Config, dump_config, override, parse_config, read_toml
from firstwords.errors import ConfigError
from firstwords.features.fbank import FbankConfig
from firstwords.files import write_atomically
from firstwords.model.kinds import EncoderSettings, FrontendSettings, HeadSettings
from firstwords.search.search import CtcBeamConfig, GreedyConfig
from firstwords.text.characters import GraphemeConfig
from firstwords.text.normalize import NORMALIZERS
from firstwords.text.subwords import SubwordConfig
from firstwords.training.settings import DataConfig, TextConfig, TrainingConfig

FORMAT = 1

TokenizerSettings = Annotated[GraphemeConfig | SubwordConfig, Field(discriminator="kind")]
SearchSettings = Annotated[GreedyConfig | CtcBeamConfig, Field(discriminator="kind")]


def _zipformer_unless_named(encoder: Any) -> Any:
    """Recipes from the time of one encoder may leave its kind out."""
    if not isinstance(encoder, dict):
        return encoder
    return {"kind": "zipformer"} | cast("dict[str, Any]", encoder)


class Recipe(Config):
    """Everything that decides a result; resolved and stored whole."""

    format: Literal[1] = FORMAT
    name: str = "firstwords"
    language: str = "und"  # BCP 47; "und" = not stated
    seed: int = 1
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    features: Annotated[FrontendSettings, Field(discriminator="kind")] = FbankConfig()
    tokenizer: TokenizerSettings = GraphemeConfig()
    encoder: Annotated[EncoderSettings, Field(discriminator="kind"), BeforeValidator(_zipformer_unless_named)]
    heads: dict[str, HeadSettings]
    search: SearchSettings = GreedyConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def has_a_ctc_head(self) -> Self:
        if "ctc" not in self.heads:
            raise ValueError("heads.ctc is missing: greedy and beam search, alignment and times need it")
        if others := sorted(set(self.heads) - {"ctc"}):
            raise ValueError(f"heads.{others[0]}: nothing trains it; heads.ctc is the only head so far")
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
    def normalizers_exist(self) -> Self:
        for name in (self.text.normalizer, self.text.scoring):
            if name not in NORMALIZERS:
                raise ValueError(f"text: no normalizer is named '{name}'. Known: {', '.join(NORMALIZERS)}")
        return self

    @property
    def digest(self) -> str:
        """Changes whenever any setting changes; a run is resumed only under the same digest."""
        return hashlib.sha256(dump_config(self).encode()).hexdigest()


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
