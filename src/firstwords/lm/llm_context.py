"""What was said before, as the prompt for what comes: carried context over the segments of a recording.

    prompt = domain prompt
             text of the segment before the last
             text of the last segment
             ^ as many as fit into ``tokens``, only of segments that the recogniser was sure of

Where a model's context has no room for all of it before the readings, the oldest texts go first, the domain
prompt stays (inference/second_pass.py).

Chen et al., 2023, arXiv:2306.08133, carry the best reading of the segments before. An error that is carried
may breed errors: an unsure segment is left out, and so is all before it, since what is left would not be what
was said just before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, final

from pydantic import Field, NonNegativeInt

from firstwords.config import Config


class ContextConfig(Config):
    """How much is carried."""

    tokens: NonNegativeInt = 200  # of the language model, for all carried texts; 0 carries nothing
    confidence: Annotated[float, Field(ge=0.0, le=1.0)] = 0.8  # mean of a segment's tokens, at least


@final
@dataclass(frozen=True)
class CarriedContext:
    """The texts that the next segment's prompt holds, oldest first, each with its tokens. Immutable."""

    config: ContextConfig
    texts: tuple[tuple[str, int], ...] = ()

    def after(self, text: str, confidence: float | None, count: Callable[[str], int]) -> CarriedContext:
        """The context once a segment's reading is chosen.

        Args:
            confidence: None where the search knows none; such a segment counts as unsure.
            count: text -> its tokens (``TextScorer.token_count``).
        """
        text = " ".join(text.split())
        if not text:
            return self
        if confidence is None or confidence < self.config.confidence:
            return replace(self, texts=())
        texts = [*self.texts, (text, count(text))]
        while texts and sum(size for _, size in texts) > self.config.tokens:
            texts.pop(0)
        return replace(self, texts=tuple(texts))

    def without_oldest(self) -> CarriedContext:
        """The same without its first text."""
        return replace(self, texts=self.texts[1:])

    def prompt(self, domain: str = "", separator: str = "\n") -> str:
        """Domain prompt and carried texts, one a line."""
        return separator.join(part for part in (domain.strip(), *(text for text, _ in self.texts)) if part)
