"""A model folder for reading: where it computes, in which numbers."""

from __future__ import annotations

from pathlib import Path

from firstwords.device import Compute, Precision, choose_compute
from firstwords.inference.early_exit import EarlyExit, early_exit_of
from firstwords.model.checkpoint import LoadedModel, load_model
from firstwords.model.int8 import compute_in_int8
from firstwords.model.linears import keep_narrow
from firstwords.search.interface import SearchConfig

LARGE = 10_000_000  # parameters from which on bfloat16 is worth it


def load_to_read(
    folder: Path,
    device: str,
    precision: Precision,
    search: SearchConfig | None,
    exit_above: float | None,
    *,
    check: bool,
    int8: bool,
) -> tuple[LoadedModel, Compute, EarlyExit | None]:
    """A model folder -> the model, how it computes, its early exit; arguments as of ``Recognizer.load``."""
    compute = choose_compute("cpu" if int8 and device == "auto" else device, precision)
    loaded = load_model(folder, device=compute.device, check=check)
    # Before layers are exchanged: the exit belongs to the weights as they lie in the folder.
    early_exit = early_exit_of(folder, loaded.model, exit_above, search or loaded.recipe.search)
    if int8:
        compute_in_int8(loaded.model, loaded.input_scales)
    if int8 or (precision == "auto" and loaded.model.num_parameters < LARGE):
        compute = choose_compute(str(compute.device), "fp32")
    if compute.autocast:
        keep_narrow(loaded.model, compute.dtype)
    return loaded, compute, early_exit
