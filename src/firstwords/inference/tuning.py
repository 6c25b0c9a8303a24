"""Weights of a language model chosen on dev for one recogniser: heard once, read with every setting.

CTC           the log-probabilities are kept, and every setting is a search of its own: exact
the others    n-best readings of a beam search are kept and put in another order: what is not among them
              cannot be found, and the search with the language model may find more than was measured;
              so, too, where several models read together (committee.py)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from firstwords.data.manifest import Utterance
from firstwords.errors import FirstwordsError, SearchError, UsageError
from firstwords.heads.transducer.head import TransducerConfig
from firstwords.inference.fused import in_sums, speaks, with_beam
from firstwords.inference.recognizer import Recognizer
from firstwords.nn.scorer import TokenScorer
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.scoring.significance import Interval, relative_gain
from firstwords.search.ctc_common import find_runs
from firstwords.search.fusion import NO_SCORERS
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import (
    NARROW,
    AttentionBeamConfig,
    CtcBeamConfig,
    GreedyConfig,
    LanguageModelConfig,
    RescoringConfig,
    SearchConfig,
    TransducerBeamConfig,
    narrowness,
)
from firstwords.search.language_models import language_model_fingerprint, open_language_model
from firstwords.search.rescore import Candidate, TunedRescoring, candidates, tune_rescoring
from firstwords.search.search import needed_heads, search_words
from firstwords.search.tuned import TunedSetting
from firstwords.search.tuning import Reader, Setting, Tuned, by_n_best, by_search, check_split, tune
from firstwords.text.normalize import normalizer

By = Literal["wer", "cer"]
ERRORS = {"wer": word_errors, "cer": grapheme_errors}
USUAL_TRIALS = 50  # settings that ``tune`` tries, about
BEAM = 10
_NOTHING = LanguageModelConfig(weight=0.0)
_BY_HAND = "Try a few --lm-weight with 'firstwords evaluate MODEL CORPUS --split dev --lm LM'."


@dataclass(frozen=True)
class Progress:
    """Where the work stands, for whoever shows it."""

    what: str
    done: int
    total: int  # of trials an estimate


@dataclass(frozen=True)
class Choice:
    """What was found for one kind of search."""

    search: SearchConfig  # without the weights
    tuned: Tuned
    gain: Interval  # share of errors saved, 95 %
    exact: bool  # by a search for every setting
    setting: TunedSetting  # as it is written down


@dataclass(frozen=True)
class Outcome:
    """The choices, how many utterances they rest on, and those that could not be read with the reason."""

    choices: tuple[Choice, ...]
    utterances: int
    seconds: float  # of audio
    failures: dict[str, str]


def searches_to_tune(
    config: SearchConfig, *, beam: int | None = None, greedy: bool = False, together: bool = False
) -> list[SearchConfig]:
    """A recogniser's search -> the kinds of search to tune for it.

    Args:
        beam: of the beam search; None: that of the recipe, otherwise 10.
        greedy: only what costs no beam.
        together: for several models that read together.
    """
    if isinstance(config, GreedyConfig | CtcBeamConfig) and not together:
        base = config.language_model
        width = beam or (config.beam if isinstance(config, CtcBeamConfig) else BEAM)
        wide = with_beam(config, max(2, width))
        plain: SearchConfig = GreedyConfig(language_model=base)
        return [plain] if greedy else [plain] * (beam is None or beam == 1) + [wide] * (beam != 1)
    if greedy or beam == 1:
        option = "--greedy" if greedy else "--beam 1"
        what = "what several models read together" if together else f"a search of kind '{config.kind}'"
        raise UsageError(
            f"{option}: {what} is tuned on its n-best readings, of which a greedy search gives one.",
            mend=f"Leave {option} out: the weights are then those of the beam search.",
        )
    return [in_sums(with_beam(config, max(2, beam or getattr(config, "beam", BEAM))))]


def tune_language_model(
    recognizer: Recognizer,
    folder: Path,
    utterances: Sequence[Utterance],
    searches: Sequence[SearchConfig],
    *,
    split: str,
    corpus: str = "",
    by: By = "wer",
    any_split: bool = False,
    progress: Callable[[Progress], None] | None = None,
    chosen: Callable[[Choice], None] | None = None,
) -> Outcome:
    """Dev utterances with transcripts -> weight and bonus for each kind of search.

    Args:
        folder: of the language model.
        searches: from ``searches_to_tune``.
        split: name of the split; only dev and the like are taken.
        corpus: its name, for the record.
        any_split: take a split of another name, too; never test.
        chosen: called with each choice as soon as it is made, so that a later interruption does not lose it.
    """
    check_split(split, any_split=any_split)
    scorer = open_language_model(folder, speaks(recognizer))
    mark = language_model_fingerprint(folder)
    score = normalizer(recognizer.recipe.text.scoring)
    together = "" if recognizer.committee is None else recognizer.committee.identity
    frame_wise = not together and all(isinstance(one, GreedyConfig | CtcBeamConfig) for one in searches)

    def told(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(what, done, total))

    if frame_wise:
        recognizer.use(GreedyConfig(language_model=_NOTHING), NO_SCORERS)
    else:
        (only,) = searches
        _check_readings(recognizer, only)
        recognizer.use(_all_readings(only), recognizer.scorers)
    spoken = [u for u in utterances if u.text is not None and score(u.text)]
    if not spoken:
        raise SearchError(
            f"Split '{split}' has no reference text to tune by.", mend="Give dev utterances with transcripts."
        )
    kept: list[Utterance] = []
    heard: list[Any] = []
    plain: list[Sequence[int]] = []  # what the greedy search reads where it is more than the best path
    reader = recognizer.reader
    asked = any(isinstance(one, GreedyConfig) for one in searches) and (reader.judges or reader.closed_words)
    failures: dict[str, str] = {}
    for number, found in enumerate(_heard(recognizer, spoken, frame_wise)):
        told("listening", number, len(spoken))
        if isinstance(found, FirstwordsError):
            failures[spoken[number].id] = found.what
        else:
            one = spoken[number]
            kept.append(one)
            heard.append(found)
            if asked:
                plain.append(recognizer.readings(one.audio, start=one.start, duration=one.duration)[0].tokens)
    references = [score(u.text or "") for u in kept]
    if not references:
        raise SearchError(
            f"None of the {len(spoken)} utterances of split '{split}' can be read.",
            mend="See 'firstwords check CORPUS'.",
        )

    def text(tokens: Sequence[int]) -> str:
        return score(recognizer.tokenizer.decode(tokens))

    choices: list[Choice] = []
    for config in searches:
        texts: dict[Setting, Sequence[str]] = {}
        is_speech = recognizer.reader.is_speech if frame_wise and recognizer.reader.judges else None
        if frame_wise:
            tried_by = _searching(config, heard, scorer, text, plain, is_speech)
        else:
            said = [sentence_log_probs(scorer, [r.tokens for r in readings]) for readings in heard]
            tried_by = by_n_best(heard, said, text)

        def read(setting: Setting, texts: Any = texts, reader: Reader = tried_by) -> Sequence[str]:
            texts[setting] = reader(setting)
            return texts[setting]

        name, tried = search_words(config), 0

        def trial(setting: Setting, rate: ErrorRate, name: str = name) -> None:
            nonlocal tried
            tried += 1
            told(name, tried, max(USUAL_TRIALS, tried + 1))

        told(name, 0, USUAL_TRIALS)
        found = tune(read, references, split=split, errors=ERRORS[by], told=trial, any_split=any_split)
        before, after = (
            [ERRORS[by](r, t) for r, t in zip(references, texts[setting], strict=True)]
            for setting in (Setting(0.0, 0.0), found.setting)
        )
        made = Choice(
            search=config,
            tuned=found,
            gain=relative_gain(before, after, [u.speaker for u in kept]),
            exact=frame_wise,
            setting=TunedSetting(
                model=recognizer.weights,
                together=together,
                lm=mark,
                search=config.kind,
                beam=getattr(config, "beam", 1),
                narrow=narrowness(config),
                weight=found.setting.weight,
                bonus=found.setting.bonus,
                by=by,
                corpus=corpus,
                split=split,
                utterances=len(kept),
                without=found.without.rate,
                best=found.rate.rate,
            ),
        )
        choices.append(made)
        if chosen is not None:
            chosen(made)
    return Outcome(tuple(choices), len(kept), sum(u.duration for u in kept), failures)


def tune_second_pass(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    *,
    split: str,
    by: By = "wer",
    any_split: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> TunedRescoring:
    """Dev utterances -> the weights of the recogniser's second pass (inference/rescored.py) that err least.

    Each utterance is judged alone. Utterances without a transcript or with unreadable audio are left out.
    """
    check_split(split, any_split=any_split)
    second = recognizer.second_pass
    if second is None:
        raise UsageError(
            "There is no second pass to tune.", mend="Add one: add_second_pass(recognizer, LLM)."
        )
    if second.choose is not None:
        raise UsageError(
            "The language model gives no log-probabilities, it chooses a reading: nothing is to be tuned.",
            mend="Leave it out here.",
        )
    score = normalizer(recognizer.recipe.text.scoring)
    spoken = [u for u in utterances if u.text is not None and score(u.text)]
    options: list[list[Candidate]] = []
    for number, readings in enumerate(_heard(recognizer, spoken, frame_wise=False)):
        if progress is not None:
            progress(Progress("second pass", number, len(spoken)))
        if isinstance(readings, list):
            texts = [" ".join(recognizer.tokenizer.decode(r.tokens).split()) for r in readings]
            said = second.scorer.score(texts, second.prompt)
            second.cut = max(second.cut, *(one.prompt_cut for one in said))
            scored = [score(text) for text in texts]
            reference = score(spoken[number].text or "")
            options.append(candidates(readings, scored, said, reference, errors=ERRORS[by]))
    return tune_rescoring(options, split, any_split=any_split)


def sentence_log_probs(scorer: TokenScorer[Any], sentences: Sequence[Sequence[int]]) -> list[float]:
    """log P of each sentence of tokens and of its end, in nats, asked for all at once."""
    state, last = scorer.start(len(sentences)), torch.zeros(len(sentences), dtype=torch.int64)
    totals = [0.0] * len(sentences)
    for place in range(max(map(len, sentences), default=0) + 1):
        scores, state = scorer.score(last, state)
        nexts = [sentence[place] if place < len(sentence) else 0 for sentence in sentences]
        for row, (sentence, token) in enumerate(zip(sentences, nexts, strict=True)):
            if place <= len(sentence):  # the rows of shorter ones go on, and nobody listens
                totals[row] += float(scores[row, token])
        last = torch.tensor(nexts, dtype=torch.int64)
    return totals


# -- one step below


def _check_readings(recognizer: Recognizer, config: SearchConfig) -> None:
    """UsageError where n-best readings cannot tell what the search would find, before anything is read."""
    weight = config.language_model.internal_weight
    if weight > 0 and isinstance(config, AttentionBeamConfig | TransducerBeamConfig):
        raise UsageError(
            f"search.language_model.internal_weight = {weight:g}: n-best readings do not tell what the "
            "recogniser itself knows of text, so weights cannot be tuned beside it.",
            mend=_BY_HAND,
        )
    head = recognizer.recipe.heads.get("transducer")
    searched = "transducer" in needed_heads(recognizer.search_config)
    if searched and isinstance(head, TransducerConfig) and head.durations is not None:
        raise UsageError(
            "A transducer with durations gives one reading: weights cannot be tuned on n-best lists.",
            mend=_BY_HAND,
        )


def _all_readings(config: SearchConfig) -> SearchConfig:
    """All that the beam holds, found without any language model."""
    found = config.with_(n_best=getattr(config, "beam", 1))
    return found.with_(language_model=_NOTHING)


def _heard(
    recognizer: Recognizer, utterances: Sequence[Utterance], frame_wise: bool
) -> Iterator[NDArray[np.float32] | list[Hypothesis] | FirstwordsError]:
    """For each utterance its log-probabilities (T, V), or its n-best readings, or what was wrong with it."""
    for utterance in utterances:
        try:
            if frame_wise:
                yield recognizer.log_probs(
                    utterance.audio, start=utterance.start, duration=utterance.duration
                )
            else:
                yield recognizer.readings(utterance.audio, start=utterance.start, duration=utterance.duration)
        except FirstwordsError as error:
            yield error


def _searching(
    config: SearchConfig,
    heard: Sequence[NDArray[np.float32]],
    scorer: TokenScorer[Any],
    text: Callable[[Sequence[int]], str],
    plain: Sequence[Sequence[int]],
    is_speech: Callable[[Hypothesis], bool] | None,
) -> Reader:
    """What a setting gives: a search over (T, V) log-probabilities of each utterance.

    Args:
        plain: tokens that the greedy search reads; empty: those of the best path.
    """
    if isinstance(config, CtcBeamConfig):
        return by_search(heard, scorer, config.with_(n_best=1), text, is_speech=is_speech)
    with_model = by_search(heard, scorer, NARROW, text, is_speech=is_speech)

    def read(setting: Setting) -> Sequence[str]:
        if setting != Setting(0.0, 0.0):
            return with_model(setting)
        # Without a language model the greedy search follows the best path, not the best prefix.
        paths = plain or [find_runs(one.argmax(axis=1)).tokens.tolist() for one in heard]
        return [text(tokens) for tokens in paths]

    return read


def is_approximate(choice: Choice) -> str:
    """What a reader of the figures must know of what was not tuned by searching; "" otherwise."""
    if choice.exact:
        return ""
    whose = " of its CTC search" if isinstance(choice.search, RescoringConfig) else ""
    whose = " of each model" if choice.setting.together else whose
    return f"chosen among the {choice.setting.beam} best readings{whose}, not by searching anew"
