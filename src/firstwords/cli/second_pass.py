"""The options by which a language model chooses among readings, the same for every verb."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firstwords.inference.recognizer import Recognizer

RESCORE_HELP = (
    "Let this language model choose among the readings: a folder in Hugging Face format, "
    "or hub:NAME to download one."
)
PROMPT_HELP = "With --rescore: a text of the domain, or a file that holds one."
WEIGHT_HELP = "With --rescore: how much the language model says; default 0.3."


@dataclass(frozen=True)
class SecondPassOptions:
    """What --rescore, --prompt and --rescore-weight were given."""

    llm: str | None
    prompt: str | None
    weight: float | None

    def check(self, *, stream: bool) -> None:
        """Which options go together."""
        from firstwords.errors import UsageError

        given = {"--prompt": self.prompt, "--rescore-weight": self.weight}
        if self.llm is None and (lone := [name for name, value in given.items() if value is not None]):
            raise UsageError(f"{lone[0]} belongs to --rescore.", mend="Name a language model with --rescore.")
        if self.weight is not None and not math.isfinite(self.weight):
            raise UsageError(f"--rescore-weight {self.weight}: no number.", mend="Give one such as 0.3.")
        if stream and self.llm is not None:
            raise UsageError(
                "--rescore needs whole utterances: it cannot be used with --stream.", mend="Leave one out."
            )

    def apply(self, recognizer: Recognizer, device: str, say: Callable[[str], None]) -> None:
        """Load the language model, if one was named, have it choose, and say what that changes."""
        if self.llm is None:
            return
        from firstwords.inference.fused import closed_vocabulary_off
        from firstwords.inference.rescored import add_second_pass, read_prompt
        from firstwords.inference.second_pass import SecondPassConfig
        from firstwords.search.rescore import RescoreConfig

        rescore = RescoreConfig() if self.weight is None else RescoreConfig(weight=self.weight)
        prompt = read_prompt(self.prompt) if self.prompt is not None else ""
        closed = recognizer.reader.closed_words
        add_second_pass(
            recognizer, self.llm, prompt=prompt, config=SecondPassConfig(rescore=rescore), device=device
        )
        for line in closed_vocabulary_off(recognizer, closed):
            say(line)

    @property
    def note(self) -> str:
        """For a report: what its reader must know."""
        told = " after a domain prompt" if self.prompt else ""
        return "" if self.llm is None else f"Readings were chosen by the language model {self.llm}{told}."

    def tell(self, recognizer: Recognizer, say: Callable[[str], None]) -> None:
        """Say what did not fit."""
        cut = recognizer.second_pass.cut if recognizer.second_pass is not None else 0
        if cut:
            say(f"The prompt does not fit into the language model: its first {cut} tokens were left out.")
