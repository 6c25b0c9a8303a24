"""The card of a model: what it is, what it was made from, how good it was found to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from firstwords import __version__
from firstwords.model.recipe import Recipe
from firstwords.search.search import quick_search, search_words
from firstwords.training.tasks.task import Validation


@dataclass(frozen=True)
class CardFacts:
    """What does not change while a model is trained."""

    recipe: Recipe
    parameters: int
    pieces: int
    hours: float  # of training speech
    utterances: int
    speakers: int
    machine: str
    labels: Mapping[str, str]  # of the corpus: licence and the like, where the manifest tells


def write_card(facts: CardFacts, validation: Validation, *, step: int, elapsed: float) -> str:
    """Facts and the dev result of the weights beside it -> Markdown."""
    numbers = validation.numbers
    search = search_words(quick_search(facts.recipe.search))
    wanted = search_words(facts.recipe.search)
    rows = [
        ("language", facts.recipe.language),
        ("model", f"{facts.recipe.encoder.kind}, {facts.parameters / 1e6:.2f} M parameters"),
        ("pieces", str(facts.pieces)),
        ("training speech", f"{facts.hours:.2f} h, {facts.utterances} utterances, {facts.speakers} speakers"),
        (
            "dev CER",
            f"{100 * numbers['cer']:.1f} % (search {search}; normalizer '{facts.recipe.text.scoring}')",
        ),
        ("dev WER", f"{100 * numbers['wer']:.1f} %"),
        ("dev set", f"{numbers['utterances']:.0f} utterances, {numbers['words']:.0f} words"),
        ("search of the recipe", wanted),
        ("trained", f"{step} steps, {elapsed / 60:.1f} min on {facts.machine}"),
        ("date", datetime.now(UTC).date().isoformat()),
        ("firstwords", __version__),
        *facts.labels.items(),
    ]
    table = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in rows)
    return (
        f"# {facts.recipe.name}\n\n| | |\n|---|---|\n{table}\n\n"
        "The dev set chose among the weights of this run, so its error rates look a little too good. "
        "For the error rate with its interval on a test set run:\n\n"
        "    firstwords evaluate MODEL CORPUS --split test\n"
    )
