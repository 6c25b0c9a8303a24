"""Which stages a recipe names, and their settings. Without the section ``post`` there are none."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from firstwords.config import Config

StageName = Literal["numbers", "punctuation", "hotwords"]
STAGES: tuple[StageName, ...] = get_args(StageName)


class NumbersConfig(Config):
    """Spoken numbers as figures."""

    language: str = ""  # BCP 47; empty: the recipe's
    table: str = ""  # a TOML file of one's own; empty: the one that comes with the package


class PunctuationConfig(Config):
    """Marks and capitals by a model of text."""

    model: str = ""  # folder that 'firstwords punctuation train' wrote


class HotwordsConfig(Config):
    """Names and terms in place of what was misheard for them; see formatting/hotwords.py."""

    phrases: tuple[str, ...] = ()
    file: str = ""  # more of them, one a line
    threshold: float = Field(default=0.34, ge=0, lt=1)  # share of a phrase's graphemes that may be wrong
    unsure: float = Field(default=0.8, ge=0, le=1)  # words of this confidence and more are never replaced
    shortest: int = Field(default=4, ge=1)  # graphemes; shorter phrases are not looked for


class PostConfig(Config):
    """What happens to recognised text, in this order. Paths are relative to the model folder."""

    stages: tuple[StageName, ...] = ()
    numbers: NumbersConfig = NumbersConfig()
    punctuation: PunctuationConfig = PunctuationConfig()
    hotwords: HotwordsConfig = HotwordsConfig()

    @model_validator(mode="after")
    def stages_have_what_they_need(self) -> Self:
        if len(set(self.stages)) != len(self.stages):
            raise ValueError(f"post.stages = {list(self.stages)}: a stage stands twice")
        if "punctuation" in self.stages and not self.punctuation.model:
            raise ValueError(
                "stage 'punctuation' needs a model: train one with 'firstwords punctuation train TEXT --to "
                'FOLDER\' and set [post.punctuation] model = "FOLDER"'
            )
        if "hotwords" in self.stages and not (self.hotwords.phrases or self.hotwords.file):
            raise ValueError("stage 'hotwords' needs [post.hotwords] phrases = [...] or file = \"FILE\"")
        return self
