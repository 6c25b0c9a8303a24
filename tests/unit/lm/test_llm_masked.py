"""Masked models: pseudo-log-likelihood by hand, batches, words, prompts, windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from firstwords.lm.llm_masked import MaskedLlm
from firstwords.lm.llm_score import LlmConfig
from small_llm import save

TEXTS = ["the cat eats fish", "zebra", "it goes home today in town", ""]


def by_hand(llm: MaskedLlm, text: str, prompt: str = "") -> float:
    """One pass with one hole for every token."""
    own = llm.tokenizer
    before = own.encode(f"{prompt}\n", add_special_tokens=False) if prompt else []
    body = own.encode(text, add_special_tokens=False)
    total = 0.0
    for place, token in enumerate(body):
        holed = [*body[:place], own.mask_token_id, *body[place + 1 :]]
        ids = torch.tensor([[own.cls_token_id, *before, *holed, own.sep_token_id]])
        with torch.no_grad():
            logits = llm.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        total += float(logits[0, 1 + len(before) + place].log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("prompt", ["", "anna goes to town"], ids=["no prompt", "prompt"])
def test_one_hole_after_the_other(tmp_path: Path, kind: str, prompt: str) -> None:
    llm = MaskedLlm.load(save(tmp_path, kind), config=LlmConfig(tokens_per_batch=20))
    for text, score in zip(TEXTS, llm.score(TEXTS, prompt), strict=True):
        assert score.log_prob == pytest.approx(by_hand(llm, text, prompt), abs=1e-4)
        assert (score.tokens, score.characters, score.windows) == (len(text.split()), len(text), 1)
    alone = [llm.score([text], prompt)[0].log_prob for text in TEXTS]
    assert [s.log_prob for s in llm.score(TEXTS, prompt)] == pytest.approx(alone, abs=1e-4)


def test_the_rest_of_a_word_is_hidden_too(tmp_path: Path) -> None:
    """Words of three letters as tokens a, b, c: a is seen without b and c, b without c, c with both."""
    llm = MaskedLlm.load(save(tmp_path, "bert"), config=LlmConfig(masking="rest_of_word"))
    body = [5, 6, 7, 8]
    rows = list(llm._rows(0, [], body, [0, 0, 0, 1], 10))
    mask, cls, sep = llm._mask, llm._first, llm._last
    assert [row.fed for row in rows] == [
        [cls, mask, mask, mask, 8, sep],
        [cls, 5, mask, mask, 8, sep],
        [cls, 5, 6, mask, 8, sep],
        [cls, 5, 6, 7, mask, sep],
    ]
    assert [(row.place, row.expected) for row in rows] == [(1, 5), (2, 6), (3, 7), (4, 8)]
    # Every token of this tokenizer is a word: both ways of masking agree.
    whole = MaskedLlm.load(tmp_path)
    assert [s.log_prob for s in llm.score(TEXTS)] == pytest.approx([s.log_prob for s in whole.score(TEXTS)])


def test_a_text_that_does_not_fit_is_seen_through_windows(tmp_path: Path) -> None:
    llm = MaskedLlm.load(save(tmp_path, "bert", positions=8))
    text = "anna bob cat dog eats fish goes home in on the it"
    assert llm.limit == 8
    rows = list(llm._rows(0, [], llm._ids(text), list(range(12)), 6))
    assert len(rows) == 12
    for row, token in zip(rows, llm._ids(text), strict=True):
        assert len(row.fed) == 8
        assert row.fed[row.place] == llm._mask
        assert row.expected == token
    score = llm.score([text], "zebra")[0]
    assert (score.windows, score.prompt_cut, score.tokens) == (2, 2, 12)
    assert score.log_prob < 0


def test_roberta_counts_positions_from_its_padding(tmp_path: Path) -> None:
    """Position ids start at padding_idx + 1: one of 32 positions is never used here (padding 0)."""
    llm = MaskedLlm.load(save(tmp_path, "roberta", positions=32))
    assert llm.limit == 31
    text = " ".join(["zebra"] * 40)
    assert llm.score([text])[0].tokens == 40
    assert [s.unknown for s in llm.score(["zebra eats", "zẹbra eats"])] == [0, 1]
