"""``firstwords convert``: a model of another toolkit -> a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstwords.errors import UsageError


def run(
    source: Annotated[str, typer.Argument(help="Whose file it is: icefall.")],
    checkpoint: Annotated[Path, typer.Argument(help="pretrained.pt or epoch-N.pt.")],
    to: Annotated[Path, typer.Option("--to", help="Model folder to write.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="config.json with the model's arguments.")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option("--tokens", help="tokens.txt: one 'piece id' per line.")
    ] = None,
    new_head: Annotated[
        bool, typer.Option("--new-head", help="Give a transducer without CTC output an untrained one.")
    ] = False,
) -> None:
    """Turn an icefall Zipformer checkpoint into a model folder."""
    if source != "icefall":
        raise UsageError(f"'{source}' is not known.", mend="Use: firstwords convert icefall CHECKPOINT.pt")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"'{to}' exists and is not empty.", mend="Give --to a new folder.")
    from rich.console import Console

    from firstwords.model.checkpoint import save_model
    from firstwords.model.convert.icefall import convert

    console = Console()
    found = convert(checkpoint, config, tokens, new_head=new_head)
    notes = [*found.notes]
    if tokens is None:
        notes.append("Without --tokens the pieces are called <1>, <2>, ...: transcripts show these.")
    origin = "the average" if found.averaged else "the weights"
    listed = "".join(f"- {name}\n" for name in found.left_out)
    card = (
        f"# {found.model.recipe.name}\n\nConverted from {origin} of the icefall checkpoint "
        f"'{checkpoint.name}': {found.model.num_parameters:,} parameters.\n"
        + "".join(f"\n{note}\n" for note in notes)
        + (f"\nTensors left out:\n\n{listed}" if listed else "")
    )
    save_model(to, found.model, found.tokenizer, card=card)
    console.print(f"{found.model.num_parameters:,} parameters from {origin} of {checkpoint.name}")
    for group, names in _groups(found.left_out).items():
        console.print(f"left out: {group} ({len(names)} tensors)", highlight=False)
    for note in notes:
        console.print(f"[yellow]note:[/yellow] {note}", highlight=False)
    console.print(f"Wrote {to}. All names left out stand in its card.md.", highlight=False)


def _groups(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Names by their first word; the one that occurs in every layer by its last."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = "bypass_scale of each layer, unused" if name.endswith(".bypass_scale") else name.split(".")[0]
        groups.setdefault(key, []).append(name)
    return groups
