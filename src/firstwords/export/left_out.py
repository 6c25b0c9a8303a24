"""What of a model folder is not in its bundle, or not for every engine, in plain sentences."""

from __future__ import annotations

from firstwords.export.plan import Plan
from firstwords.export.stages import NEEDS_TORCH
from firstwords.inference.early_exit import FILE as EARLY_EXIT
from firstwords.model.checkpoint import LoadedModel
from firstwords.search.interface import GreedyConfig, TransducerGreedyConfig
from firstwords.search.search import needed_heads


def left_out(loaded: LoadedModel, plan: Plan) -> tuple[str, ...]:
    """Model folder and what is exported of it -> a sentence for each thing that a user may miss."""
    recipe, words = loaded.recipe, loaded.speech_gate.words
    said: list[str] = []
    stages = recipe.post.stages if recipe.post is not None else ()
    if lost := [stage for stage in stages if stage in NEEDS_TORCH]:
        said.append(
            f"A stage of the model's formatting ({', '.join(lost)}) is not in the bundle: it runs in torch."
        )
    if kept := [stage for stage in stages if stage not in NEEDS_TORCH]:
        without = "" if plan.alone else "; sherpa-onnx gives texts as the model writes them"
        said.append(f"Formatting ({', '.join(kept)}) is in the bundle, for firstwords{without}.")
    search, heads = recipe.search, needed_heads(recipe.search)
    if other := [head for head in heads if head != plan.kind]:
        way = "" if other != ["transducer"] else " Export that head: --head transducer."
        said.append(
            f"The model reads with {' and '.join(heads)} ({search.kind}), the bundle with {plan.kind} alone: "
            f"it writes other words, and its error rate is another.{way}"
        )
    elif not isinstance(search, GreedyConfig | TransducerGreedyConfig):
        way = "transcribe with --beam and --lm" if plan.kind == "ctc" else "transducer bundles have no other"
        said.append(f"The search of the recipe ({search.kind}) is not in the bundle, it is greedy: {way}.")
    if isinstance(search, TransducerGreedyConfig) and (most := search.symbols_per_frame or 1) > 1:
        said.append(
            f"The bundle writes one token per frame at most, the model {most} (search.symbols_per_frame): "
            "fast speech may lose letters."
        )
    if (loaded.folder / EARLY_EXIT).is_file():
        said.append("Early exit is not in the bundle: all layers are computed.")
    if words and plan.kind != "ctc":
        said.append(f"The closed vocabulary ({len(words)} words) is not in the bundle: it belongs to CTC.")
    elif words:
        without = "" if plan.alone else ", not for sherpa-onnx"
        said.append(f"The closed vocabulary ({len(words)} words) is in the bundle, for firstwords{without}.")
    return tuple(said)
