"""Dev utterances as a recogniser hears them, once: on what is left of it weights are tried (tuning.py).

``Frames``     CTC log-probabilities: every setting is a search of its own, and exact
``Encoded``    encoded frames for the greedy search of a transducer: exact, too
``Readings``   n-best readings of a beam search: every setting puts them in another order; what is not among
               them cannot be found
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from firstwords.data.manifest import Utterance
from firstwords.errors import FirstwordsError, SearchError, UsageError
from firstwords.heads.transducer.head import TransducerConfig
from firstwords.inference.reading import Reader
from firstwords.inference.recognizer import Recognizer
from firstwords.nn.scorer import TokenScorer
from firstwords.search.ctc_common import find_runs
from firstwords.search.fusion import NO_SCORERS, Scorers
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import (
    NARROW,
    CtcBeamConfig,
    GreedyConfig,
    LanguageModelConfig,
    SearchConfig,
    TransducerGreedyConfig,
)
from firstwords.search.search import internal_model, needed_heads
from firstwords.search.trials import Said, by_n_best, by_search, sentence_log_probs
from firstwords.search.tuning import PLAIN, Setting
from firstwords.search.tuning import Reader as ReadWith
from firstwords.tensors import Padded, pad
from firstwords.text.normalize import normalizer

Tokens: TypeAlias = Sequence[int]
EncodedReader: TypeAlias = Callable[[Padded], list[list[Hypothesis]]]
Told: TypeAlias = Callable[[int, int], None]  # utterances done, of how many
_SILENT = LanguageModelConfig(weight=0.0)
_TOGETHER = 32  # utterances searched side by side


@dataclass(frozen=True)
class Frames:
    """What the CTC head says of each utterance.

    Args:
        log_probs: natural log, (T, V).
        plain: tokens that the greedy search reads, where that is more than the best path; else empty.
        is_speech: readings that it refuses are none; None: all are speech.
    """

    log_probs: Sequence[NDArray[np.float32]]
    plain: Sequence[Tokens]
    is_speech: Callable[[Hypothesis], bool] | None


@dataclass(frozen=True)
class Encoded:
    """What the encoder makes of each utterance.

    Args:
        frames: (T, D).
        reader: a search and what helps it -> how the recogniser reads with them, its gate included.
    """

    frames: Sequence[Float[Tensor, "time dim"]]
    reader: Callable[[SearchConfig, Scorers], EncodedReader]


@dataclass(frozen=True)
class Readings:
    """The readings of each utterance, found without a language model.

    Args:
        internal: what the recogniser itself knows of text, where its search can take that off.
    """

    each: Sequence[Sequence[Hypothesis]]
    internal: TokenScorer[Any] | None


class Heard(NamedTuple):
    """Dev utterances that could be heard, what was said in them, and why others could not."""

    utterances: Sequence[Utterance]
    references: Sequence[str]  # normalized for scoring
    found: Frames | Encoded | Readings
    failures: dict[str, str]


def hear(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    searches: Sequence[SearchConfig],
    *,
    split: str,
    told: Told,
) -> Heard:
    """Dev utterances -> what searches of one group (``heard_together``) need of them.

    The recogniser has another search afterwards. SearchError where nothing was said or can be read.
    """
    frame_wise = recognizer.committee is None and all(
        isinstance(one, GreedyConfig | CtcBeamConfig) for one in searches
    )
    encoded = recognizer.committee is None and isinstance(searches[0], TransducerGreedyConfig)
    if frame_wise:
        recognizer.use(GreedyConfig(language_model=_SILENT), NO_SCORERS)
    elif not encoded:
        _check_several_readings(recognizer)
        recognizer.use(_all_readings(searches[0]), recognizer.scorers)
    spoken = with_reference(recognizer, utterances)
    if not spoken:
        raise SearchError(
            f"Split '{split}' has no reference text to tune by.", mend="Give dev utterances with transcripts."
        )
    reader, model = recognizer.reader, recognizer.model
    greedy = any(isinstance(one, GreedyConfig) for one in searches)
    searched = not (frame_wise or encoded) or (greedy and (reader.judges or bool(reader.closed_words)))
    wanted = _Wanted(log_probs=frame_wise, encoded=encoded, readings=searched)
    kept, failures = _listen(recognizer, spoken, told, wanted)
    if not kept:
        raise SearchError(
            f"None of the {len(spoken)} utterances of split '{split}' can be read.",
            mend="See 'firstwords check CORPUS'.",
        )
    if frame_wise:
        plain = [one.readings[0].tokens for one in kept if searched]
        is_speech = reader.is_speech if reader.judges else None
        found = Frames([one.log_probs for one in kept], plain, is_speech)
    elif encoded:
        own = partial(Reader, model, recognizer.tokenizer, recognizer.speech_gate)
        found = Encoded([one.encoded for one in kept], own)
    else:
        internal = internal_model(searches[0], dict(model.named_heads()), model.encoder.dim)
        found = Readings([one.readings for one in kept], internal)
    score = normalizer(recognizer.recipe.text.scoring)
    heard = [one.utterance for one in kept]
    return Heard(heard, [score(one.text or "") for one in heard], found, failures)


def heard_together(searches: Sequence[SearchConfig]) -> list[list[SearchConfig]]:
    """Searches in groups that one listening is enough for: those over CTC, each of the others."""
    groups: list[list[SearchConfig]] = []
    for one in searches:
        if groups and all(isinstance(other, GreedyConfig | CtcBeamConfig) for other in (one, groups[-1][0])):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def gives_one_reading(recognizer: Recognizer) -> bool:
    """Whether its transducer, if it has one, is read greedily alone: one with durations."""
    head = recognizer.recipe.heads.get("transducer")
    return isinstance(head, TransducerConfig) and head.durations is not None


def with_reference(recognizer: Recognizer, utterances: Sequence[Utterance]) -> list[Utterance]:
    """Those in which something was said that counts in scoring."""
    score = normalizer(recognizer.recipe.text.scoring)
    return [one for one in utterances if one.text is not None and score(one.text)]


def attempt_readings(
    recognizer: Recognizer, utterances: Sequence[Utterance]
) -> Iterator[list[Hypothesis] | FirstwordsError]:
    """For each utterance its n-best readings, or what was wrong with it."""
    recognizer.meet(utterances)
    for one in utterances:
        try:
            yield recognizer.readings(one.audio, start=one.start, duration=one.duration)
        except FirstwordsError as error:
            yield error


def reader_of(
    found: Frames | Encoded | Readings,
    config: SearchConfig,
    scorers: Scorers,
    text: Callable[[Tokens], str],
) -> ReadWith:
    """What was heard, a search and the models that help it -> what is read with a setting.

    Args:
        text: tokens -> text, normalized for scoring.
    """
    if isinstance(found, Encoded):
        return _by_encoded(found, config, scorers, text)
    if isinstance(found, Readings):
        return by_n_best(found.each, [_said(own, scorers, found.internal) for own in found.each], text)
    if isinstance(config, CtcBeamConfig):
        wide = config.with_(n_best=1)
        return by_search(found.log_probs, scorers, wide, text, is_speech=found.is_speech)
    with_model = by_search(found.log_probs, scorers, NARROW, text, is_speech=found.is_speech)

    def read(setting: Setting) -> Sequence[str]:
        if setting != PLAIN:
            return with_model(setting)
        # Without a language model the greedy search follows the best path, not the best prefix.
        paths = found.plain or [find_runs(one.argmax(axis=1)).tokens.tolist() for one in found.log_probs]
        return [text(tokens) for tokens in paths]

    return read


# -- one step below


class _Wanted(NamedTuple):
    """What is asked for of each utterance."""

    log_probs: bool
    encoded: bool
    readings: bool


class _One(NamedTuple):
    """What was heard of an utterance; empty: not asked for."""

    utterance: Utterance
    log_probs: NDArray[np.float32]  # (T, V)
    encoded: Float[Tensor, "time dim"]
    readings: Sequence[Hypothesis]


def _listen(
    recognizer: Recognizer, utterances: Sequence[Utterance], told: Told, wanted: _Wanted
) -> tuple[list[_One], dict[str, str]]:
    """What can be heard, as asked for, and for the other utterances why not."""
    nothing, no_frames = np.zeros((0, 0), dtype=np.float32), torch.zeros(0, 0)
    kept: list[_One] = []
    failures: dict[str, str] = {}
    recognizer.meet(utterances)
    for number, one in enumerate(utterances):
        told(number, len(utterances))
        stretch = {"start": one.start, "duration": one.duration}
        try:
            log_probs = recognizer.log_probs(one.audio, **stretch) if wanted.log_probs else nothing
            encoded = recognizer.encoded(one.audio, **stretch) if wanted.encoded else no_frames
            readings = recognizer.readings(one.audio, **stretch) if wanted.readings else ()
            kept.append(_One(one, log_probs, encoded, readings))
        except FirstwordsError as error:
            failures[one.id] = error.what
    return kept, failures


def _by_encoded(
    found: Encoded, config: SearchConfig, scorers: Scorers, text: Callable[[Tokens], str]
) -> ReadWith:
    """Encoded frames, utterances of like length side by side -> a search for every setting."""
    order = sorted(range(len(found.frames)), key=lambda number: len(found.frames[number]))

    def read(setting: Setting) -> Sequence[str]:
        weights = LanguageModelConfig(**setting._asdict())
        reader = found.reader(config.with_(language_model=weights), scorers)
        texts = [""] * len(order)
        for first in range(0, len(order), _TOGETHER):
            some = order[first : first + _TOGETHER]
            for number, readings in zip(some, reader(pad([found.frames[n] for n in some])), strict=True):
                texts[number] = text(readings[0].tokens if readings else ())
        return texts

    return read


def _said(readings: Sequence[Hypothesis], scorers: Scorers, internal: TokenScorer[Any] | None) -> Said:
    """What the models say of the readings of one utterance."""
    tokens = [reading.tokens for reading in readings]
    assert scorers.language_model is not None
    return Said(
        sentence_log_probs(scorers.language_model, tokens),
        None if scorers.source is None else sentence_log_probs(scorers.source, tokens),
        None if internal is None else sentence_log_probs(internal, tokens),
    )


def _check_several_readings(recognizer: Recognizer) -> None:
    """UsageError where a search finds a single reading, before anything is read."""
    if gives_one_reading(recognizer) and "transducer" in needed_heads(recognizer.search_config):
        raise UsageError(
            "A transducer with durations gives one reading: weights cannot be tuned on n-best lists.",
            mend="Tune the greedy search that reads it ('firstwords lm tune' without --beam and --with).",
        )


def _all_readings(config: SearchConfig) -> SearchConfig:
    """All that the beam holds, found without any language model."""
    found = config.with_(n_best=getattr(config, "beam", 1))
    return found.with_(language_model=_SILENT)
