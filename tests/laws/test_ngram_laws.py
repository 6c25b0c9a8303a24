"""Laws of language models as scorers: the whole sentence at once = token by token, rows sum to one.

Those of attention decoders and of the CTC prefix are held with their heads and searches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from firstwords.lm.ngram_scorer import NgramScorer
from firstwords.nn.scorer import TokenScorer
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer
from firstwords.text.tokenizer import Tokenizer
from small_ngrams import draw_text, train

TEXT = [s.replace(" ", "") for s in draw_text(1, "abcd", 60)] + ["ab cd", "a b ọ̀"]
TOKENIZER = GraphemeTokenizer.train([*TEXT, "xyz"], GraphemeConfig(min_count=1))


def scorer(unit: Any, order: int, cache_bytes: int = 1 << 20) -> NgramScorer:
    tokenizer: Tokenizer | None = TOKENIZER if unit == "piece" else None
    return NgramScorer(train(TEXT, unit, order, tokenizer), TOKENIZER, cache_bytes=cache_bytes)


SCORERS: dict[str, Callable[[], TokenScorer[Any]]] = {
    "ngram, char": lambda: scorer("char", 3),
    "ngram, piece": lambda: scorer("piece", 4),
    "ngram, order 1": lambda: scorer("char", 1),
    "ngram, cache of one row": lambda: scorer("char", 3, cache_bytes=1),
    "ngram, cache of seven rows": lambda: scorer("char", 4, cache_bytes=7 * 12 * (len(TOKENIZER.pieces) + 8)),
}


def walk(scorer: TokenScorer[Any], tokens: list[list[int]]) -> tuple[torch.Tensor, Any]:
    """Scores after the last of equally many tokens of each row, and the state."""
    state, last = scorer.start(len(tokens)), torch.zeros(len(tokens), dtype=torch.int64)
    scores, state = scorer.score(last, state)
    for column in zip(*tokens, strict=True):
        scores, state = scorer.score(torch.tensor(column), state)
    return scores, state


@pytest.mark.parametrize("name", SCORERS)
def test_rows_sum_to_one(name: str) -> None:
    scorer = SCORERS[name]()
    for tokens in ([[], []], [[2, 3, 2], [4, 2, 3]], [[len(TOKENIZER.pieces) - 1, 2], [1, 1]]):
        scores = walk(scorer, tokens)[0]
        assert scores.shape == (2, len(TOKENIZER.pieces))
        assert scores.exp().sum(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


@pytest.mark.parametrize("name", SCORERS)
def test_rows_are_scored_alone(name: str) -> None:
    """A row beside others = the same row alone; asked twice = asked once."""
    scorer = SCORERS[name]()
    rows = [[2, 3, 4, 1, 2], [4, 4, 2, 2, 3], [2, 3, 4, 1, 2], [6, 1, 1, 5, 5]]
    together = walk(scorer, rows)[0]
    for row, tokens in enumerate(rows):
        torch.testing.assert_close(walk(scorer, [tokens])[0][0], together[row])
        torch.testing.assert_close(walk(SCORERS[name](), [tokens])[0][0], together[row])


@pytest.mark.parametrize("name", SCORERS)
def test_reorder_commutes_with_score(name: str) -> None:
    scorer = SCORERS[name]()
    _, state = walk(scorer, [[2, 3], [4, 2], [5, 5]])
    kept, last = torch.tensor([2, 0, 0, 1]), torch.tensor([3, 2, 4])
    before, _ = scorer.score(last, state)
    after, _ = scorer.score(last[kept], scorer.reorder(state, kept))
    torch.testing.assert_close(after, before[kept])


@pytest.mark.parametrize("unit", ["char", "piece"])
def test_token_by_token_is_the_sentence_at_once(unit: Any) -> None:
    """Against the model's own words, whose rows lose only <unk>: all letters are known here."""
    text = ["".join(s.split()) for s in TEXT]
    tokenizer = GraphemeTokenizer.train(text, GraphemeConfig(min_count=1, bytes=False))
    lm = train([*text, "a b"], unit, 4, tokenizer if unit == "piece" else None)
    scorer = NgramScorer(lm, tokenizer)
    for sentence in ("abca", "a", "dọ̀a b", "cccccc"):
        tokens = [*tokenizer.encode(sentence), 0]
        state, last, found = scorer.start(1), torch.tensor([0]), 0.0
        states, unknown = [lm.model.begin], 0.0
        for token in tokens:
            scores, state = scorer.score(last, state)
            found += scores[0, token].item()
            states.append(int(state[0]))
            lost = lm.model.rows(state.numpy())[0][0][0]  # <unk> after this state, shared out
            unknown -= math.log1p(-math.exp(lost))
            last = torch.tensor([token])
        assert found == pytest.approx(lm.log_prob(sentence) + unknown, abs=1e-4)
        assert unknown > 0


def test_pieces_the_model_does_not_know_share_one_unknown() -> None:
    lm = train(TEXT, "char")
    scores, _ = (scorer := NgramScorer(lm, TOKENIZER)).score(torch.tensor([0]), scorer.start(1))
    x, y = TOKENIZER.encode("xy")
    missing = [i for i, p in enumerate(TOKENIZER.pieces) if i and p not in lm.model.id_of]
    assert x in missing
    assert scores[0, x] == scores[0, y]
    row = lm.model.rows(torch.tensor([lm.model.begin]).numpy())[0][0]
    assert scores[0, missing].exp().sum().item() == pytest.approx(math.exp(row[0]), rel=1e-5)


@pytest.mark.parametrize("cache_bytes", [1, 4000, 1 << 20])
def test_kept_rows_are_those_of_the_model(cache_bytes: int) -> None:
    """Made from the rows of shorter contexts, in any order and any number at once, with and without room."""
    lm = train(TEXT, "char", 4)
    own = NgramScorer(lm, TOKENIZER, cache_bytes=cache_bytes)
    columns = lm.columns(TOKENIZER)
    generator = torch.Generator().manual_seed(3)
    for count in (1, 3, 40, 2, 200):
        nodes = torch.randint(0, len(lm.model.parent), (count,), generator=generator)
        last = torch.randint(1, len(TOKENIZER.pieces), (count,), generator=generator)
        scores, after = own.score(last, nodes)
        expected = lm.model.rows(nodes.numpy())[1][range(count), columns[last.numpy()]]
        assert after.tolist() == expected.tolist()
        rows = lm.model.rows(after.numpy())[0][:, columns]
        missing = torch.from_numpy(columns == 0)
        rows = torch.from_numpy(rows) - missing * math.log(max(1, int(missing.sum())))
        torch.testing.assert_close(scores, rows.log_softmax(dim=1))
