"""The recipes beside the package: every section is made of settings that exist."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from firstwords.model.kinds import EncoderSettings, FrontendSettings, HeadSettings
from firstwords.search.interface import SearchConfig
from firstwords.training.settings import TrainingConfig

FILES = sorted((Path(__file__).resolve().parents[3] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_sections_parse(path: Path) -> None:
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    TypeAdapter(FrontendSettings).validate_python(values["features"])
    TypeAdapter(EncoderSettings).validate_python(values["encoder"])
    TypeAdapter(SearchConfig).validate_python(values["search"])
    TypeAdapter(dict[str, HeadSettings]).validate_python(values["heads"])
    TrainingConfig.model_validate(values["training"])


def test_settings_without_a_kind_are_those_of_the_only_kind_there_was() -> None:
    encoder = TypeAdapter(EncoderSettings).validate_python({})
    head = TypeAdapter(HeadSettings).validate_python({"dropout": 0.2})
    assert (encoder.kind, head.kind) == ("zipformer", "ctc")
