"""``firstwords compress quantize``: a model folder -> the same model in fewer bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.shared_options import Device
from firstwords.errors import UsageError, quoted

if TYPE_CHECKING:
    from firstwords.compression.quantize import Variant

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def run(
    model: Annotated[Path, typer.Argument(help="Model folder; it is only read.", show_default=False)],
    to: Annotated[Path, typer.Option("--to", help="Model folder to write; a new one.", show_default=False)],
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", help="fp16, bf16, int8 or kmeans (weights from a codebook). Default: int8."
        ),
    ] = None,
    bits: Annotated[
        int | None, typer.Option("--bits", help="Of kmeans, 1 to 8; default 4.", show_default=False)
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="Most bytes of the weights: '1MB', '600kB'. Bits differ by layer."),
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="Corpus to measure and train with.", show_default=False)
    ] = None,
    tune: Annotated[
        float | None,
        typer.Option("--tune", help="Minutes of training after rounding.", min=0.0, show_default=False),
    ] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Measure inputs of layers, for 8-bit computation.")
    ] = False,
    qat: Annotated[
        bool, typer.Option("--qat", help="The same, and train with rounded weights and inputs (--tune).")
    ] = False,
    device: Device = "auto",
) -> None:
    """Keep a model's weights in fewer bits; with --budget each layer in as many as it needs."""
    if storage is not None and storage not in ("fp16", "bf16", "int8", "kmeans"):
        raise UsageError(f"--storage {storage}: no such kind.", mend="Use fp16, bf16, int8 or kmeans.")
    size = None if budget is None else parse_bytes(budget)
    if tune is not None and tune <= 0:
        raise UsageError(f"--tune {tune:g}: expected minutes above 0.", mend="For example --tune 5.")
    from firstwords.compression.quantize import Order, quantize
    from firstwords.training.progress import Progress

    order = Order(
        kind=storage,
        bits=bits,
        budget=size,
        corpus=corpus,
        tune=tune,
        static=static,
        qat=qat,
        device=device,
    )
    progress = Progress()
    done = quantize(model, to, order, progress=progress)
    before, after = done.before.bytes, done.after.bytes
    progress.say(
        f"model.safetensors: {before / 1e6:.3f} MB -> {after / 1e6:.3f} MB ({100 * after / before:.1f} %)"
        + _change(done.before, done.after)
    )
    if done.computed is not None:
        progress.say("Computing in 8 bits" + _change(done.before, done.computed))
    progress.say(f"Wrote {to}.\nNext: firstwords evaluate {quoted(to)} CORPUS --split test")


def parse_bytes(text: str) -> int:
    """'1.5MB', '600 kB', '250000' -> bytes; 1 kB is 1000 of them."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgG]?)[bB]?\s*", text)
    size = round(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size <= 0:
        raise UsageError(f"--budget '{text}': expected bytes.", mend="For example --budget 1MB or 600kB.")
    return size


def _change(before: Variant, after: Variant) -> str:
    if before.cer is None or after.cer is None:
        return "; no corpus was given, so nothing was measured."
    return f"; dev CER {100 * before.cer:.2f} % -> {100 * after.cer:.2f} %."
