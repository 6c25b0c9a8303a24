"""The settings and names that docs/fusion.md shows exist."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from pathlib import Path

from pydantic import TypeAdapter

from firstwords.inference.recognizer import Recognizer
from firstwords.search.interface import CtcBeamConfig, LanguageModelConfig, SearchConfig

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "fusion.md").read_text(encoding="utf-8")


def test_settings_are_those_of_the_recipe() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    shown = tomllib.loads(block)["search"]
    found = TypeAdapter(SearchConfig).validate_python(shown)
    assert isinstance(found, CtcBeamConfig)
    assert set(shown["language_model"]) == set(LanguageModelConfig.model_fields)


def test_kinds_of_the_table_are_all_kinds() -> None:
    kinds = {
        name
        for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    schema = TypeAdapter(SearchConfig).json_schema()
    assert kinds == set(schema["discriminator"]["mapping"])


def test_names_exist() -> None:
    for name, module in re.findall(r"`(\w+)`\s+\((\w+/\w+)\.py\)", PAGE):
        assert hasattr(importlib.import_module("firstwords." + module.replace("/", ".")), name)
    assert "scorers" in inspect.signature(Recognizer.load).parameters
