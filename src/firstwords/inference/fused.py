"""A recogniser whose search is helped by what lies in folders and files: language models and phrases.

    recognizer = Recognizer.load("my-model")
    print(add_help(recognizer, SearchHelp(language_model=Path("lm"), beam=10)))

Weights that nobody names are those that 'firstwords lm tune' has written beside the language model for this
recogniser and this kind of search, otherwise the recipe's (fused_weights.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from firstwords.errors import ConfigError, UsageError
from firstwords.inference.fused_weights import Named, Weights, source_weight, weights_for
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.second_pass import n_best_search
from firstwords.inference.streaming import streamed_search
from firstwords.model.recipe import with_search
from firstwords.search.biasing import phrase_scorer
from firstwords.search.fusion import NO_SCORERS, Scorers
from firstwords.search.interface import (
    SEARCHES,
    CtcBeamConfig,
    GreedyConfig,
    LanguageModelConfig,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
    check_internal_weight,
)
from firstwords.search.language_models import (
    Speaks,
    language_model_fingerprint,
    open_language_model,
)
from firstwords.search.phrase_rows import phrases_unspelled, read_phrases
from firstwords.search.search import needed_heads, search_words
from firstwords.search.spotted import is_spotted_file, open_spotter
from firstwords.search.spotting import PhraseSpotter
from firstwords.text.normalize import normalizer


@dataclass(frozen=True, kw_only=True)
class SearchHelp:
    """What shall help a search; None: not said."""

    language_model: Path | None = None
    weight: float | None = None
    bonus: float | None = None
    source: Path | None = None  # a language model of the training transcripts, taken off
    source_weight: float | None = None
    internal_weight: float | None = None  # of what the recogniser itself knows of text, taken off
    phrases: Path | None = None
    search: str | None = None  # its kind
    beam: int | None = None


def add_help(
    recognizer: Recognizer, wanted: SearchHelp, *, n_best: bool = False, stream: bool = False
) -> list[str]:
    """Have a recogniser read with this help from now on -> what a user must be told, line by line.

    Args:
        n_best: the search must find several readings (a second pass follows).
        stream: it is for a stream, which only CTC searches can read.
    """
    if n_best and wanted.beam == 1:
        raise UsageError(
            "A beam of 1 finds one reading: --rescore has nothing to choose from.",
            mend="Give --beam 2 or more, or leave out --beam or --rescore.",
        )
    config = recognizer.search_config
    if wanted.search is not None:
        config = of_kind(config, wanted.search)
        _check_heads(recognizer, config)
        with_search(recognizer.recipe, config)  # refuses what else the recipe cannot do
        if stream and (streamed := streamed_search(config).kind) != config.kind:
            raise UsageError(
                f"--search {config.kind} needs whole recordings; streams are read by {streamed} then.",
                mend="Leave it out, or transcribe whole recordings (without --stream).",
            )
    if wanted.beam is not None:
        config = with_beam(config, wanted.beam, stream=stream)
    if n_best:
        if wanted.search is not None and isinstance(config, GreedyConfig | TransducerGreedyConfig):
            raise UsageError(
                f"--search {config.kind} finds one reading: --rescore has nothing to choose from.",
                mend="Leave --search out (a beam search is used then), or give --beam 2 or more with it.",
            )
        config = n_best_search(config)
    help_ = _Help(config)
    closed = recognizer.reader.closed_words
    source = wanted.source
    weights = None
    if wanted.language_model is not None:
        weights = _add_language_model(help_, recognizer, wanted, wanted.language_model, stream=stream)
        source = source or weights.source(wanted.language_model)
    if source is not None:
        _add_source(help_, recognizer, wanted, source, config.language_model, weights)
    if wanted.phrases is not None:
        _add_phrases(help_, recognizer, wanted.phrases, stream=stream)
    recognizer.use(help_.config, help_.scorers._replace(identity=" ".join(help_.marks)))
    return help_.told + closed_vocabulary_off(recognizer, closed)


@dataclass
class _Help:
    """What has been found so far: settings, scorers, what a user must be told, what results depend on."""

    config: SearchConfig
    scorers: Scorers = NO_SCORERS
    told: list[str] = field(default_factory=list[str])
    marks: list[str] = field(default_factory=list[str])


def _add_language_model(
    help_: _Help, recognizer: Recognizer, wanted: SearchHelp, folder: Path, *, stream: bool
) -> Weights:
    opened = open_language_model(folder, speaks(recognizer), help_.told.append)
    mark = language_model_fingerprint(folder)
    config = in_sums(help_.config)
    kind = streamed_search(config) if stream else config
    found = weights_for(recognizer, folder, mark, kind, Named(wanted.weight, wanted.bonus))
    settings = found.settings
    if wanted.internal_weight is not None:
        settings = settings.with_(internal_weight=wanted.internal_weight)
        _check_internal(with_weights(kind, settings))
    try:
        check_internal_weight(kind)
    except ConfigError as error:  # of a recipe that was settled before
        if wanted.internal_weight is None:
            help_.told.append(error.what)
    help_.told.append(
        f"Language model {folder} in {search_words(kind)}: weight {settings.weight:g}, "
        f"bonus {settings.bonus:g} ({found.why})."
    )
    tuned = found.tuned is not None and found.tuned.internal_weight is not None
    if settings.internal_weight and (wanted.internal_weight is not None or tuned):
        help_.told.append(
            f"What the recogniser itself knows of text is taken off: weight {settings.internal_weight:g}."
        )
    help_.config = with_weights(config, settings)
    help_.scorers = help_.scorers._replace(language_model=opened)
    help_.marks.append(f"lm {mark}")
    return found


def _add_source(
    help_: _Help,
    recognizer: Recognizer,
    wanted: SearchHelp,
    folder: Path,
    recipe: LanguageModelConfig,
    weights: Weights | None,
) -> None:
    """A model of the training texts, named by the caller or by what was tuned for the language model."""
    opened = open_language_model(folder, speaks(recognizer), help_.told.append)
    mark = language_model_fingerprint(folder)
    weight, why = source_weight(weights, mark, recipe)
    if wanted.source_weight is not None:
        weight, why = wanted.source_weight, ""
    help_.config = with_weights(help_.config, help_.config.language_model.with_(source_weight=weight))
    help_.scorers = help_.scorers._replace(source=opened)
    help_.marks.append(f"source {mark}")
    help_.told.append(f"Language model {folder} of the training texts is taken off: weight {weight:g}{why}.")


def _add_phrases(help_: _Help, recognizer: Recognizer, path: Path, *, stream: bool) -> None:
    if is_spotted_file(path):
        spotter = _spotter(recognizer, path, help_.config, stream=stream)
        help_.scorers = help_.scorers._replace(spotter=spotter)
        help_.marks.append(f"spotted {spotter.identity}")
        help_.told.append(
            f"{spotter.phrases} phrases are looked for in the frames (z of {spotter.threshold:.2f})."
        )
        return
    listed = phrases_of(recognizer, path)
    help_.told += phrases_unspelled(listed, recognizer.tokenizer)
    help_.scorers = help_.scorers._replace(phrases=phrase_scorer(listed, recognizer.tokenizer))
    facts = "\n".join(f"{text}\t{boost!r}" for text, boost in sorted(listed.items()))
    help_.marks.append(f"phrases {hashlib.sha256(facts.encode(errors='surrogatepass')).hexdigest()[:16]}")


def _check_internal(config: SearchConfig) -> None:
    try:
        check_internal_weight(config)
    except ConfigError:
        raise UsageError(
            f"--internal-weight does nothing in {search_words(config)}: that asks nothing that knows of text "
            "by itself.",
            mend="Leave it out; --source-lm takes off a model of the training transcripts.",
        ) from None


def _spotter(recognizer: Recognizer, path: Path, config: SearchConfig, *, stream: bool) -> PhraseSpotter:
    if stream:
        raise UsageError(
            f"--phrases: '{path}' needs whole utterances: it cannot be used with --stream.",
            mend="Give the list of phrases itself.",
        )
    if not isinstance(config, GreedyConfig | CtcBeamConfig):
        raise UsageError(
            f"--phrases: '{path}' is for searches over CTC, not for {config.kind}.",
            mend="Give the list of phrases itself.",
        )
    return open_spotter(path, recognizer.tokenizer, recognizer.weights)


def _check_heads(recognizer: Recognizer, config: SearchConfig) -> None:
    heads = recognizer.recipe.heads
    if lacking := [name for name in needed_heads(config) if name not in heads]:
        able = [kind for kind, make in SEARCHES.items() if set(needed_heads(make())) <= set(heads)]
        raise ConfigError(
            f"--search {config.kind} needs heads.{lacking[0]}, and this model has only "
            f"{', '.join(f'heads.{name}' for name in heads)}.",
            mend=f"Use one of {', '.join(able)}.",
        )


def closed_vocabulary_off(recognizer: Recognizer, before: frozenset[str]) -> list[str]:
    """What a user must be told where the closed vocabulary that was in use before is so no more."""
    if not before or recognizer.reader.closed_words:
        return []
    return [
        f"The closed vocabulary of this model ({len(before)} words) is off: it belongs to the greedy "
        "search without other help."
    ]


def speaks(recognizer: Recognizer) -> Speaks:
    """What a language model must know to help this recogniser."""
    return Speaks(recognizer.tokenizer, recognizer.recipe.text.normalizer, recognizer.speech_gate.words)


def phrases_of(recognizer: Recognizer, path: Path) -> dict[str, float | None]:
    """A file of phrases -> phrases as the recogniser would write them, and their boosts or None."""
    return read_phrases(path, normalizer(recognizer.recipe.text.normalizer))


def of_kind(config: SearchConfig, kind: str) -> SearchConfig:
    """The search of that kind: this one if it is, else as it is set by default, with the same weights."""
    if kind not in SEARCHES:
        raise UsageError(f"--search {kind}: no such search.", mend=f"Use one of {', '.join(SEARCHES)}.")
    return config if config.kind == kind else SEARCHES[kind](language_model=config.language_model)


def with_beam(config: SearchConfig, beam: int, *, stream: bool = False) -> SearchConfig:
    """The same search with a beam of this width; a greedy one becomes a beam search, of CTC 1 is greedy."""
    if beam < 1:
        raise UsageError(f"A beam of {beam} keeps nothing.", mend="Give at least 1.")
    match config:
        case GreedyConfig():
            own = CtcBeamConfig(beam=beam, n_best=beam, language_model=config.language_model)
            return own if beam > 1 else config
        case CtcBeamConfig():
            if beam == 1:
                return GreedyConfig(language_model=config.language_model)
            return config.with_(beam=beam, n_best=min(beam, config.n_best))
        case _ if stream:
            head = "transducer" if "transducer" in config.kind else "CTC head"
            raise UsageError(
                f"A stream of this model is read by the greedy search of its {head}, not by {config.kind}: "
                "it takes no beam.",
                mend="Leave --beam out, or transcribe whole recordings (without --stream).",
            )
        case TransducerGreedyConfig():
            wide = TransducerBeamConfig(beam=beam, n_best=beam, language_model=config.language_model)
            return wide if beam > 1 else config
        case _:
            return config.with_(beam=beam, n_best=min(beam, config.n_best))


def in_sums(config: SearchConfig) -> SearchConfig:
    """A search to whose scores those of a language model are added; means per token would undo its bonus."""
    return config.with_(length_normalized=False) if isinstance(config, TransducerBeamConfig) else config


def with_weights(config: SearchConfig, weights: LanguageModelConfig) -> SearchConfig:
    """The same search with other weights of its language model."""
    return config.with_(language_model=weights)
