"""Fold all norms and scales that can be folded (nn/folding.py); the outputs stay what they were."""

from __future__ import annotations

from firstwords.model.speech_model import SpeechModel
from firstwords.model.structure import Fold
from firstwords.nn.folding import folded_copy


def folded(model: SpeechModel) -> tuple[SpeechModel, list[str]]:
    """The model without those norms, and their paths; the one given stays as it is."""
    new, paths = folded_copy(model)
    new.structure = model.structure.then(Fold(module=path) for path in paths)
    return new, paths
