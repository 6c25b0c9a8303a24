"""Several models read together: each proposes its readings, and all weigh every proposal.

    recognizer = Recognizer.load("my-model")
    convene(recognizer, [Path("the-same-with-another-seed")])       inference/together.py

    score(reading) = mean over models of log P(tokens | frames of that model) + what language models add

P is the CTC probability of the tokens, summed over all alignments (Graves et al., 2006, section 4.1), so
models whose spikes stand in different frames agree all the same; a mean of posteriors frame by frame is worse
(LOG.md, 2026-11-22). The mean of logarithms is the product of experts (Hinton, 2002, eq. 1).
Times and confidences of a reading are those of the model that proposed it first.

One that hears no speech proposes nothing; where most do, nothing is heard. On a tie the first model decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, final

import torch

from firstwords.audio.source import Samples
from firstwords.errors import UsageError
from firstwords.heads.ctc import ctc_loss
from firstwords.heads.head import FrameHead
from firstwords.inference.reading import Reader
from firstwords.model.speech_model import SpeechModel
from firstwords.search.fusion import Scorers
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig, GreedyConfig, SearchConfig
from firstwords.tensors import Padded, pad
from firstwords.text.tokenizer import Tokenizer

_CTC = "ctc"  # of Hypothesis.parts


class Member(Protocol):
    """What is asked of a recogniser that reads together with others."""

    folder: Path
    tokenizer: Tokenizer
    sample_rate: int
    model: SpeechModel
    reader: Reader
    search_config: SearchConfig
    scorers: Scorers

    @property
    def identity(self) -> dict[str, str]: ...

    def use(self, search: SearchConfig, scorers: Scorers) -> None: ...

    def encode(self, batch: Sequence[Samples]) -> Padded: ...


@final
class Committee:
    """The models that read along with a first one. Made by ``together.convene``."""

    def __init__(self, lead: Member, others: Sequence[Member]) -> None:
        self._head = _ctc_head(lead)
        self._others = tuple(others)
        self._heads = tuple(_ctc_head(other) for other in others)
        for other in others:
            _check(lead, other)
        self.use(lead.search_config, lead.scorers)

    @property
    def identity(self) -> str:
        """What the text depends on through them."""
        facts = "\n".join(other.identity["model"] for other in self._others)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    def use(self, search: SearchConfig, scorers: Scorers) -> None:
        """Have all of them search as the first one does."""
        _check_search(search)
        if scorers.spotter is not None:
            raise UsageError(
                "--with: phrases are spotted with the numbers of one model.",
                mend="Give the list of phrases itself, or one model.",
            )
        for other in self._others:
            other.use(search, scorers)

    def agree(
        self,
        batches: Sequence[Sequence[Samples]],
        encoded: Sequence[Padded],
        found: Sequence[list[list[Hypothesis]]],
    ) -> list[list[list[Hypothesis]]]:
        """Batches of stretches, the first model's frames and readings -> the readings of all, best first."""
        frames = [[self._head.log_probs(one) for one in encoded]]
        readings = [list(found)]
        for other, head in zip(self._others, self._heads, strict=True):
            heard = [other.encode(batch) for batch in batches]
            readings.append(other.reader.many(heard))
            frames.append([head.log_probs(one) for one in heard])
        return [
            [
                _weighed([own[number][row] for own in readings], [_row(own[number], row) for own in frames])
                for row in range(len(batch))
            ]
            for number, batch in enumerate(batches)
        ]


def proposing(search: SearchConfig) -> SearchConfig:
    """A search -> the same that proposes all its beam holds, not only what it would read alone."""
    return search.with_(n_best=search.beam) if isinstance(search, CtcBeamConfig) else search


# -- one step below


def log_likelihoods(log_probs: Padded, readings: Sequence[Sequence[int]]) -> list[float]:
    """(1, T, V) natural-log CTC probabilities and token ids -> log P of each, -inf where it cannot align."""
    count = len(readings)
    targets = pad([torch.tensor(tokens, dtype=torch.int64) for tokens in readings])
    place = log_probs.values.device
    targets = Padded(targets.values.to(place), targets.lengths.to(place))
    repeated = Padded(log_probs.values.expand(count, -1, -1), log_probs.lengths.expand(count))
    return (-ctc_loss(repeated, targets)).tolist()


def _row(log_probs: Padded, row: int) -> Padded:
    length = log_probs.lengths[row : row + 1]
    return Padded(log_probs.values[row : row + 1, : int(length)].float(), length)


def _weighed(proposed: Sequence[Sequence[Hypothesis]], frames: Sequence[Padded]) -> list[Hypothesis]:
    """What each model proposes for a stretch (nothing: no speech), and its frames -> readings, best first."""
    silent = sum(not readings for readings in proposed)
    if 2 * silent > len(proposed) or (2 * silent == len(proposed) and not proposed[0]):
        return []
    each: dict[tuple[int, ...], Hypothesis] = {}
    for readings in proposed:
        for reading in readings:
            each.setdefault(reading.tokens, reading)
    heard = [log_likelihoods(one, list(each)) for one in frames]
    scored: list[Hypothesis] = []
    for reading, *says in zip(each.values(), *heard, strict=True):
        ctc = sum(says) / len(says)
        score = reading.score - reading.parts[_CTC] + ctc
        scored.append(replace(reading, score=score, parts={**reading.parts, _CTC: ctc}))
    return sorted(scored, key=lambda reading: reading.score, reverse=True)


def _ctc_head(recognizer: Member) -> FrameHead:
    head = recognizer.model.ctc
    if head is None:
        raise UsageError(
            f"'{recognizer.folder}' has no CTC head: it cannot weigh what other models read.",
            mend="Leave it out, or train it with [heads.ctc] in its recipe.",
        )
    return head


def _check(lead: Member, other: Member) -> None:
    if lead.tokenizer.piece_hash != other.tokenizer.piece_hash:
        raise UsageError(
            f"'{other.folder}' has other pieces than '{lead.folder}': they cannot read together.",
            mend="Train both on one corpus with one tokenizer; seed, encoder and size may differ.",
        )
    if lead.sample_rate != other.sample_rate:
        raise UsageError(
            f"'{other.folder}' reads audio of {other.sample_rate} Hz, '{lead.folder}' of {lead.sample_rate}.",
            mend="Give models with one data.sample_rate.",
        )
    if lead.model.recipe.data.equalize != other.model.recipe.data.equalize:
        raise UsageError(
            f"One of '{lead.folder}' and '{other.folder}' brings voices to one spectrum (data.equalize), the "
            "other does not: they cannot hear the same samples.",
            mend="Give models with one data.equalize.",
        )


def _check_search(search: SearchConfig) -> None:
    if not isinstance(search, GreedyConfig | CtcBeamConfig):
        raise UsageError(
            f"Several models read together by their CTC heads, not by {search.kind}.",
            mend="Leave --with out, or give models whose recipe searches with CTC.",
        )
