"""What a language model says of a text: the value and the interface that every scorer of whole texts shares.

A model with a tokenizer of its own cannot follow a search token by token; it reads whole readings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from firstwords.config import Config

Ending = Literal["eos", "separator", "none"]
Masking = Literal["token", "rest_of_word"]


class LlmConfig(Config):
    """How texts are put before a language model."""

    separator: str = Field(default="\n", min_length=1)  # between prompt and text: no token may span them
    ending: Ending = "eos"  # what is scored after the text; lines of a prompt teach the "separator" as end
    tokens_per_batch: PositiveInt = 4096  # texts in a batch x the longest of them, at most
    reuse_prompt: bool = True  # encode the prompt once for all texts; off: with every text, the same result
    masking: Masking = "token"  # of masked models; rest_of_word: Kauf and Ivanova, 2023, arXiv:2305.10588

    @field_validator("separator")
    @classmethod
    def separator_is_white_space(cls, value: str) -> str:
        if value.strip():
            raise ValueError("a separator is white space: what the prompt ends with otherwise belongs to it")
        return value


@dataclass(frozen=True)
class TextScore:
    """One text as a language model sees it.

    Args:
        log_prob: natural log, summed over the text's own tokens (and its end where ``ending`` asks for it);
            those of the prompt are not in it.
        tokens: how many were summed, in the language model's own tokens.
        characters: code points of the text.
        prompt_cut: tokens at the start of the prompt that did not fit into the model's context.
        windows: above 1, the text itself did not fit and was read in overlapping pieces.
        unknown: of these tokens, those that stand for what the model's tokenizer cannot write.
    """

    log_prob: float
    tokens: int
    characters: int
    prompt_cut: int = 0
    windows: int = 1
    unknown: int = 0


class TextScorer(ABC):
    """Texts in, log-probabilities out."""

    @abstractmethod
    def score(self, texts: Sequence[str], prompt: str = "") -> list[TextScore]:
        """Texts -> the score of each, in order, as if it followed the prompt.

        Law: a text's score depends on the prompt and on itself alone, never on the other texts; unless the
        prompt must be cut, which is done for all alike (``prompt_cut``).
        """

    @abstractmethod
    def prompt_cut(self, texts: Sequence[str], prompt: str) -> int:
        """How many tokens of the prompt ``score`` would leave out, so that these texts fit behind it."""

    @abstractmethod
    def unwritten(self, texts: Iterable[str]) -> list[str]:
        """Those of these texts that the model's tokenizer cannot write."""

    @abstractmethod
    def token_count(self, text: str) -> int:
        """How much of the model's context a text takes, in tokens."""
