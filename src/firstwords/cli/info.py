"""``firstwords info``: what a model folder is, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstwords.cli.shared_options import ModelOrBundle
from firstwords.cli.terminal import plain_console

if TYPE_CHECKING:
    from rich.console import Console

    from firstwords.model.recipe import Recipe
    from firstwords.model.structure import Structure

# What a folder may hold (docs: "A checkpoint is one folder"), and whether it can transcribe without it.
PARTS = (
    ("recipe.toml", True),
    ("model.safetensors", True),
    ("tokenizer", True),
    ("check", False),
    ("card.md", False),
    ("resume", False),
)
SOMETIMES = ("structure.json", "compression.json", "rounds")  # of compressed models: shown where they are


def run(
    model: ModelOrBundle,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Also load it and prove it on its own clip; of a bundle, load every graph."
        ),
    ] = False,
) -> None:
    """Show a model: language, size, pieces, hours, error rates, and which files are there."""
    from rich.table import Table

    from firstwords.errors import CheckpointError
    from firstwords.folders import MODEL, kind_of_folder

    console = plain_console()
    if not model.is_dir():
        raise CheckpointError(f"'{model}' is not a folder.", mend="Give the folder that training wrote.")
    if (model / "bundle.json").is_file():
        from firstwords.cli.info_bundle import show_bundle

        show_bundle(model, console, check=check)
        return
    if (kind := kind_of_folder(model)) not in (None, MODEL):
        raise CheckpointError(
            f"'{model}' is {kind}, not the folder of a recogniser.",
            mend="Give a model folder or an exported bundle.",
        )
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = facts(model)
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    _print_files(model, console)
    missing = [name for name, needed in PARTS if needed and not (model / name).exists()]
    if missing:
        raise CheckpointError(
            f"'{model}' cannot transcribe: {', '.join(missing)} missing.",
            mend="Was the copy interrupted, or has training not reached its first validation?",
        )
    if unreadable := dict(rows).get("recipe.toml"):
        raise CheckpointError(
            f"'{model}' cannot transcribe: {unreadable}",
            mend="Was a file edited, or the copy interrupted? Copy the whole folder again.",
        )
    if check:
        from firstwords.model.checkpoint import load_model

        load_model(model, device="cpu", check=True)
        console.print("The model gives its check clip the stored answer.")


def _print_files(model: Path, console: Console) -> None:
    """A table of what belongs to a model, how large it is, and whether it is there."""
    from rich import box
    from rich.table import Table

    from firstwords.files import readable_size

    files = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("file", "size", ""):
        files.add_column(column)
    there_are = [(name, False) for name in SOMETIMES if (model / name).exists()]
    for name, needed in (*PARTS, *there_are):
        path = model / name
        size = _size(path)
        there = "" if path.exists() else ("MISSING: cannot transcribe" if needed else "not there")
        files.add_row(
            name + ("/" if path.is_dir() else ""), readable_size(size) if path.exists() else "", there
        )
    console.print(files)


def facts(model: Path) -> list[tuple[str, str]]:
    """Model folder -> (name, value) rows; what cannot be told is left out."""
    from firstwords.errors import FirstwordsError

    rows = [("folder", str(model))]
    try:
        rows += _from_recipe(model)
    except FirstwordsError as error:
        rows.append(("recipe.toml", error.what))
    try:
        rows += _compressed(model)
    except FirstwordsError as error:
        rows.append(("compression.json", error.what))
    known = {name for name, _ in rows}
    rows += [(name, value) for name, value in _from_card(model / "card.md") if name not in known]
    return rows


def _from_recipe(model: Path) -> list[tuple[str, str]]:
    from firstwords.model.checkpoint import stranger
    from firstwords.model.recipe import read_recipe
    from firstwords.model.storage import choices_of, storage_words
    from firstwords.model.structure import read_structure
    from firstwords.text.load import load_tokenizer

    if not (model / "recipe.toml").is_file():
        return []
    recipe = read_recipe(model / "recipe.toml")
    rows = [
        ("name", recipe.name),
        ("language", "not stated" if recipe.language == "und" else recipe.language),
        ("encoder", recipe.encoder.kind),
    ]
    count, header = _parameters(model / "model.safetensors")
    if count:
        rows.append(("parameters", f"{count / 1e6:.2f} M"))
    if kept := storage_words(choices_of(header, source=str(model / "model.safetensors"))):
        rows.append(("weights kept as", kept))
    if (model / "tokenizer").is_dir():
        tokenizer = load_tokenizer(model / "tokenizer")
        # The pieces that spell text, not the bytes every vocabulary falls back to.
        shown = [p for p in tokenizer.pieces[1:] if not (p.startswith("<0x") and p.endswith(">"))]
        more = f" ... and {len(shown) - 40} more" if len(shown) > 40 else ""
        rows += [
            ("pieces", f"{len(tokenizer.pieces)} ({recipe.tokenizer.kind})"),
            ("", " ".join(shown[:40]) + more),
        ]
        if stranger(model, recipe, tokenizer, header) is None:  # else it may be of any size
            structure = read_structure(model)
            rows += _cost(recipe, len(tokenizer.pieces), structure)
            rows += _cut(recipe, len(tokenizer.pieces), structure)
    return [
        *rows,
        ("audio", f"{recipe.data.sample_rate} Hz, channels: {recipe.data.channels}"),
        ("search", recipe.search.kind),
        ("normalizers", f"{recipe.text.normalizer} (training), {recipe.text.scoring} (scoring)"),
    ]


def _cost(recipe: Recipe, pieces: int, structure: Structure) -> list[tuple[str, str]]:
    """What the network computes, counted while one with fresh weights runs."""
    from firstwords.model.cost import model_cost
    from firstwords.model.speech_model import SpeechModel

    cost = model_cost(SpeechModel(recipe, pieces, structure))
    counts = (("MACs", cost.macs_per_second), ("FLOPs", cost.flops_per_second))
    return [(name, f"{count / 1e6:.4g} M per second of audio") for name, count in counts]


def _cut(recipe: Recipe, pieces: int, structure: Structure) -> list[tuple[str, str]]:
    """What became of the network since its recipe, by kind of change."""
    from collections import Counter

    from firstwords.model.speech_model import SpeechModel

    if not structure:
        return []
    names = {"cut": "parts with fewer units", "drop": "layers left out"}
    counts = Counter(change.kind for change in structure.changes)
    said = ", ".join(f"{n} {names.get(kind, kind)}" for kind, n in counts.items())
    before = SpeechModel(recipe, pieces).num_parameters
    return [("cut since the recipe", f"{said}; before: {before / 1e6:.2f} M parameters")]


def _compressed(model: Path) -> list[tuple[str, str]]:
    """The steps since its training, and how each was trained."""
    from firstwords.compression.history import read_history

    said: list[str] = []
    for step in read_history(model).steps:
        minutes, teacher = step.settings.get("minutes"), step.settings.get("teacher")
        how = f"{minutes:g} min of training" if isinstance(minutes, int | float) else ""
        if how and teacher:
            how += f", taught by {teacher if isinstance(teacher, str) else 'the model before'}"
        said.append(f"{step.step} ({how})" if how else step.step)
    return [("compressed by", "; ".join(said))] if said else []


def _parameters(path: Path) -> tuple[int, dict[str, str]]:
    """Numbers in a safetensors file and its remarks, from its header alone (8 bytes of length, then JSON)."""
    import json
    from math import prod

    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 100_000_000)))
        remarks = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        # tensors in fewer bits lie in parts, and their shapes stand beside them (model/storage.py)
        packed = json.loads(remarks.get("storage", '{"tensors": {}}'))["tensors"]
        shapes = [shape for _, shape in packed.values()]
        shapes += [v["shape"] for n, v in header.items() if "@" not in n and n not in packed]
        return sum(map(prod, shapes)), remarks
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
        return 0, {}  # missing or damaged: the table of files tells


def _from_card(path: Path) -> list[tuple[str, str]]:
    """Rows of the table in card.md."""
    if not path.is_file():
        return []
    rows: list[tuple[str, str]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 2 and cells[0] and set(cells[0]) - set("-:"):
            rows.append((cells[0], cells[1]))
    return rows


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.exists() else 0
