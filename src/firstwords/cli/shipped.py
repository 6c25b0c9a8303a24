"""Recipes that come with firstwords, by name: ``--recipe streaming_tiny`` is recipes/streaming_tiny.toml."""

from __future__ import annotations

from pathlib import Path

from firstwords.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")  # installed; beside src/ in a clone


def find_recipe(given: Path, *, below: str = "") -> Path:
    """What stands behind --recipe -> a file: the one of that path, else the shipped one of that name.

    Args:
        below: folder of recipes/ in which to look for names: "lm" for language models.

    ConfigError where there is neither, with the names that there are.
    """
    try:
        if given.exists() or given.parent != Path():
            return given
    except (OSError, ValueError):  # a name that no file can have: reading it says so
        return given
    folders = [folder / below for folder in _FOLDERS]
    name = given.name.removesuffix(".toml")
    for folder in folders:
        found = folder / f"{name}.toml"
        if found.is_file():
            return found
    names = sorted({path.stem for folder in folders for path in folder.glob("*.toml")})
    raise ConfigError(
        f"--recipe {given}: no such file, and no recipe that comes with firstwords.",
        mend=f"Give the path of a TOML file, or one of these names: {', '.join(names)}.",
    )
