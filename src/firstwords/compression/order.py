"""What a step of compression hands on of the model that it begins with, and which step has to come first.

    of the model it begins with             what the steps do
    weights kept in fewer bits              prune, skip-layers, early-exit keep each tensor as it was kept;
                                            low-rank and fold make other matrices: refused, they come first
    zeros among the weights                 the same; and training would fill them: refused, they come last
                                            of what is trained; quantize says that they take bytes again
    scales of inputs (--static, --qat)      prune and skip-layers measure them anew
    early_exit.toml                         it was tuned for the very weights: refused, it comes last

So no step makes a file grow again, or leaves out what another one made, without a word.
"""

from __future__ import annotations

import shutil
from os import PathLike
from pathlib import Path

from firstwords.compression.calibration import MOST_UTTERANCES, input_scales
from firstwords.compression.choices import fitting, is_matrix
from firstwords.compression.masks import sparse_storage
from firstwords.compression.material import Material
from firstwords.errors import UsageError
from firstwords.inference.early_exit import FILE as EXIT
from firstwords.inference.early_exit import read_exit
from firstwords.model.checkpoint import LoadedModel, weights_digest
from firstwords.model.linears import linear_layers
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import Storage, restored, storage_words

# What belongs to one model folder alone.
_OWN = ("resume", "rounds", "tuning", "attempts", "report", "accuracy.json", EXIT)


def require_exit_last(start: LoadedModel, step: str) -> None:
    """UsageError for a model whose early exit was tuned for the weights that ``step`` is about to change."""
    known = read_exit(start.folder)
    if known is not None and known.model == weights_digest(start.model.state_dict()):
        raise UsageError(
            f"The early exit of '{start.folder}' was tuned for its very weights, and {step} changes them.",
            mend=f"Do {step} first and early-exit last: begin with the model that early-exit was given. "
            f"Or delete {EXIT} there, and tune it anew afterwards.",
        )


def require_whole(start: LoadedModel, step: str) -> None:
    """UsageError for a model in fewer bits, or of zeros, of which ``step`` would make other matrices."""
    if is_sparse(start) and {one.kind for one in start.storage.values()} <= {"sparse", "fp32"}:
        raise UsageError(
            f"'{start.folder}' has zeros among its weights, and {step} makes other matrices of its own, "
            "without them.",
            mend=f"Do {step} first, then prune --unstructured: begin with the model that it was given.",
        )
    if start.storage or start.input_scales:
        kept = storage_words(start.storage) or "8 bits, with measured inputs"
        raise UsageError(
            f"'{start.folder}' was quantized (its weights are kept as {kept}), and {step} makes other "
            "matrices of its own: they would be kept in 32 bits, or rounded twice.",
            mend=f"Do {step} first, then quantize: begin with the model that quantize was given.",
        )


def require_zeros_last(start: LoadedModel, *, unstructured: bool, tuned: bool) -> None:
    """UsageError where pruning would keep zeros in 32 bits, or its fine-tuning would fill them.

    Args:
        unstructured: it makes zeros itself.
        tuned: it trains.
    """
    kinds = sorted({one.words for one in start.storage.values() if one.kind not in ("sparse", "fp32")})
    if unstructured and kinds:
        raise UsageError(
            f"'{start.folder}' was quantized ({', '.join(kinds)}), and --unstructured keeps what is left in "
            "32 bits.",
            mend="Begin with the model that quantize was given, or leave --unstructured out.",
        )
    if tuned and is_sparse(start):
        raise UsageError(
            f"'{start.folder}' has zeros among its weights, and training would fill them.",
            mend="Do this step first, then prune --unstructured: begin with the model that it was given. "
            "Or add --no-tuning.",
        )


def is_sparse(start: LoadedModel) -> bool:
    """Zeros among the weights of a model (``prune --unstructured``) save bytes of its file."""
    return any(one.kind == "sparse" for one in start.storage.values())


def copy_companions(source: Path, new: Path) -> None:
    """What lies in a model folder, into one that is being made; without what belongs to the first alone."""

    def own(folder: str | PathLike[str], names: list[str]) -> set[str]:
        return {name for name in names if name in _OWN} if Path(folder) == source else set()

    shutil.copytree(source, new, ignore=own, dirs_exist_ok=True)


def kept_as_before(start: LoadedModel, model: SpeechModel) -> dict[str, Storage]:
    """How the tensors of a changed model are kept, as those of the same name were; it is rounded so."""
    state = model.state_dict()
    sparse = sparse_storage(model)
    plan: dict[str, Storage] = {}
    for name, storage in start.storage.items():
        if name not in state:
            continue
        if storage.kind != "sparse":
            plan[name] = fitting(state[name], storage)
        elif is_matrix(state[name]) and name in sparse:
            plan[name] = sparse[name]
    if plan:
        model.load_state_dict(restored(state, plan))
    return plan


def scales_anew(start: LoadedModel, model: SpeechModel, trial: Material) -> dict[str, float]:
    """Scales of the inputs of linear layers, measured on the changed model; none where there were none."""
    if not start.input_scales:
        return {}
    model.to(trial.compute.device)
    layers = linear_layers(model)
    scales = input_scales(model, layers, trial.calibration(MOST_UTTERANCES)) if layers else {}
    model.cpu()
    return scales
