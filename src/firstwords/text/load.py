"""Which tokenizers there are: from settings, or from the ``tokenizer/`` folder of a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from firstwords.errors import TextError
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.text.given import GivenTokenizer
from firstwords.text.pieces import read_settings
from firstwords.text.subwords import SubwordConfig, SubwordTokenizer
from firstwords.text.tokenizer import Tokenizer

TokenizerConfig = Annotated[GraphemeConfig | SubwordConfig, Field(discriminator="kind")]


def train_tokenizer(config: GraphemeConfig | SubwordConfig, texts: Iterable[str]) -> Tokenizer:
    """Settings and normalized training texts -> tokenizer."""
    if isinstance(config, SubwordConfig):
        return SubwordTokenizer.train(texts, config)
    return GraphemeTokenizer.train(texts, config)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Folder written by ``Tokenizer.save`` -> tokenizer of the kind it names."""
    kind = read_settings(folder)["kind"]
    if kind == "graphemes":
        return GraphemeTokenizer.load(folder)
    if kind == "subwords":
        return SubwordTokenizer.load(folder)
    if kind == "given":
        return GivenTokenizer.load(folder)
    raise TextError(
        f"'{folder}' holds a tokenizer of kind '{kind}'; this version knows graphemes, subwords, given.",
        mend="Update firstwords.",
    )
