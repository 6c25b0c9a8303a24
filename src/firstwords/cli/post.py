"""The option --post: which stages of formatting recognised text goes through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from firstwords.export.runtime import Runtime
    from firstwords.formatting.settings import PostConfig
    from firstwords.formatting.stage import Formatter
    from firstwords.inference.recognizer import Recognizer

Post = Annotated[
    str | None,
    typer.Option(
        "--post",
        help="Stages of formatting, in order, in place of the recipe's: numbers (or numbers=en), "
        "punctuation=FOLDER, hotwords=FILE; 'none' for none.",
        metavar="STAGES",
    ),
]


def check_post(given: str | None, *, stream: bool) -> None:
    """What is wrong with the option is said before anything is loaded."""
    if given is None:
        return
    from firstwords.errors import UsageError
    from firstwords.formatting.build import named_stages
    from firstwords.formatting.settings import PostConfig

    if stream:
        raise UsageError(
            "--post needs whole recordings: it cannot be used with --stream.", mend="Leave one out."
        )
    bare = {"punctuation": {"model": "of the recipe"}, "hotwords": {"file": "of the recipe"}}
    named_stages(given, PostConfig.model_validate(bare))  # only names; the recipe may hold the rest


def apply_post(recognizer: Recognizer, given: str | None, say: Callable[[str], None]) -> None:
    """Set the stages of a recogniser, load what they need, and say which phrases are too short for one."""
    recipe = recognizer.recipe
    if given is not None:
        recognizer.formatter = _formatter(given, recipe.post, recipe.language, Path(recognizer.folder))
    _tell_too_short(recognizer.formatter, say)
    _tell_other_writing(recognizer.formatter, recipe.text.normalizer, say)


def apply_post_to_bundle(runtime: Runtime, given: str | None, say: Callable[[str], None]) -> None:
    """The same for a bundle, which has the stages that need no torch."""
    facts = runtime.facts
    if given is not None:
        _refuse_torch(given)
        runtime.formatter = _formatter(given, facts.post, facts.language, runtime.bundle.folder)
    _tell_too_short(runtime.formatter, say)


def _formatter(given: str, trained: PostConfig | None, language: str, folder: Path) -> Formatter | None:
    """--post and the stages of the recipe -> what formats; its files are sought from ``folder`` on."""
    from firstwords.formatting.build import named_stages, recipe_formatter

    return recipe_formatter(named_stages(given, trained), language=language, folder=folder)


def _refuse_torch(given: str) -> None:
    from firstwords.errors import UsageError
    from firstwords.export.stages import NEEDS_TORCH

    names = [part.partition("=")[0].strip() for part in given.split(",")]
    if lost := NEEDS_TORCH.intersection(names):
        raise UsageError(
            f"--post {given}: '{min(lost)}' runs in torch, which a bundle does without.",
            mend="Leave it out, or give the model folder in place of the bundle.",
        )


def _tell_other_writing(formatter: Formatter | None, writes: str, say: Callable[[str], None]) -> None:
    """A model of marks that read text of another normalizer leaves words alone that it knows otherwise."""
    if formatter is None or not any(stage.name == "punctuation" for stage in formatter.stages):
        return
    from firstwords.formatting.punctuation import Punctuation  # imports torch

    for stage in formatter.stages:
        if isinstance(stage, Punctuation) and (own := stage.loaded.config.normalizer) != writes:
            say(
                f"The punctuation model was made from text of normalizer '{own}', the recogniser writes text "
                f"of '{writes}': words that the two write otherwise get no capitals. Make it anew: "
                f"'firstwords punctuation train TEXT --to FOLDER --normalizer {writes}'."
            )


def _tell_too_short(formatter: Formatter | None, say: Callable[[str], None]) -> None:
    from firstwords.formatting.hotwords import Hotwords

    for stage in formatter.stages if formatter is not None else ():
        if isinstance(stage, Hotwords) and stage.too_short:
            shown = ", ".join(stage.too_short[:5])
            more = f" and {len(stage.too_short) - 5} more" if len(stage.too_short) > 5 else ""
            least = stage.limits.shortest
            say(f"Phrases of fewer than {least} letters are not looked for: {shown}{more}.")
