"""What dev utterances read as with a setting of weights: how ``tune`` (tuning.py) tries one.

by_search    log-probabilities of every utterance, and a search for every setting: exact
by_n_best    n-best readings of every utterance, put in another order: quick, and blind to what is not
             among them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from firstwords.nn.scorer import TokenScorer
from firstwords.search.ctc_beam import CtcBeamSearch, prefix_readings
from firstwords.search.fusion import Scorers, Weighted, weigh
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, LanguageModelConfig
from firstwords.search.tuning import Reader, Setting
from firstwords.search.words import NEVER
from firstwords.tensors import pad


class Said(NamedTuple):
    """What models of text say of each reading of an utterance and its end, in nats; None: there is none."""

    language_model: Sequence[float]
    source: Sequence[float] | None = None  # of the training transcripts
    internal: Sequence[float] | None = None  # what the recogniser itself knows of text


def by_search(
    log_probs: Sequence[NDArray[np.floating]],
    scorers: Scorers,
    config: CtcBeamConfig,
    text: Callable[[Sequence[int]], str],
    *,
    is_speech: Callable[[Hypothesis], bool] | None = None,
) -> Reader:
    """CTC log-probabilities (T, V) of every utterance -> what the search reads with a setting.

    Args:
        scorers: the language model, and one of the training transcripts where it may be taken off.
        config: of the search; the weights of its language model are those of the setting.
        text: tokens -> text, normalized for scoring.
        is_speech: readings that it refuses are none; None: all are speech.
    """

    def best(one: NDArray[np.float64], helping: Sequence[Weighted]) -> Sequence[int]:
        if is_speech is None:
            return prefix_readings(one, config, helping)[0].tokens
        search = CtcBeamSearch(config, 1.0, helping)  # times are not asked for
        ((reading, *_),) = search(pad([torch.from_numpy(one)]))
        return reading.tokens if is_speech(reading) else ()

    def read(setting: Setting) -> list[str]:
        own = LanguageModelConfig(**setting._asdict())
        found: list[str] = []
        for one in log_probs:
            found.append(text(best(one.astype(np.float64), weigh(scorers, own, one.shape[1]))))
        return found

    return read


def by_n_best(
    readings: Sequence[Sequence[Hypothesis]],
    said: Sequence[Said],
    text: Callable[[Sequence[int]], str],
) -> Reader:
    """N-best readings of every utterance -> the best of them with a setting.

    What is added is divided by what the search divided its own scores by (``Hypothesis.divisor``).

    Args:
        readings: made without a language model.
        said: of them.
        text: tokens -> text, normalized for scoring.
    """
    tables = [_Table.of(own, models, text) for own, models in zip(readings, said, strict=True)]
    return lambda setting: [table.best(setting) for table in tables]


@torch.no_grad()
def sentence_log_probs(scorer: TokenScorer[Any], sentences: Sequence[Sequence[int]]) -> list[float]:
    """log P of each sentence of tokens and of its end, in nats, asked for all at once."""
    state, last = scorer.start(len(sentences)), torch.zeros(len(sentences), dtype=torch.int64)
    totals = [0.0] * len(sentences)
    for place in range(max(map(len, sentences), default=0) + 1):
        scores, state = scorer.score(last, state)
        nexts = [sentence[place] if place < len(sentence) else 0 for sentence in sentences]
        chosen = scores.detach().to("cpu", torch.float64)[range(len(sentences)), nexts].tolist()
        for row, sentence in enumerate(sentences):
            if place <= len(sentence):  # the rows of shorter ones go on, and nobody listens
                totals[row] += chosen[row]
        last = torch.tensor(nexts, dtype=torch.int64)
    return totals


# -- one step below


class _Table(NamedTuple):
    """The readings of one utterance (R,), each number divided as the search divided its own."""

    heard: NDArray[np.float64]
    tokens: NDArray[np.float64]  # how many
    language_model: NDArray[np.float64]
    source: NDArray[np.float64]
    internal: NDArray[np.float64]
    texts: list[str]

    @classmethod
    def of(cls, readings: Sequence[Hypothesis], said: Said, text: Callable[[Sequence[int]], str]) -> _Table:
        divisor = np.array([reading.divisor for reading in readings])

        def table(log_probs: Sequence[float] | None) -> NDArray[np.float64]:
            return np.zeros(len(readings)) if log_probs is None else np.array(log_probs) / divisor

        return cls(
            heard=np.array([reading.score for reading in readings]),
            tokens=table([float(len(reading.tokens)) for reading in readings]),
            language_model=table(said.language_model),
            source=table(said.source),
            internal=table(said.internal),
            texts=[text(reading.tokens) for reading in readings],
        )

    def best(self, setting: Setting) -> str:
        total = (
            self.heard
            + _share(setting.weight, self.language_model)
            + setting.bonus * self.tokens
            + _share(-setting.source_weight, self.source)
        )
        if setting.weight:  # searches take their own model off where another takes its place
            total = total + _share(-setting.internal_weight, self.internal)
        return self.texts[int(np.argmax(total))]


def _share(weight: float, log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """As ``fusion.weighted``: what is impossible stays so, whatever the sign; 0 times it is nothing."""
    possible = log_probs > NEVER
    found = np.zeros_like(log_probs)
    found[possible] = weight * log_probs[possible]
    if weight:
        found[~possible] = NEVER
    return found
