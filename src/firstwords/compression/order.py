"""What a step of compression hands on of the model that it begins with, and which step has to come first.

    of the model it begins with             what the steps do
    weights kept in fewer bits              prune, skip-layers, early-exit keep each tensor as it was kept;
                                            low-rank and fold make other matrices: refused, they come first
    scales of inputs (--static, --qat)      prune and skip-layers measure them anew
    early_exit.toml                         it was tuned for the very weights: refused, it comes last

So no step makes a file grow again, or leaves out what another one made, without a word.
"""

from __future__ import annotations

from firstwords.compression.calibration import MOST_UTTERANCES, input_scales
from firstwords.compression.choices import fitting, is_matrix
from firstwords.compression.masks import sparse_storage
from firstwords.compression.material import Material
from firstwords.errors import UsageError
from firstwords.inference.early_exit import FILE as EXIT
from firstwords.inference.early_exit import read_exit
from firstwords.model.checkpoint import LoadedModel, weights_digest
from firstwords.model.int8 import linear_layers
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import Storage, restored, storage_words


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
    """UsageError for a model in fewer bits, of which ``step`` would make other matrices."""
    if start.storage or start.input_scales:
        kept = storage_words(start.storage) or "8 bits, with measured inputs"
        raise UsageError(
            f"'{start.folder}' was quantized (its weights are kept as {kept}), and {step} makes other "
            "matrices of its own: they would be kept in 32 bits, or rounded twice.",
            mend=f"Do {step} first, then quantize: begin with the model that quantize was given.",
        )


def require_dense(start: LoadedModel) -> None:
    """UsageError for a model in fewer bits that shall get zeros among its weights."""
    if kinds := sorted({one.words for one in start.storage.values() if one.kind not in ("sparse", "fp32")}):
        raise UsageError(
            f"'{start.folder}' was quantized ({', '.join(kinds)}), and --unstructured keeps what is left in "
            "32 bits.",
            mend="Begin with the model that quantize was given, or leave --unstructured out.",
        )


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
