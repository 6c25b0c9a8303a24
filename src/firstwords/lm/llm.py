"""How probable a text is to a causal language model: any in Hugging Face format.

    log P(text | prompt) = sum over the text's own tokens of log P(token | prompt, tokens before it)

Prompt and text are tokenized apart, so the split between them never depends on the text. The prompt is read
once; its keys and values serve every text (``reuse_prompt``). Texts of similar length go through the model
together, padded on the right, where a causal model cannot see the padding.

Input of the model: a start token (the tokenizer's, else its end token), the prompt, the text. Texts longer
than the model's context are read in windows that overlap by half: each token sees at least half a window.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from firstwords.errors import CheckpointError
from firstwords.lm.llm_folder import LoadedLlm
from firstwords.lm.llm_local import LocalLlm, batches
from firstwords.lm.llm_score import LlmConfig, TextScore

_CACHED = 1 / 16  # what a prompt token costs in every row of a batch against one that is computed
_CAUSAL_TOLERANCE = 1e-2  # nats; a model that sees the future differs by far more, rounding by far less


class Row(NamedTuple):
    """One input of the model, and what shall follow each of its tokens (-1: not asked)."""

    owner: int
    fed: list[int]
    expected: list[int]


@dataclass(frozen=True)
class _Prompt:
    """A prompt that the model has read: its tokens, its keys and values, and what it expects next (V)."""

    ids: tuple[int, ...]
    cache: Any
    log_probs: Tensor


@final
class CausalLlm(LocalLlm):
    """A causal language model that scores texts. Use ``CausalLlm.load``."""

    kind = "causal"

    def __init__(self, loaded: LoadedLlm, config: LlmConfig | None = None) -> None:
        super().__init__(loaded, config)
        self._start = _start_token(self.tokenizer)
        self._end = _ending(self.tokenizer, self.config)
        self._last_prompt: _Prompt | None = None
        _check_causal(self.model, self._start, self.device)

    @torch.inference_mode()
    def score(self, texts: Sequence[str], prompt: str = "") -> list[TextScore]:
        distinct = list(dict.fromkeys(texts))
        texts_alone = [self._ids(text) for text in distinct]
        bodies = [ids + self._end for ids in texts_alone]
        before = self._prompt_ids(prompt)
        cut = self._cut(len(before), max(map(len, texts_alone), default=0))
        prefix = [self._start, *before[cut:]]
        log_probs = [0.0] * len(bodies)
        rows: list[Row] = []
        read: _Prompt | None = None
        if len(prefix) > 1 and self.config.reuse_prompt and any(bodies):
            read = self._read(tuple(prefix))
        for owner, body in enumerate(bodies):
            if not body:
                continue
            if read is not None:
                log_probs[owner] += float(read.log_probs[body[0]])
                rows.append(Row(owner, body[:-1], body[1:]))
            elif self._fits(prefix, body):
                rows.append(Row(owner, prefix + body[:-1], [-1] * (len(prefix) - 1) + body))
            else:
                rows += self._windows(owner, body)
        rows = [row for row in rows if row.fed]
        cached = _CACHED * len(read.ids) if read is not None else 0.0
        for batch in batches(rows, self.budget, besides=cached):
            for row, sum_ in zip(batch, self._sums(batch, read), strict=True):
                log_probs[row.owner] += sum_
        pieces = [sum(row.owner == owner for row in rows) for owner in range(len(bodies))]
        found = {
            text: TextScore(
                log_prob, len(own + self._end), len(text), cut, max(1, count), self.unknown_count(own)
            )
            for text, own, log_prob, count in zip(distinct, texts_alone, log_probs, pieces, strict=True)
        }
        return [found[text] for text in texts]

    # -- one step below

    @property
    def _beside(self) -> int:
        return len(self._end)  # the start token has the place of the last one, which is never fed

    def _fits(self, prefix: Sequence[int], body: Sequence[int]) -> bool:
        return self.limit is None or len(prefix) + len(body) - 1 <= self.limit

    def _windows(self, owner: int, body: Sequence[int]) -> Iterator[Row]:
        """A text that does not fit, in rows: each begins with the start token, each token is asked once."""
        assert self.limit is not None
        width = self.limit - 1  # tokens of the text in a row, beside the start token
        yield Row(owner, [self._start, *body[:width]], list(body[: self.limit]))
        done = self.limit
        while done < len(body):
            first = done - max(1, width // 2)
            fed = list(body[first : min(first + width, len(body) - 1)])
            last = first + len(fed)
            yield Row(owner, [self._start, *fed], [-1] * (done - first) + list(body[done : last + 1]))
            done = last + 1

    def _read(self, ids: tuple[int, ...]) -> _Prompt | None:
        """Let the model read a prompt; None where its state cannot be handed on to several texts.

        The last prompt is kept, and only what is appended to it is read.
        """
        last = self._last_prompt
        if last is not None and last.ids == ids:
            return last
        known = last if last is not None and ids[: len(last.ids)] == last.ids else None
        rest = ids if known is None else ids[len(known.ids) :]
        out = self.model(
            input_ids=torch.tensor([rest], device=self.device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64, device=self.device),
            past_key_values=None if known is None else copy.deepcopy(known.cache),
            use_cache=True,
        )
        cache = out.get("past_key_values")
        if not _can_be_repeated(cache):
            return None
        self._last_prompt = _Prompt(ids, cache, out.logits[0, -1].float().log_softmax(-1))
        return self._last_prompt

    def _sums(self, rows: Sequence[Row], prompt: _Prompt | None) -> list[float]:
        """Rows -> log-probabilities of what each expects, summed."""
        width = max(len(row.fed) for row in rows)
        fed = torch.zeros(len(rows), width, dtype=torch.int64)
        expected = torch.full((len(rows), width), -1, dtype=torch.int64)
        for i, row in enumerate(rows):
            fed[i, : len(row.fed)] = torch.tensor(row.fed)
            expected[i, : len(row.expected)] = torch.tensor(row.expected)
        lengths = torch.tensor([len(row.fed) for row in rows])
        seen = (torch.arange(width) < lengths[:, None]).long()
        fed, expected, seen = fed.to(self.device), expected.to(self.device), seen.to(self.device)
        cache = None
        if prompt is not None:
            # A forward pass appends to the cache it is given: every batch gets its own.
            cache = copy.deepcopy(prompt.cache)
            cache.batch_repeat_interleave(len(rows))
            seen = torch.cat([seen.new_ones(len(rows), len(prompt.ids)), seen], dim=1)
        logits = self.model(
            input_ids=fed, attention_mask=seen, past_key_values=cache, use_cache=cache is not None
        ).logits
        return chosen_log_probs(logits, expected).double().sum(1).tolist()


def chosen_log_probs(logits: Tensor, expected: Tensor) -> Tensor:
    """(..., V) logits and the (...) tokens asked for (-1: none) -> their log-probabilities, 0 for none."""
    logits = logits.float()
    chosen = logits.gather(-1, expected.clamp(min=0)[..., None])[..., 0]
    return torch.where(expected >= 0, chosen - logits.logsumexp(-1), 0.0)


def _start_token(tokenizer: Any) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise CheckpointError(
        "This tokenizer has neither a start (bos) nor an end token (eos): nothing could stand before the "
        "first token of a text.",
        mend="Give it one: tokenizer.bos_token = ..., and save it again.",
    )


def _ending(tokenizer: Any, config: LlmConfig) -> list[int]:
    if config.ending == "none":
        return []
    if config.ending == "separator":
        return list(tokenizer.encode(config.separator, add_special_tokens=False))
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            "This tokenizer has no end token (eos), so the end of a text cannot be scored.",
            mend='Set ending = "separator" or "none".',
        )
    return [int(tokenizer.eos_token_id)]


@torch.inference_mode()
def _check_causal(model: Any, start: int, device: torch.device) -> None:
    """Refuse a model that sees the future (BERT loads as a "causal" one, too)."""
    other = 0 if start != 0 else 1
    ids = torch.tensor([[start, start, start, start], [start, start, start, other]], device=device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    before = logits[:, :3].float().log_softmax(-1)
    if float((before[0] - before[1]).abs().max()) > _CAUSAL_TOLERANCE:
        raise CheckpointError(
            f"{type(model).__name__} is not causal: what it expects of a token depends on later ones.",
            mend="Score with MaskedLlm (pseudo-log-likelihood), or give a causal model.",
        )


def _can_be_repeated(cache: Any) -> bool:
    """True for caches of keys and values; states of linear attention and of state-space models are not."""
    from firstwords.lm.llm_folder import import_transformers

    kinds = import_transformers().cache_utils
    return isinstance(cache, kinds.DynamicCache) and all(
        isinstance(layer, kinds.DynamicLayer) and not isinstance(layer, kinds.LinearAttentionCacheLayerMixin)
        for layer in cache.layers
    )
