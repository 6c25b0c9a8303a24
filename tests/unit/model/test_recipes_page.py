"""Recipes in docs/: every setting that a page names exists, every table that it shows is read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from firstwords.config import merge, parse_config
from firstwords.errors import ConfigError
from firstwords.model import kinds
from firstwords.model.recipe import Recipe, read_recipe, write_recipe
from tone_corpus import tone_recipe

DOCS = Path(__file__).resolve().parents[3] / "docs"
SETTINGS = sorted(
    {
        setting
        for page in ("recipes.md", "ctc.md")
        for setting in re.findall(r"--set\s+([\w.]+=[^\s`]+)", (DOCS / page).read_text(encoding="utf-8"))
    }
)


def test_the_pages_name_settings() -> None:
    assert len(SETTINGS) >= 3


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_on_the_pages_exist(setting: str, tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.toml", tone_recipe())
    changed = read_recipe(tmp_path / "recipe.toml", overrides=(setting,))
    assert changed.digest != tone_recipe().digest


def test_a_misspelt_setting_names_the_nearest() -> None:
    """The message quoted in docs/architecture.md."""
    values = tone_recipe().model_dump(mode="json")
    values["encoder"]["kernel"] = 7
    with pytest.raises(ConfigError) as raised:
        parse_config(values, Recipe, name="recipe", source="x.toml")
    message = "recipe.encoder.kernel: no such setting. Did you mean 'kernels'?"
    assert message in str(raised.value)
    assert message in (DOCS / "architecture.md").read_text(encoding="utf-8")


PAGES = ("architectures.md", "architectures_convolutional.md", "attention.md", "fusion.md", "transducer.md")
BLOCKS = [
    pytest.param(block, id=f"{page} {n}")
    for page in PAGES
    for n, block in enumerate(
        re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_recipe_on_a_page_of_a_model_is_one(block: str) -> None:
    """Above a Zipformer with CTC, as a user would put it."""
    usual = {"encoder": {"kind": "zipformer"}, "heads": {"ctc": {"kind": "ctc"}}}
    told = tomllib.loads(block)
    recipe = parse_config(merge(usual, told), Recipe, name="recipe", source="a page")
    shown = recipe.model_dump(mode="json")
    assert merge(shown, told) == shown, "a default took the place of what the page says"


def test_every_encoder_has_a_recipe_or_a_place_on_a_page() -> None:
    shipped = {
        read_recipe(path).encoder.kind
        for path in (DOCS.parent / "recipes").glob("*.toml")
        if path.stem != "ctc"  # a base
    }
    told = {tomllib.loads(str(block.values[0])).get("encoder", {}).get("kind") for block in BLOCKS}
    assert shipped | told >= set(kinds.ENCODERS)


def test_the_recipe_of_the_transducer_page_is_read() -> None:
    page = (DOCS / "transducer.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    values = tone_recipe().model_dump(mode="json") | tomllib.loads(block)
    recipe = parse_config(values, Recipe, name="recipe", source="docs/transducer.md")
    assert list(recipe.heads) == ["ctc", "transducer"]
    assert recipe.search.kind == "transducer_beam"
