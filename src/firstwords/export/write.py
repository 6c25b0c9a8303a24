"""A model folder -> a bundle: graphs, tokens.txt, bundle.json, all of them or none.

The files are described in docs/export.md; what engines demand of them in plan.py, states.py and tokens.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firstwords import __version__
from firstwords.audio.waveform import channel_policy
from firstwords.errors import UsageError
from firstwords.export.bundle import BUNDLE, CARD, PARITY, TABLE, TOKENS, VOCABULARY
from firstwords.export.plan import Plan
from firstwords.export.tokens import bpe_vocab, tokens_txt
from firstwords.export.trace import require_onnx, to_onnx
from firstwords.files import staged
from firstwords.formatting.settings import PostConfig
from firstwords.model.checkpoint import LoadedModel
from firstwords.search.known_words import spelled_once
from firstwords.search.speech_gate import OPEN, SpeechGate
from firstwords.text.tokenizer import Tokenizer

NO_STAGES = PostConfig()
JOINED = "joined; U+2581 is a space; runs of <0x00> to <0xFF> are UTF-8; stripped"


def make_graphs(plan: Plan) -> dict[str, bytes]:
    """File name -> content, of each graph of a bundle."""
    require_onnx()
    return {f"{part}.onnx": to_onnx(graph) for part, graph in plan.graphs.items()}


def variants_of(files: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Variant -> part -> file name; a part without a file of its own in int8 is shared."""
    parts = [name.removesuffix(".onnx") for name in files if name.count(".") == 1]
    parts = [part for part in parts if part != "features"]
    variants = {"fp32": {part: f"{part}.onnx" for part in parts}}
    if any(name.endswith(".int8.onnx") for name in files):
        small = {part: f"{part}.int8.onnx" for part in parts}
        variants["int8"] = {part: name if name in files else f"{part}.onnx" for part, name in small.items()}
    return variants


def gate_of(plan: Plan, loaded: LoadedModel) -> SpeechGate:
    """The speech gate of a bundle: it was measured on CTC where there is CTC (inference/reading.py)."""
    return loaded.speech_gate if plan.kind == "ctc" or loaded.model.ctc is None else OPEN


def describe(
    plan: Plan, loaded: LoadedModel, files: Mapping[str, bytes], post: PostConfig = NO_STAGES
) -> dict[str, Any]:
    """What bundle.json says of these files; ``post``: the stages of formatting that they hold."""
    recipe, model, gate = loaded.recipe, loaded.model, gate_of(plan, loaded)
    return {
        "format": 1,
        "kind": plan.kind,
        "streaming": plan.streaming,
        "name": recipe.name,
        "language": recipe.language,
        "sample_rate": recipe.features.sample_rate,
        "channels": channel_policy(recipe.data.channels),
        "mels": model.frontend.dim,
        "subsampling": model.encoder.subsampling,
        "frame_shift_ms": 1000 * model.frontend.frame_shift,
        "shortest_samples": model.shortest_samples,
        "vocabulary": model.vocabulary,
        "blank": 0,
        "normalizer": recipe.text.normalizer,
        "pieces_join": JOINED,
        "known_words": spelled_once(gate.words, loaded.tokenizer) if plan.kind == "ctc" else [],
        "speech_gate": {"threshold": gate.threshold, "words": sorted(gate.words)},
        "post": post.model_dump(mode="json"),
        **plan.facts,
        "variants": variants_of({name: b for name, b in files.items() if name.endswith(".onnx")}),
        "sherpa_onnx": not plan.alone,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(files.items())
        },
        "firstwords": __version__,
    }


def write_bundle(folder: Path, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Put the files in their places, bundle.json last; a card or report of an earlier bundle goes."""
    own = {*files, BUNDLE}
    gone = [name for name in own_files(folder) if name not in own]
    with staged(folder, last=[BUNDLE], gone=gone) as new:
        for name, content in files.items():
            (new / name).write_bytes(content)
        (new / BUNDLE).write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")


def own_files(folder: Path) -> list[str]:
    """Files of the bundle in this folder; what somebody else put there is none of them."""
    names = (TOKENS, VOCABULARY, CARD, PARITY, TABLE, *_graphs_of_before(folder), BUNDLE)
    return [name for name in names if (folder / name).is_file()]


def _graphs_of_before(folder: Path) -> list[str]:
    """Graphs that the bundle in this folder lists as its own; others belong to somebody."""
    try:
        listed: Any = json.loads((folder / BUNDLE).read_text(encoding="utf-8"))["files"]
        return [str(name) for name in listed if str(name).endswith(".onnx") and Path(str(name)).name == name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def refuse_other_folders(folder: Path) -> None:
    """A bundle goes into an empty folder or over another bundle; never among other things."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is a file.", mend="Give a folder for the bundle: --to DIR.")
    if any(folder.iterdir()) and not (folder / BUNDLE).is_file():
        raise UsageError(
            f"'{folder}' is neither empty nor a bundle.", mend="Give another folder for the bundle: --to DIR."
        )


def all_files(graphs: Mapping[str, bytes], tokenizer: Tokenizer, plan: Plan) -> dict[str, bytes]:
    """Graphs, tokens.txt, and what sherpa-onnx writes hot words with: it knows them in transducers alone."""
    files = {**graphs, TOKENS: tokens_txt(tokenizer.pieces).encode()}
    return files if plan.kind == "ctc" else files | {VOCABULARY: bpe_vocab(tokenizer).encode()}
