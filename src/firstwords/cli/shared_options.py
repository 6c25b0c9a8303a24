"""Arguments and options that say the same in many commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(help="Model folder.")]
ModelOrBundle = Annotated[Path, typer.Argument(help="Model folder, or exported bundle.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
