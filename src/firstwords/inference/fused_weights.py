"""With which weights a language model helps a search: the caller's, those tuned, or the recipe's.

Each weight that nobody names is the one that 'firstwords lm tune' has written beside the language model for
this recogniser and this kind of search (search/tuned.py), otherwise the recipe's. What was tuned together
with a model of the training transcripts takes that one off again. Who names weight and bonus both says all
by hand: of what was tuned nothing is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firstwords.errors import quoted
from firstwords.inference.recognizer import Recognizer
from firstwords.search.interface import LanguageModelConfig, SearchConfig, narrowness
from firstwords.search.language_models import TUNED
from firstwords.search.tuned import TunedSetting, check_source, find_tuned, read_tuned

SOURCE_WEIGHT = 0.2  # where a model of the training transcripts is given and no weight (docs/fusion.md)


@dataclass(frozen=True)
class Named:
    """What a caller says of the weights; None: nothing."""

    weight: float | None = None
    bonus: float | None = None


@dataclass(frozen=True)
class Weights:
    """The weights of a language model, and where they come from, in words."""

    settings: LanguageModelConfig
    why: str
    tuned: TunedSetting | None = None  # whose choice they are, in part at least

    def source(self, folder: Path) -> Path | None:
        """The model that is taken off, where what was tuned for the language model in ``folder`` says so."""
        found = self.tuned
        return check_source(folder, found) if found is not None and found.source_weight else None


def weights_for(recognizer: Recognizer, folder: Path, mark: str, kind: SearchConfig, named: Named) -> Weights:
    """A language model's folder and fingerprint, and the search that it is to help -> its weights."""
    own = kind.language_model
    if named.weight is not None and named.bonus is not None:
        return Weights(own.with_(weight=named.weight, bonus=named.bonus), "as given")
    file = read_tuned(folder)
    together = _together(recognizer)
    found = find_tuned(
        file,
        model=recognizer.weights,
        lm=mark,
        search=kind.kind,
        narrow=narrowness(kind),
        together=together,
    )
    settings = own if found is None else _tuned(own, found)
    alone = " for the first model alone" if found is not None and found.together != together else ""
    if named.weight is not None or named.bonus is not None:
        origin = "of the recipe" if found is None else f"tuned on {found.split}{alone}"
        if named.weight is not None:
            why = f"weight as given, bonus {origin}"
            return Weights(settings.with_(weight=named.weight), why, found)
        return Weights(settings.with_(bonus=named.bonus), f"bonus as given, weight {origin}", found)
    if not file.tuned:
        names = f"{quoted(recognizer.folder)} {quoted(folder)}"
        return Weights(own, f"not tuned: 'firstwords lm tune {names} --corpus CORPUS' chooses them")
    if found is None:
        return Weights(own, f"not tuned: {_other(file.tuned, recognizer.weights, together, mark, kind.kind)}")
    beam = getattr(kind, "beam", 1)
    width = "" if found.beam == beam else f" with a beam of {found.beam}"
    rates = f"{found.by.upper()} {100 * found.without:.1f} % without, {100 * found.best:.1f} % with"
    of = f" of {found.corpus}" if found.corpus else ""
    return Weights(settings, f"tuned on {found.split}{of}{width}{alone}: {rates}", found)


def source_weight(weights: Weights | None, mark: str, recipe: LanguageModelConfig) -> tuple[float, str]:
    """How much of a model of the training transcripts is taken off if nobody says, and why, in words.

    Args:
        weights: of the language model beside it.
        mark: fingerprint of the model that is taken off.
        recipe: the recipe's weights.
    """
    found = None if weights is None else weights.tuned
    if found is not None and found.source_weight is not None and found.source == mark:
        return found.source_weight, f" (tuned on {found.split})"
    other = found is not None and found.source_weight
    why = " (the other weights were tuned with another one)" if other else ""
    return recipe.source_weight or SOURCE_WEIGHT, why


# -- one step below


def _tuned(own: LanguageModelConfig, found: TunedSetting) -> LanguageModelConfig:
    """The recipe's weights with all that was tuned in their places."""
    chosen = {"source_weight": found.source_weight, "internal_weight": found.internal_weight}
    looked_for = {name: value for name, value in chosen.items() if value is not None}
    return own.with_(weight=found.weight, bonus=found.bonus, **looked_for)


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
