"""A recogniser whose search is helped by what lies in folders and files: language models and phrases.

    recognizer = Recognizer.load("my-model")
    print(add_help(recognizer, SearchHelp(language_model=Path("lm"), beam=10)))

Weight and bonus, each if nobody names it, are those that 'firstwords lm tune' has written beside the language
model for this recogniser and this kind of search (search/tuned.py), otherwise the recipe's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from firstwords.errors import ConfigError, UsageError, quoted
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.second_pass import n_best_search
from firstwords.inference.streaming import streamed_search
from firstwords.search.biasing import phrase_scorer
from firstwords.search.fusion import Scorers
from firstwords.search.interface import (
    CtcBeamConfig,
    GreedyConfig,
    LanguageModelConfig,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
    check_internal_weight,
    narrowness,
)
from firstwords.search.language_models import (
    TUNED,
    Speaks,
    language_model_fingerprint,
    open_language_model,
)
from firstwords.search.phrase_rows import read_phrases
from firstwords.search.search import search_words
from firstwords.search.spotted import is_spotted_file, open_spotter
from firstwords.search.spotting import PhraseSpotter
from firstwords.search.tuned import TunedSetting, find_tuned, read_tuned
from firstwords.text.normalize import normalizer

SOURCE_WEIGHT = 0.2  # where a model of the training transcripts is given and no weight (docs/fusion.md)


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
    beam: int | None = None


def add_help(
    recognizer: Recognizer, wanted: SearchHelp, *, n_best: bool = False, stream: bool = False
) -> list[str]:
    """Have a recogniser read with this help from now on -> what a user must be told, line by line.

    Args:
        n_best: the search must find several readings (a second pass follows).
        stream: it is for a stream, which only CTC searches can read.
    """
    config = recognizer.search_config
    if n_best and wanted.beam == 1:
        raise UsageError(
            "A beam of 1 finds one reading: --rescore has nothing to choose from.",
            mend="Give --beam 2 or more, or leave out --beam or --rescore.",
        )
    if wanted.beam is not None:
        config = with_beam(config, wanted.beam, stream=stream)
    if n_best:
        config = n_best_search(config)
    told: list[str] = []
    marks: list[str] = []
    language_model = source = phrases = None
    known = speaks(recognizer)
    closed = recognizer.reader.closed_words
    if wanted.language_model is not None:
        language_model = open_language_model(wanted.language_model, known)
        mark = language_model_fingerprint(wanted.language_model)
        marks.append(f"lm {mark}")
        config = in_sums(config)
        kind = streamed_search(config) if stream else config
        settings, why = _weights(config.language_model, kind, recognizer, wanted, mark)
        if wanted.internal_weight is not None:
            settings = settings.with_(internal_weight=wanted.internal_weight)
            _check_internal(with_weights(kind, settings))
        config = with_weights(config, settings)
        try:
            check_internal_weight(kind)
        except ConfigError as error:  # of a recipe that was settled before
            if wanted.internal_weight is None:
                told.append(error.what)
        told.append(
            f"Language model {wanted.language_model} in {search_words(kind)}: weight {settings.weight:g}, "
            f"bonus {settings.bonus:g} ({why})."
        )
        if settings.internal_weight and wanted.internal_weight is not None:
            told.append(
                f"What the recogniser itself knows of text is taken off: weight {settings.internal_weight:g}."
            )
    if wanted.source is not None:
        source = open_language_model(wanted.source, known)
        marks.append(f"source {language_model_fingerprint(wanted.source)}")
        own = config.language_model
        weight = own.source_weight or SOURCE_WEIGHT if wanted.source_weight is None else wanted.source_weight
        config = with_weights(config, own.with_(source_weight=weight))
        told.append(f"Language model {wanted.source} of the training texts is taken off: weight {weight:g}.")
    spotter = None
    if wanted.phrases is not None and is_spotted_file(wanted.phrases):
        spotter = _spotter(recognizer, wanted.phrases, config, stream=stream)
        marks.append(f"spotted {spotter.identity}")
        told.append(f"{spotter.phrases} phrases are looked for in the frames (z of {spotter.threshold:.2f}).")
    elif wanted.phrases is not None:
        listed = phrases_of(recognizer, wanted.phrases)
        phrases = phrase_scorer(listed, recognizer.tokenizer)
        facts = "\n".join(f"{text}\t{boost!r}" for text, boost in sorted(listed.items()))
        marks.append(f"phrases {hashlib.sha256(facts.encode(errors='surrogatepass')).hexdigest()[:16]}")
    recognizer.use(config, Scorers(language_model, source, phrases, spotter, " ".join(marks)))
    told += closed_vocabulary_off(recognizer, closed)
    return told


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
    return Speaks(recognizer.tokenizer, recognizer.recipe.text.normalizer)


def phrases_of(recognizer: Recognizer, path: Path) -> dict[str, float | None]:
    """A file of phrases -> phrases as the recogniser would write them, and their boosts or None."""
    return read_phrases(path, normalizer(recognizer.recipe.text.normalizer))


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


def _weights(
    own: LanguageModelConfig, kind: SearchConfig, recognizer: Recognizer, wanted: SearchHelp, mark: str
) -> tuple[LanguageModelConfig, str]:
    """Weight and bonus, and where they come from: the caller, the file beside the model, or the recipe."""
    assert wanted.language_model is not None
    if wanted.weight is not None and wanted.bonus is not None:
        return own.with_(weight=wanted.weight, bonus=wanted.bonus), "as given"
    file = read_tuned(wanted.language_model)
    together = _together(recognizer)
    found = find_tuned(
        file,
        model=recognizer.weights,
        lm=mark,
        search=kind.kind,
        narrow=narrowness(kind),
        together=together,
    )
    alone = " for the first model alone" if found is not None and found.together != together else ""
    if wanted.weight is not None or wanted.bonus is not None:
        rest, origin = (own, "of the recipe") if found is None else (found, f"tuned on {found.split}{alone}")
        if wanted.weight is not None:
            return own.with_(weight=wanted.weight, bonus=rest.bonus), f"weight as given, bonus {origin}"
        return own.with_(weight=rest.weight, bonus=wanted.bonus), f"bonus as given, weight {origin}"
    if not file.tuned:
        names = f"{quoted(recognizer.folder)} {quoted(wanted.language_model)}"
        return own, f"not tuned: 'firstwords lm tune {names} --corpus CORPUS' chooses them"
    if found is None:
        return own, f"not tuned: {_other(file.tuned, recognizer.weights, together, mark, kind.kind)}"
    beam = getattr(kind, "beam", 1)
    width = "" if found.beam == beam else f" with a beam of {found.beam}"
    rates = f"{found.by.upper()} {100 * found.without:.1f} % without, {100 * found.best:.1f} % with"
    of = f" of {found.corpus}" if found.corpus else ""
    return own.with_(
        weight=found.weight, bonus=found.bonus
    ), f"tuned on {found.split}{of}{width}{alone}: {rates}"


def _together(recognizer: Recognizer) -> str:
    """Fingerprint of the models that read along; "" where none do."""
    return "" if recognizer.committee is None else recognizer.committee.identity


def _other(known: tuple[TunedSetting, ...], model: str, together: str, mark: str, kind: str) -> str:
    """Why none of the choices fits."""
    mine = [one for one in known if one.model == model]
    if not mine:
        return f"{TUNED} there is for another recogniser"
    here = [one for one in mine if one.lm == mark]
    if not here:
        return f"{TUNED} there is for another state of this language model"
    here = [one for one in here if one.together in ("", together)]
    if not here:
        return f"{TUNED} there is for this recogniser together with others"
    if any(one.search == kind for one in here):
        return f"{TUNED} there was tuned for another search; run 'firstwords lm tune' again"
    kinds = ", ".join(one.search + (f" (--beam {one.beam})" if one.beam > 1 else "") for one in here)
    return f"{TUNED} there is for {kinds} alone"
