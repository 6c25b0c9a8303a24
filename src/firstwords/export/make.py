"""``firstwords export``: model folder -> bundle, with the proof that it reads what the model reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firstwords.export.left_out import left_out
from firstwords.export.plan import CHUNK_MS, Kind, Plan, plan_bundle
from firstwords.export.quantize import quantize_graphs
from firstwords.export.stages import portable_stages
from firstwords.export.trace import require_onnx
from firstwords.export.write import all_files, describe, make_graphs, refuse_other_folders, write_bundle
from firstwords.model.checkpoint import LoadedModel, load_model
from firstwords.nn.folding import folded_copy


@dataclass(frozen=True)
class Made:
    """A written bundle."""

    folder: Path
    loaded: LoadedModel
    plan: Plan
    sizes: dict[str, int]  # file name -> bytes
    left_out: tuple[str, ...] = ()  # of the model folder, in sentences


def make_bundle(
    model: Path,
    folder: Path,
    *,
    kind: Kind | None = None,
    streaming: bool = False,
    int8: bool = False,
    chunk_ms: float = CHUNK_MS,
    report: Callable[[str], None] = lambda line: None,
) -> Made:
    """Write the bundle of a model folder into ``folder``: an empty one, or an older bundle.

    It has no card yet: that is written when the parity gate (parity.py) is passed.
    """
    require_onnx()
    refuse_other_folders(folder)
    loaded = load_model(model, device="cpu")
    plan = plan_bundle(
        folded_copy(loaded.model)[0],
        kind=kind,
        streaming=streaming,
        chunk_ms=chunk_ms,
        silent=loaded.tokenizer.silent,
    )
    report("tracing the graphs")
    graphs = make_graphs(plan)
    if int8:
        report("eight-bit weights")
        small = quantize_graphs(graphs)
        for part in plan.graphs:
            if part != "features" and f"{part}.int8.onnx" not in small:
                report(f"eight bits gain nothing here: {part}.onnx stays as it is")
        graphs |= small
    post, tables = portable_stages(loaded.recipe.post, loaded.recipe.language, loaded.folder)
    files = all_files(graphs, loaded.tokenizer, plan) | tables
    write_bundle(folder, describe(plan, loaded, files, post), files)
    sizes = {name: len(content) for name, content in files.items()}
    return Made(folder, loaded, plan, sizes, left_out(loaded, plan))
