"""The stages of formatting that a bundle takes along: those that need no torch, with all that they read."""

from __future__ import annotations

from pathlib import Path

from firstwords.errors import TextError
from firstwords.export.bundle import TABLE
from firstwords.formatting.build import hotword_phrases
from firstwords.formatting.number_table import load_table
from firstwords.formatting.settings import HotwordsConfig, PostConfig, StageName

NEEDS_TORCH: frozenset[str] = frozenset({"punctuation"})
_NOTHING = PostConfig()


def portable_stages(
    config: PostConfig | None, language: str, folder: Path
) -> tuple[PostConfig, dict[str, bytes]]:
    """Stages of a model folder -> those of its bundle, and the files that go into it.

    Phrases are written out; a table of numbers of one's own becomes ``numbers.toml``.
    """
    if config is None:
        return _NOTHING, {}
    stages: tuple[StageName, ...] = tuple(stage for stage in config.stages if stage not in NEEDS_TORCH)
    files: dict[str, bytes] = {}
    numbers, hotwords = _NOTHING.numbers, HotwordsConfig()
    if "numbers" in stages:
        own = folder / config.numbers.table if config.numbers.table else None
        numbers = config.numbers.with_(language=config.numbers.language or language, table="")
        load_table(numbers.language, own)  # what is wrong with it is said now
        if own is not None:
            files[TABLE] = _read(own)
            numbers = numbers.with_(table=TABLE)
    if "hotwords" in stages:
        hotwords = config.hotwords.with_(phrases=hotword_phrases(config.hotwords, folder), file="")
    return PostConfig(stages=stages, numbers=numbers, hotwords=hotwords), files


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TextError(
            f"The table of numbers '{path}' cannot be read: {error.strerror or error}.",
            mend="Check [post.numbers] table in the recipe.",
        ) from None
