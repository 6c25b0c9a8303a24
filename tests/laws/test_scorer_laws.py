"""Laws of scorers of next tokens: each row is its own; ``reorder`` and ``join`` commute with ``score``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
from firstwords.lm.neural.config import LstmLmConfig, TransformerLmConfig
from firstwords.lm.neural.folder import build_network
from firstwords.lm.neural.scorer import NeuralScorer
from firstwords.nn.scorer import TokenScorer
from firstwords.search.biasing import PhraseScorer
from firstwords.search.ctc_prefix import CtcPrefixScorer
from firstwords.search.fusion import TokenBonus, Weighted, WeightedSum
from firstwords.search.lexicon import LexiconScorer
from firstwords.search.phrase_rows import Phrase
from firstwords.search.transducer_common import InternalModel
from firstwords.search.words import WordBoundaries
from firstwords.tensors import Padded
from toy_scorers import TrigramScorer

VOCABULARY = 5
BOUNDARIES = WordBoundaries.of(["<blank>", "▁", "a", "b", "c"])


class Unigram:
    """Three words, whatever stood before."""

    def start(self) -> int:
        return 0

    def scores(self, history: int) -> np.ndarray:
        return np.log(np.array([0.4, 0.3, 0.2, 0.1])) + 0.01 * history

    def oov(self, history: int) -> float:
        return -6.0

    def advance(self, history: int, word: int) -> int:
        return word + 1


def _transducer() -> InternalModel:
    torch.manual_seed(3)
    return InternalModel(TransducerHead(TransducerConfig(joiner_dim=8), 4, VOCABULARY).double().eval())


def _prefixes() -> CtcPrefixScorer:
    values = torch.randn(1, 9, VOCABULARY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return CtcPrefixScorer(Padded(values.log_softmax(-1), torch.tensor([9])))


def _phrases() -> PhraseScorer:
    return PhraseScorer([Phrase((2, 3), 1.0), Phrase((3, 1, 2), 0.5)], BOUNDARIES)


def _words() -> LexiconScorer:
    return LexiconScorer(Unigram(), [((2, 3), 1), ((2,), 2), ((4, 2), 3)], BOUNDARIES)


def _sum() -> WeightedSum:
    parts = [Weighted("a", 0.5, TrigramScorer(VOCABULARY, 1)), Weighted("b", -0.2, _phrases())]
    return WeightedSum([*parts, Weighted("c", 1.0, TokenBonus(VOCABULARY)), Weighted("d", 1.0, _words())], 5)


def _neural(kind: str, columns: list[int] | None = None) -> NeuralScorer:
    torch.manual_seed(6)
    lstm = LstmLmConfig(dim=8, layers=2)
    config = lstm if kind == "lstm" else TransformerLmConfig(dim=8, layers=2, heads=2, feedforward=16)
    units = VOCABULARY if columns is None else 7
    return NeuralScorer(
        build_network(config, units).double(), None if columns is None else torch.tensor(columns)
    )


SCORERS: dict[str, Callable[[], TokenScorer[Any]]] = {
    "CTC prefixes": _prefixes,
    "phrases": _phrases,
    "words": _words,
    "a transducer's own": _transducer,
    "tokens counted": lambda: TokenBonus(VOCABULARY),
    "a sum": _sum,
    "an LSTM": lambda: _neural("lstm"),
    "a Transformer": lambda: _neural("transformer"),
    "letters of an LSTM": lambda: _neural("lstm", [0, 3, 1, 6, 1]),  # 1: letters that it does not know
}


def read(scorer: TokenScorer[Any], sentences: Tensor) -> tuple[Tensor, Any]:
    """(rows, U) tokens -> the scores after them, and the state before the last of them."""
    state = scorer.start(len(sentences))
    last = torch.zeros(len(sentences), dtype=torch.int64)
    scores, after = scorer.score(last, state)
    for last in sentences.T:
        state = after
        scores, after = scorer.score(last, state)
    return scores, state


@pytest.mark.parametrize("name", SCORERS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), length=st.integers(1, 4), rows=st.integers(1, 4))
def test_what_every_scorer_promises(name: str, seed: int, length: int, rows: int) -> None:
    scorer = SCORERS[name]()
    generator = torch.Generator().manual_seed(seed)
    sentences = torch.randint(1, VOCABULARY, (rows, length), generator=generator)
    together, state = read(scorer, sentences)
    assert together.shape == (rows, VOCABULARY)
    assert not together.isnan().any()
    for row in range(rows):
        torch.testing.assert_close(together[row : row + 1], read(scorer, sentences[row : row + 1])[0])
    kept = torch.randint(0, rows, (3,), generator=generator)
    last = sentences[:, -1]
    torch.testing.assert_close(scorer.score(last[kept], scorer.reorder(state, kept))[0], together[kept])
    cut = int(torch.randint(0, rows + 1, (1,), generator=generator))
    parts = [scorer.reorder(state, torch.arange(0, cut)), scorer.reorder(state, torch.arange(cut, rows))]
    torch.testing.assert_close(scorer.score(last, scorer.join(parts))[0], together)
    torch.testing.assert_close(scorer.score(last, state)[0], together)  # a scorer itself changes nothing


@pytest.mark.parametrize("name", SCORERS)
def test_rows_that_have_read_more_than_others_are_joined(name: str) -> None:
    scorer = SCORERS[name]()
    sentences = [torch.tensor([[2, 3, 1]]), torch.tensor([[4], [2]]), torch.tensor([[1, 2, 3, 4]])]
    alone = [read(scorer, part) for part in sentences]
    last = torch.cat([part[:, -1] for part in sentences])
    joined = scorer.join([state for _, state in alone])
    scores, after = scorer.score(last, joined)
    torch.testing.assert_close(scores, torch.cat([scores for scores, _ in alone]))
    kept = torch.tensor([2, 1, 2])
    following = torch.tensor([1, 3, 4])
    found, _ = scorer.score(following, scorer.reorder(after, kept))
    for row, token in enumerate(following.tolist()):
        whole = torch.tensor([[2, token]] if kept[row] == 2 else [[4, token]])
        torch.testing.assert_close(found[row : row + 1], read(scorer, whole)[0])


@pytest.mark.parametrize(
    "name", ["CTC prefixes", "a transducer's own", "an LSTM", "a Transformer", "letters of an LSTM"]
)
def test_rows_of_normalized_models_sum_to_one(name: str) -> None:
    scores, _ = read(SCORERS[name](), torch.tensor([[2, 3], [1, 1]]))
    own = scores[:, 1:] if name == "a transducer's own" else scores  # it says nothing of the end
    assert own.exp().sum(1).tolist() == pytest.approx([1.0, 1.0])
