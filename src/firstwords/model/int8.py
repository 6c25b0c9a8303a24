"""A model whose linear layers (linears.py) multiply in 8-bit integers; all else stays in floating point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from firstwords.errors import CheckpointError, UsageError
from firstwords.model.linears import exchange, linear_layers
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.int8 import Int8Linear, multiplies_exactly


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
    exchange(model, {name: lambda linear, name=name: Int8Linear(linear, given.get(name)) for name in names})
    return names
