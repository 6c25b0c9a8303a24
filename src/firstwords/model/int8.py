"""A model whose linear layers multiply in 8-bit integers: which layers, and the exchange.

The layers are those of the encoder that are called as they stand; one whose weights are used by other means
(a front end that reorders them) and all heads stay in floating point. Which they are is seen by encoding a
short clip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from firstwords.errors import CheckpointError, UsageError
from firstwords.model.selfcheck import synthetic_clip
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.int8 import Int8Linear, multiplies_exactly
from firstwords.tensors import Padded


def linear_layers(model: SpeechModel) -> list[str]:
    """Names of the linear layers that can compute in 8 bits, in the order of the model."""
    called: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        return lambda *_: called.add(name)

    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("encoder.")
    }
    hooks = [module.register_forward_pre_hook(note(name)) for name, module in linears.items()]
    training = model.training
    try:
        model.eval()
        rate = model.recipe.data.sample_rate
        clip = torch.from_numpy(synthetic_clip(rate)[:rate])[None].to(next(model.parameters()).device)
        with torch.no_grad():
            model.encode(Padded(clip, torch.tensor([rate], device=clip.device)))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return [name for name in linears if name in called]


def compute_in_int8(model: SpeechModel, input_scales: Mapping[str, float] | None = None) -> Sequence[str]:
    """Exchange the linear layers of a model, in place -> their names.

    Args:
        input_scales: of layers by name, measured by ``firstwords compress quantize --static`` or ``--qat``;
            the others measure each frame as it comes.
    """
    if next(model.parameters()).device.type != "cpu":
        raise UsageError(
            "8-bit computation is for processors, the model is on a graphics card.", mend="Use --device cpu."
        )
    if not multiplies_exactly():
        raise UsageError(
            "This processor does not multiply 8-bit integers exactly (a test product was wrong).",
            mend="Leave out --int8.",
        )
    given = dict(input_scales or {})
    if not (names := linear_layers(model)):
        raise UsageError(
            f"A {model.recipe.encoder.kind} encoder has no linear layers that could compute in 8 bits.",
            mend="Leave out --int8. Storage in 8 bits is possible.",
        )
    if unknown := [name for name in given if name not in names]:
        raise CheckpointError(
            f"The weights hold the scale of an input of '{unknown[0]}', which is no layer of this model that "
            "computes in 8 bits.",
            mend="Calibrate again: firstwords compress quantize MODEL --static --corpus CORPUS --to DIR",
        )
    for name in names:
        place, _, last = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(model.get_submodule(place), last, Int8Linear(linear, given.get(name)).eval())
    return names
