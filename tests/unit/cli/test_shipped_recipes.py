"""Recipes by name: what comes with firstwords is found, a file is preferred, unknown names are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.cli.shipped import find_recipe
from firstwords.errors import ConfigError
from firstwords.model import kinds
from firstwords.model.recipe import read_recipe
from firstwords.training.lm.recipe import read_lm_recipe


@pytest.mark.parametrize("given", ["streaming_tiny", "streaming_tiny.toml"])
def test_a_name_is_a_recipe_that_comes_with_firstwords(given: str) -> None:
    assert read_recipe(find_recipe(Path(given))).name == "streaming-tiny"


@pytest.mark.parametrize("kind", kinds.ENCODERS)
def test_any_encoder_takes_the_place_of_a_recipes_own(kind: str) -> None:
    """``--recipe conformer --set encoder.kind=...``: nothing of the Conformer is left but its heads."""
    recipe = read_recipe(find_recipe(Path("conformer")), overrides=(f"encoder.kind={kind}",))
    own = read_recipe(find_recipe(Path("conformer")))
    usual = kinds.ENCODERS[kind].config()
    assert recipe.encoder == (own.encoder if kind == "conformer" else usual)
    assert recipe.heads == own.heads


def test_recipes_of_language_models_have_names_of_their_own() -> None:
    assert read_lm_recipe(find_recipe(Path("lstm"), below="lm")).network.kind == "lstm"
    assert read_recipe(find_recipe(Path("lstm"))).encoder.kind == "lstm"


def test_a_file_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("conformer").write_text("", encoding="utf-8")
    assert find_recipe(Path("conformer")) == Path("conformer")
    assert find_recipe(Path("sub/conformer")) == Path(
        "sub/conformer"
    )  # a path is meant: reading it says what is wrong


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError,
        match=r"(?s)--recipe confromer: no such file.*conformer, conformer_hour, conformer_voices, ctc",
    ) as found:
        find_recipe(Path("confromer"))
    assert "transformer" not in str(found.value)
    with pytest.raises(ConfigError, match="lstm, transformer"):
        find_recipe(Path("conformer"), below="lm")


@pytest.mark.parametrize("given", ["a" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have_ends_in_words(given: str) -> None:
    with pytest.raises(ConfigError, match="a"):
        read_recipe(find_recipe(Path(given)))
