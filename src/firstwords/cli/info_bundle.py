"""``firstwords info`` of an exported bundle: what it is, and whether every file is what it should be."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from firstwords.errors import CheckpointError
from firstwords.export.bundle import BundleFacts, gate_warning, read_bundle
from firstwords.export.check_bundle import check_bundle


def show_bundle(folder: Path, console: Console, *, check: bool) -> None:
    """Print what bundle.json says, then check every file; ``check``: have the engine load them, too."""
    facts = read_bundle(folder)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in bundle_facts(folder, facts):
        table.add_row(name, value)
    console.print(table)
    faults: list[CheckpointError] = []
    for variant in facts.variants:
        try:
            bundle = check_bundle(folder, variant)
            if check:
                from firstwords.export.runtime import Runtime

                Runtime(bundle)
        except CheckpointError as error:
            faults.append(error)
    if faults:
        raise faults[0]
    if (warning := gate_warning(folder)) is not None:
        console.print(warning, style="red", highlight=False)
    console.print("Every graph loads." if check else "Every file is what bundle.json says.")


def bundle_facts(folder: Path, facts: BundleFacts) -> list[tuple[str, str]]:
    """Bundle folder -> (name, value) rows."""
    kind = {"ctc": "CTC", "transducer": "transducer"}[facts.kind]
    rows = [
        ("bundle", str(folder)),
        ("name", facts.name),
        ("language", "not stated" if facts.language == "und" else facts.language),
        ("kind", f"{'streaming' if facts.streaming else 'offline'} {kind}"),
    ]
    if facts.chunk is not None:
        chunk = facts.chunk.shift * facts.frame_shift_ms
        rows.append(("chunk", f"{chunk:.0f} ms"))
    rows += [
        ("pieces", str(facts.vocabulary)),
        ("audio", f"{facts.sample_rate} Hz, {facts.mels} mels each {facts.frame_shift_ms:g} ms"),
        ("output", f"one frame each {1000 * facts.frame_seconds:g} ms"),
        ("normalizer", facts.normalizer),
    ]
    for variant in facts.variants:
        names = dict.fromkeys(facts.graphs(variant).values())
        sizes = [facts.files[name].bytes for name in names if name in facts.files]
        rows.append((variant, f"{sum(sizes) / 1e6:.2f} MB ({', '.join(names)})"))
    if facts.firstwords:
        rows.append(("made by", f"firstwords {facts.firstwords}"))
    return rows
