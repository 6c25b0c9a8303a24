"""The linear layers of an encoder that others may stand in for: which they are, and the exchange.

They are those that are called as they stand; one whose weights are used by other means (a front end that
reorders them) and all heads stay what they are. Which they are is seen by encoding a short clip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from firstwords.model.selfcheck import synthetic_clip
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.narrow import NarrowLinear
from firstwords.tensors import Padded


def linear_layers(model: SpeechModel) -> list[str]:
    """Names of the layers that can be exchanged, in the order of the model."""
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


def exchange(model: SpeechModel, makers: Mapping[str, Callable[[nn.Linear], nn.Module]]) -> None:
    """Put in the place of each named linear layer what its maker makes of it."""
    for name, make in makers.items():
        place, _, last = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(model.get_submodule(place), last, make(linear).eval())


def keep_narrow(model: SpeechModel, dtype: torch.dtype) -> None:
    """Round the weights of linear layers once, in place, where autocast would do it in every batch.

    Results stay what they are but for the order of sums in float32; the model cannot be trained on.
    """
    exchange(model, {name: lambda linear: NarrowLinear(linear, dtype) for name in linear_layers(model)})
