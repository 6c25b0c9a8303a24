"""How well a text reads to a masked language model (BERT, RoBERTa, XLM-R, ...).

    pseudo-log-likelihood = sum over tokens of log P(token | all others)

Salazar et al., 2020, arXiv:1910.14659: each token is masked in turn, so a text of L tokens goes
through the model L times. The rest of a rare word gives its pieces away; with masking = "rest_of_word" the
pieces to the right within the word are masked as well (Kauf and Ivanova, 2023, arXiv:2305.10588).

It is no probability of the text: use it to compare readings of one utterance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import torch

from firstwords.errors import CheckpointError
from firstwords.lm.llm import chosen_log_probs
from firstwords.lm.llm_folder import LoadedLlm
from firstwords.lm.llm_local import LocalLlm, batches
from firstwords.lm.llm_score import LlmConfig, TextScore


class Row(NamedTuple):
    """One text with a hole: the token ``expected`` at ``place``."""

    owner: int
    fed: list[int]
    place: int
    expected: int


@final
class MaskedLlm(LocalLlm):
    """A masked language model that scores texts. Use ``MaskedLlm.load``.

    A prompt stands before the text and is never masked; ends are not scored.
    """

    kind = "masked"

    def __init__(self, loaded: LoadedLlm, config: LlmConfig | None = None) -> None:
        super().__init__(loaded, config)
        self._mask = _special(self.tokenizer.mask_token_id, "mask")
        self._first = _special(self.tokenizer.cls_token_id, "cls")
        self._last = _special(self.tokenizer.sep_token_id, "sep")

    @torch.inference_mode()
    def score(self, texts: Sequence[str], prompt: str = "") -> list[TextScore]:
        distinct = list(dict.fromkeys(texts))
        bodies = [self._ids(text) for text in distinct]
        before, longest = self._prompt_ids(prompt), max(map(len, bodies), default=0)
        cut = self._cut(len(before), longest)
        width = max(1, longest) if self.limit is None else self.limit - self._beside
        rows = [
            row
            for owner, (text, body) in enumerate(zip(distinct, bodies, strict=True))
            for row in self._rows(owner, before[cut:], body, self._words(text, body), width)
        ]
        log_probs = [0.0] * len(bodies)
        for batch in batches(rows, self.budget):
            for row, log_prob in zip(batch, self._log_probs(batch), strict=True):
                log_probs[row.owner] += log_prob
        found = {
            text: TextScore(
                log_prob, len(body), len(text), cut, max(1, -(-len(body) // width)), self.unknown_count(body)
            )
            for text, body, log_prob in zip(distinct, bodies, log_probs, strict=True)
        }
        return [found[text] for text in texts]

    # -- one step below

    @property
    def _beside(self) -> int:
        return 2  # first and last token

    def _words(self, text: str, body: Sequence[int]) -> list[int]:
        """The number of the word that each token lies in; all different where only tokens are masked."""
        if self.config.masking == "token" or not text:
            return list(range(len(body)))
        if not self.tokenizer.is_fast:
            raise CheckpointError(
                "This tokenizer does not tell which word a token lies in.", mend='Set masking = "token".'
            )
        words = self.tokenizer(text, add_special_tokens=False).word_ids()
        return [-1 - i if word is None else word for i, word in enumerate(words)]

    def _rows(
        self, owner: int, before: list[int], body: list[int], words: list[int], width: int
    ) -> Iterator[Row]:
        for place, token in enumerate(body):
            # A text that does not fit is seen through a window with the hole in its middle.
            first = min(max(0, place - width // 2), max(0, len(body) - width))
            seen = [
                self._mask if i == place or (i > place and words[i] == words[place]) else body[i]
                for i in range(first, min(first + width, len(body)))
            ]
            fed = [self._first, *before, *seen, self._last]
            yield Row(owner, fed, 1 + len(before) + place - first, token)

    def _log_probs(self, rows: Sequence[Row]) -> list[float]:
        width = max(len(row.fed) for row in rows)
        padding = self.tokenizer.pad_token_id
        fed = torch.full((len(rows), width), 0 if padding is None else int(padding), dtype=torch.int64)
        for i, row in enumerate(rows):
            fed[i, : len(row.fed)] = torch.tensor(row.fed)
        lengths = torch.tensor([len(row.fed) for row in rows])
        seen = (torch.arange(width) < lengths[:, None]).long()
        logits = self.model(input_ids=fed.to(self.device), attention_mask=seen.to(self.device)).logits
        place = torch.tensor([row.place for row in rows], device=self.device)
        expected = torch.tensor([row.expected for row in rows], device=self.device)
        at_hole = logits[torch.arange(len(rows), device=self.device), place]
        return chosen_log_probs(at_hole, expected).double().tolist()


def _special(token: Any, name: str) -> int:
    if token is None:
        raise CheckpointError(
            f"This tokenizer has no {name} token, which a masked language model needs.",
            mend="Give the folder of a masked language model with its own tokenizer.",
        )
    return int(token)
