"""A model folder for reading: where it computes, in which numbers."""

from __future__ import annotations

from pathlib import Path

from firstwords.device import Compute, Precision, choose_compute
from firstwords.model.checkpoint import LoadedModel, load_model
from firstwords.model.int8 import compute_in_int8

LARGE = 10_000_000  # parameters from which on bfloat16 is worth it


def load_to_read(
    folder: Path, *, device: str, precision: Precision, check: bool, int8: bool
) -> tuple[LoadedModel, Compute]:
    """A model folder -> the model, and how it computes; arguments as of ``Recognizer.load``."""
    compute = choose_compute("cpu" if int8 and device == "auto" else device, precision)
    loaded = load_model(folder, device=compute.device, check=check)
    if int8:
        compute_in_int8(loaded.model, loaded.input_scales)
    if int8 or (precision == "auto" and loaded.model.num_parameters < LARGE):
        compute = choose_compute(str(compute.device), "fp32")
    return loaded, compute
