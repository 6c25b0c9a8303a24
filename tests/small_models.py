"""A small model with each kind of encoder."""

from __future__ import annotations

from typing import Any

import torch

from firstwords.model import kinds
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from tone_corpus import tone_recipe

_SMALL = {"dim": 24, "layers": 2, "heads": 2, "feedforward": 32, "subsampling": {"channels": 8}}
ENCODERS: dict[str, dict[str, Any]] = {
    "zipformer": {},
    "conformer": _SMALL | {"kernel": 9},
    "transformer": _SMALL,
    "squeezeformer": _SMALL | {"layers": 4, "kernel": 9, "reduce_at": 1, "recover_at": 3},
    "e_branchformer": _SMALL | {"gate_width": 40, "kernel": 9, "merge_kernel": 5},
    "dnn": {"hidden": 16, "layers": 2},
    "listener": {"width": 12},
    "lstm": {"size": "nano"},
    "quartznet": {"size": "nano"},
    "mobilenet": {"size": "nano"},
    "resnet": {"size": "nano"},
}


def small_model(kind: str) -> SpeechModel:
    """Of twelve tokens, untrained."""
    settings = ENCODERS[kind]
    config = kinds.ENCODERS[kind].config
    if "size" in settings:
        settings = config.preset(settings["size"]).model_dump()  # pyright: ignore[reportAttributeAccessIssue]
    values = tone_recipe().model_dump()
    values["encoder"] = values["encoder"] if kind == "zipformer" else {**settings, "kind": kind}
    torch.manual_seed(1)
    return SpeechModel(Recipe.model_validate(values), 12).eval()
