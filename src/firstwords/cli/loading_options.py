"""How the model of recordings or streams is loaded: where it computes, and in which numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from firstwords.cli.shared_options import Device


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """What these options were given."""

    device: Device = "auto"
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="auto, fp32 or bf16; auto: bf16 for large models that gain by it. A bundle: fp32, int8.",
        ),
    ] = "auto"
    int8: Annotated[
        bool, typer.Option("--int8", help="Multiply in 8-bit integers: faster on processors without bf16.")
    ] = False
