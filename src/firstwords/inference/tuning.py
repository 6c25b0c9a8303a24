"""Weights of a language model chosen on dev for one recogniser: heard once, read with every setting.

CTC, greedy   every setting is a search of its own: exact
the others    n-best readings of a beam search are put in another order: the search with the language model
              may find more than was measured; so, too, where several models read together (committee.py)

With weight and bonus of the language model the weights of what can be taken off are chosen (fusion.py): of a
model of the training transcripts, where one is given, and of what the recogniser itself knows of text, where
its search asks such a part. What was heard: heard.py; which settings are tried: search/tuning.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Literal, final

from firstwords.data.manifest import Utterance
from firstwords.errors import UsageError
from firstwords.inference.fused import in_sums, speaks, with_beam
from firstwords.inference.heard import Heard, Readings, hear, heard_together, reader_of
from firstwords.inference.recognizer import Recognizer
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.scoring.significance import Interval, relative_gain
from firstwords.search.fusion import Scorers
from firstwords.search.interface import (
    CtcBeamConfig,
    GreedyConfig,
    RescoringConfig,
    SearchConfig,
    TransducerGreedyConfig,
    knows_text,
    narrowness,
)
from firstwords.search.language_models import Speaks, language_model_fingerprint, open_language_model
from firstwords.search.search import search_words
from firstwords.search.tuned import TunedSetting
from firstwords.search.tuning import PLAIN, TAKEN_OFF, Grid, Setting, Tuned, check_split, tune
from firstwords.text.normalize import normalizer

By = Literal["wer", "cer"]
ERRORS = {"wer": word_errors, "cer": grapheme_errors}
BEAM = 10


@dataclass(frozen=True)
class Progress:
    """Where the work stands, for whoever shows it."""

    what: str
    done: int
    total: int  # of trials an estimate


@dataclass(frozen=True)
class Choice:
    """What was found for one kind of search. Gains are shares of errors saved, 95 %."""

    search: SearchConfig  # without the weights
    tuned: Tuned
    gain: Interval  # against no language model
    gain_off: Interval | None  # of what is taken off against the best setting that takes nothing off
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
    config: SearchConfig,
    *,
    beam: int | None = None,
    greedy: bool = False,
    together: bool = False,
    one_reading: bool = False,
) -> list[SearchConfig]:
    """A recogniser's search -> the kinds of search to tune for it.

    Args:
        beam: of the beam search; None: that of the recipe, otherwise 10.
        greedy: only what costs no beam.
        together: for several models that read together.
        one_reading: the recogniser has no beam search (a transducer with durations).
    """
    if isinstance(config, GreedyConfig | CtcBeamConfig) and not together:
        base = config.language_model
        width = beam or (config.beam if isinstance(config, CtcBeamConfig) else BEAM)
        wide = with_beam(config, max(2, width))
        plain: SearchConfig = GreedyConfig(language_model=base)
        return [plain] if greedy else [plain] * (beam is None or beam == 1) + [wide] * (beam != 1)
    if isinstance(config, TransducerGreedyConfig) and not together:
        narrow = beam == 1 or greedy or (beam is None and one_reading)
        wide = in_sums(with_beam(config, max(2, beam or BEAM)))
        return [config] if narrow else [config] * (beam is None) + [wide]
    if greedy or beam == 1:
        option = "--greedy" if greedy else "--beam 1"
        what = "what several models read together" if together else f"a search of kind '{config.kind}'"
        raise UsageError(
            f"{option}: {what} is tuned on its n-best readings, of which a greedy search gives one.",
            mend=f"Leave {option} out: the weights are then those of the beam search.",
        )
    return [in_sums(with_beam(config, max(2, beam or getattr(config, "beam", BEAM))))]


def grid_for(config: SearchConfig, *, source: bool) -> Grid:
    """What is tried for a search.

    Args:
        source: a model of the training transcripts is there.
    """
    off = (0.0,)
    return Grid(
        source_weight=TAKEN_OFF if source else off,
        internal_weight=TAKEN_OFF if knows_text(config) else off,
    )


def tune_language_model(
    recognizer: Recognizer,
    folder: Path,
    utterances: Sequence[Utterance],
    searches: Sequence[SearchConfig],
    *,
    split: str,
    source: Path | None = None,
    corpus: str = "",
    by: By = "wer",
    any_split: bool = False,
    progress: Callable[[Progress], None] | None = None,
    chosen: Callable[[Choice], None] | None = None,
    warned: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Dev utterances with transcripts -> weights and bonus for each kind of search.

    Args:
        folder: of the language model.
        searches: from ``searches_to_tune``.
        split: name of the split; only dev and the like are taken.
        source: folder of a model of the training transcripts, to be taken off if that helps.
        corpus: its name, for the record.
        any_split: take a split of another name, too; never test.
        chosen: called with each choice as soon as it is made, so that a later interruption does not lose it.
        warned: called with what must be known of the language models before anything is heard.
    """
    check_split(split, any_split=any_split)

    def told(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(what, done, total))

    written = normalizer(recognizer.recipe.text.normalizer)
    said = {word for one in utterances for word in written(one.text or "").split()}
    known = speaks(recognizer)._replace(words=frozenset(said))
    models = _TextModels.of(known, folder, source, warned)
    choices: list[Choice] = []
    outcome = Outcome((), 0, 0.0, {})
    for group in heard_together(searches):
        heard = hear(
            recognizer, utterances, group, split=split, told=lambda done, all_: told("listening", done, all_)
        )
        for config in group:
            trials = _Trials(recognizer, heard, models, config, by)
            found = trials.tune(split=split, any_split=any_split, told=told)
            made = trials.choice(found, corpus=corpus, split=split)
            choices.append(made)
            if chosen is not None:
                chosen(made)
        seconds = sum(one.duration for one in heard.utterances)
        outcome = Outcome(tuple(choices), len(heard.utterances), seconds, heard.failures)
    return outcome


def is_approximate(choice: Choice) -> str:
    """What a reader of the figures must know of what was not tuned by searching; "" otherwise."""
    if choice.exact:
        return ""
    whose = " of its CTC search" if isinstance(choice.search, RescoringConfig) else ""
    whose = " of each model" if choice.setting.together else whose
    return f"chosen among the {choice.setting.beam} best readings{whose}, not by searching anew"


# -- one step below


@dataclass(frozen=True)
class _TextModels:
    """The language model, and what may be taken off beside it, with their fingerprints."""

    scorers: Scorers
    mark: str
    source_mark: str  # "" where there is none

    @classmethod
    def of(
        cls, known: Speaks, folder: Path, source: Path | None, warned: Callable[[str], None]
    ) -> _TextModels:
        return cls(
            Scorers(
                open_language_model(folder, known, warned),
                None if source is None else open_language_model(source, known, warned),
            ),
            language_model_fingerprint(folder),
            "" if source is None else language_model_fingerprint(source),
        )


@final
class _Trials:
    """Settings of one search tried on what was heard, and the best of them described."""

    def __init__(
        self, recognizer: Recognizer, heard: Heard, models: _TextModels, config: SearchConfig, by: By
    ) -> None:
        self.recognizer, self.heard, self.models, self.config = recognizer, heard, models, config
        self.by: By = by
        score = normalizer(recognizer.recipe.text.scoring)
        self.reader = reader_of(
            heard.found, config, models.scorers, lambda tokens: score(recognizer.tokenizer.decode(tokens))
        )
        self.texts: dict[Setting, Sequence[str]] = {}  # of every setting that was tried

    def read(self, setting: Setting) -> Sequence[str]:
        """What all utterances read as."""
        self.texts[setting] = self.reader(setting)
        return self.texts[setting]

    def tune(self, *, split: str, any_split: bool, told: Callable[[str, int, int], None]) -> Tuned:
        """The best setting, with a word at every trial."""
        grid = grid_for(self.config, source=self.models.scorers.source is not None)
        name, usual = search_words(self.config), grid.usual_trials

        def trial(_: Setting, __: ErrorRate) -> None:
            tried = len(self.texts)
            told(name, tried, max(usual, tried + 1))

        told(name, 0, usual)
        return tune(
            self.read,
            self.heard.references,
            split=split,
            grid=grid,
            errors=ERRORS[self.by],
            told=trial,
            any_split=any_split,
        )

    def choice(self, found: Tuned, *, corpus: str, split: str) -> Choice:
        """The best setting, what it brings and for what it was chosen."""
        setting, committee = found.setting, self.recognizer.committee
        source = self.models.source_mark
        return Choice(
            search=self.config,
            tuned=found,
            gain=self._gain(PLAIN, setting),
            gain_off=self._gain(found.untouched, setting) if setting.taken_off else None,
            exact=not isinstance(self.heard.found, Readings),
            setting=TunedSetting(
                model=self.recognizer.weights,
                together="" if committee is None else committee.identity,
                lm=self.models.mark,
                search=self.config.kind,
                beam=getattr(self.config, "beam", 1),
                narrow=narrowness(self.config),
                weight=setting.weight,
                bonus=setting.bonus,
                source=source,
                source_weight=setting.source_weight if source else None,
                internal_weight=setting.internal_weight if knows_text(self.config) else None,
                by=self.by,
                corpus=corpus,
                split=split,
                utterances=len(self.heard.utterances),
                without=found.without.rate,
                best=found.rate.rate,
            ),
        )

    def _gain(self, before: Setting, after: Setting) -> Interval:
        """The share of errors that the second saves."""

        def counted(setting: Setting) -> list[ErrorRate]:
            pairs = zip(self.heard.references, self.texts[setting], strict=True)
            return list(starmap(ERRORS[self.by], pairs))

        speakers = [one.speaker for one in self.heard.utterances]
        return relative_gain(counted(before), counted(after), speakers)
