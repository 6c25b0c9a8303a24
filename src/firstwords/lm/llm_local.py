"""What language models in Hugging Face format on this machine share, causal and masked ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, Self, TypeVar

from firstwords.lm.llm_folder import Dtype, Kind, LoadedLlm, load_llm
from firstwords.lm.llm_score import LlmConfig, TextScorer

_LOGITS = 1 << 27  # numbers in the logits of one batch: half a gigabyte of float32


class Fed(Protocol):
    """A row of a batch: the tokens that the model is fed."""

    @property
    def fed(self) -> list[int]: ...


FedT = TypeVar("FedT", bound=Fed)


class LocalLlm(TextScorer, ABC):
    """A loaded model and its tokenizer; ``score`` is what causal and masked models do differently."""

    kind: ClassVar[Kind]

    def __init__(self, loaded: LoadedLlm, config: LlmConfig | None = None) -> None:
        self.model, self.tokenizer, self.limit = loaded.model, loaded.tokenizer, loaded.limit
        self.device = loaded.device
        self.config = config or LlmConfig()

    @property
    @abstractmethod
    def _beside(self) -> int:
        """Positions of the context that are taken by neither prompt nor text."""

    @classmethod
    def load(
        cls,
        path_or_id: Path | str,
        *,
        device: str = "auto",
        dtype: Dtype = "auto",
        config: LlmConfig | None = None,
    ) -> Self:
        """Model folder, or ``hub:ORGANISATION/NAME`` to download one, -> the scorer. See llm_folder.py."""
        return cls(load_llm(path_or_id, cls.kind, device=device, dtype=dtype), config)

    def token_count(self, text: str) -> int:
        return len(self._ids(text))

    def prompt_cut(self, texts: Sequence[str], prompt: str) -> int:
        if self.limit is None:
            return 0
        longest = max((self.token_count(text) for text in texts), default=0)
        return self._cut(len(self._prompt_ids(prompt)), longest)

    def _cut(self, prompt: int, longest: int) -> int:
        """How many of so many tokens of a prompt do not fit before a text of ``longest`` tokens."""
        room = prompt if self.limit is None else max(0, self.limit - longest - self._beside)
        return max(0, prompt - room)

    def _prompt_ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt and of the separator behind it; none without a prompt."""
        words = prompt.rstrip()
        return self._ids(words + self.config.separator) if words else []

    def unwritten(self, texts: Iterable[str]) -> list[str]:
        return [text for text in texts if self.unknown_count(self._ids(text))]

    def unknown_count(self, ids: Sequence[int]) -> int:
        """How many of these tokens stand for what the tokenizer cannot write."""
        unknown = self.tokenizer.unk_token_id
        return 0 if unknown is None else list(ids).count(int(unknown))

    @property
    def budget(self) -> int:
        """Tokens of a batch, padding counted: those that are allowed, fewer where logits grow too large."""
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        return min(self.config.tokens_per_batch, max(1, _LOGITS // vocabulary))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []


def batches(rows: Sequence[FedT], budget: int, *, besides: float = 0.0) -> Iterator[list[FedT]]:
    """Rows of similar length together, within the budget; a row above it goes alone.

    Args:
        budget: tokens, padding counted.
        besides: what each row costs besides those it is fed, in tokens.
    """
    batch: list[FedT] = []
    for row in sorted(rows, key=lambda row: -len(row.fed)):
        if batch and (len(batch) + 1) * (len(batch[0].fed) + besides) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
