"""What of a model folder is not in its bundle, or not for every engine, in plain sentences."""

from __future__ import annotations

from firstwords.export.plan import Plan
from firstwords.inference.early_exit import FILE as EARLY_EXIT
from firstwords.model.checkpoint import LoadedModel
from firstwords.search.interface import GreedyConfig, TransducerGreedyConfig


def left_out(loaded: LoadedModel, plan: Plan) -> tuple[str, ...]:
    """Model folder and what is exported of it -> a sentence for each thing that a user may miss."""
    recipe, words = loaded.recipe, loaded.speech_gate.words
    said: list[str] = []
    if recipe.post is not None and recipe.post.stages:
        said.append(
            f"The formatting of the model ({', '.join(recipe.post.stages)}) is not in the bundle: texts come "
            "out as the model writes them."
        )
    search = recipe.search
    if not isinstance(search, GreedyConfig | TransducerGreedyConfig):
        way = "transcribe with --beam and --lm" if plan.kind == "ctc" else "transducer bundles have no other"
        said.append(f"The search of the recipe ({search.kind}) is not in the bundle, it is greedy: {way}.")
    if (loaded.folder / EARLY_EXIT).is_file():
        said.append("Early exit is not in the bundle: all layers are computed.")
    if words and plan.kind != "ctc":
        said.append(f"The closed vocabulary ({len(words)} words) is not in the bundle: it belongs to CTC.")
    elif words:
        without = "" if plan.alone else ", not for sherpa-onnx"
        said.append(f"The closed vocabulary ({len(words)} words) is in the bundle, for firstwords{without}.")
    return tuple(said)
