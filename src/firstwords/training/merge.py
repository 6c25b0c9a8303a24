"""``firstwords merge``: model folders in, a model folder out, with a card that names its parents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from firstwords import __version__
from firstwords.data.manifest import load_corpus
from firstwords.errors import UsageError
from firstwords.model.checkpoint import save_model
from firstwords.model.merging import (
    STRANGERS,
    Ingredient,
    Parent,
    average,
    build_merged,
    check_alike,
    merge_weights,
)
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.search.search import quick_search, search_words
from firstwords.search.speech_gate import OPEN, SpeechGate
from firstwords.training.soup import Tasted, Tasting, batch_norms, greedy_soup
from firstwords.training.tasks.task import Validation

Say = Callable[[str], None]


@dataclass(frozen=True)
class MergeResult:
    """What was written.

    Args:
        ingredients: those of the merged model, with their shares.
        likeness: of each to the first (``Merged.likeness``).
        validation: on dev, where a corpus was given.
        notes: what a user should know.
    """

    folder: Path
    recipe: Recipe
    how: str
    ingredients: tuple[Ingredient, ...]
    likeness: tuple[float, ...]
    parameters: int
    validation: Validation | None
    steps: tuple[Tasted, ...] = ()
    notes: tuple[str, ...] = field(default=())


def merge_models(
    ingredients: Sequence[Ingredient],
    to: Path,
    *,
    how: str,
    greedy: bool = False,
    corpus: Path | None = None,
    split: str = "dev",
    device: str = "auto",
    say: Say = lambda _: None,
) -> MergeResult:
    """Models and their shares -> a model folder.

    The recipe is the first model's, under the name of the new folder.

    Args:
        how: the merge in words, for the card.
        greedy: take only models that do not raise the error on the split, in equal shares.
        corpus: measures error rate, gate and the statistics of batch normalization.
        say: told what is being done.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"'{to}' exists and is not empty.", mend="Give --to a new folder.")
    parents = [parent for parent, _ in ingredients]
    differences = check_alike(parents)
    first = parents[0]
    recipe = first.recipe.with_(name=to.resolve().name, post=None)
    notes: list[str] = []

    def tell(note: str) -> None:
        if note not in notes:
            notes.append(note)
            say(note)

    if first.recipe.post is not None and first.recipe.post.stages:
        tell("Formatting is left out: its files lie with the parents. Name stages with --post.")
    tasting: Tasting | None = None
    if corpus is not None:
        tasting = Tasting(load_corpus(corpus), split, recipe, first.tokenizer, device, tell)
    steps: tuple[Tasted, ...] = ()
    if greedy:
        if tasting is None:
            raise UsageError("A greedy soup chooses by its error on dev.", mend="Add --corpus CORPUS.")
        ingredients, steps = _greedy(parents, recipe, tasting, say)
    found = merge_weights(ingredients)
    model = build_merged(recipe, first.tokenizer, found.weights, first.structure)
    for (parent, _), likeness in zip(ingredients, found.likeness, strict=True):
        if likeness < STRANGERS:
            tell(
                f"'{parent.name}' does not seem to come from one start with '{ingredients[0].parent.name}' "
                f"(cosine of their weights {likeness:.2f}): sums of such models are mostly noise. Merge "
                "models that were fine-tuned from the same one."
            )
    mixed = sum(share != 0 for _, share in ingredients) > 1  # else the statistics are the model's own
    words = _common_words([parent for parent, share in ingredients if share != 0], tell)
    validation, gate = _measure(model, tasting, words, tell, mixed=mixed)
    result = MergeResult(
        to,
        recipe,
        how,
        tuple(ingredients),
        found.likeness,
        model.num_parameters,
        validation,
        steps,
        (*notes, *(f"The parents differ in {line}" for line in differences)),
    )
    save_model(to, model.cpu(), first.tokenizer, card=merge_card(result), speech_gate=gate)
    return replace(result, notes=tuple(notes))


def _greedy(
    parents: Sequence[Parent], recipe: Recipe, tasting: Tasting, say: Say
) -> tuple[list[Ingredient], tuple[Tasted, ...]]:
    def error(chosen: Sequence[Parent]) -> float:
        weights = merge_weights(average(chosen)).weights
        model = build_merged(recipe, chosen[0].tokenizer, weights, chosen[0].structure)
        if len(chosen) > 1:
            tasting.renew(model)
        found = tasting.error(model).objective
        what = f"'{chosen[-1].name}'" if len(chosen) == 1 else f"with '{chosen[-1].name}'"
        say(f"{what}: {tasting.split} CER {100 * found:.2f} %")
        return found

    soup, _, steps = greedy_soup(parents, error)
    return average(soup), tuple(steps)


def _common_words(parents: Sequence[Parent], say: Say) -> frozenset[str]:
    """The closed vocabulary that all of them have."""
    found = {parent.words for parent in parents}
    if len(found) == 1:
        return parents[0].words
    say("The parents do not share one closed vocabulary: the merged model has none, unless --corpus has.")
    return frozenset()


def _measure(
    model: SpeechModel, tasting: Tasting | None, words: frozenset[str], say: Say, *, mixed: bool
) -> tuple[Validation | None, SpeechGate]:
    if tasting is not None:
        if mixed and tasting.renew(model):
            say("The statistics of batch normalization were measured anew on training speech.")
        return tasting.measure(model)
    if mixed and batch_norms(model):
        say(
            "The statistics of batch normalization are mixed from the parents': a guess. "
            "With --corpus they are measured."
        )
    say("The gate against non-speech is open: with --corpus it is measured.")
    return None, SpeechGate(OPEN.threshold, words)


def merge_card(result: MergeResult) -> str:
    """What was merged of what, and how good it was found to be -> Markdown."""
    recipe, validation = result.recipe, result.validation
    rows = [
        ("language", recipe.language),
        ("model", f"{recipe.encoder.kind}, {result.parameters / 1e6:.2f} M parameters"),
        ("merged", result.how),
    ]
    if validation is not None:
        numbers = validation.numbers
        search = search_words(quick_search(recipe.search))
        rows += [
            (
                "dev CER",
                f"{100 * numbers['cer']:.1f} % (search {search}; normalizer '{recipe.text.scoring}')",
            ),
            ("dev WER", f"{100 * numbers['wer']:.1f} %"),
            ("dev set", f"{numbers['utterances']:.0f} utterances, {numbers['words']:.0f} words"),
        ]
    rows += [
        ("search of the recipe", search_words(recipe.search)),
        ("date", datetime.now(UTC).date().isoformat()),
        ("firstwords", __version__),
    ]
    table = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in rows)
    pairs = zip(result.ingredients, result.likeness, strict=True)
    parents = "\n".join(
        f"| {parent.name.replace('|', '/')} | {share:.6g} | {likeness:.3f} | {parent.fingerprint} |"
        for (parent, share), likeness in pairs
    )
    tried = "".join(
        f"- {'kept' if step.kept else 'left out'}: {step.parent.name}, dev CER {100 * step.error:.2f} % "
        f"with it ({step.parent.fingerprint[:16]})\n"
        for step in result.steps
    )
    return (
        f"# {recipe.name}\n\n| | |\n|---|---|\n{table}\n\n"
        "Made of these models. The cosine is that of their weights and the first one's, the fingerprint the "
        "SHA-256 of model.safetensors.\n\n"
        f"| model | share | cosine | fingerprint |\n|---|---|---|---|\n{parents}\n"
        + (f"\nTried one after the other, the best alone first:\n\n{tried}" if tried else "")
        + "".join(f"\n{note}\n" for note in result.notes)
        + (
            "\nThe dev set may have chosen parents and shares, so its error rates look a little too good. "
            if validation is not None
            else "\nNothing was measured. "
        )
        + "For the error rate with its interval on a test set run:\n\n"
        "    firstwords evaluate MODEL CORPUS --split test\n"
    )
