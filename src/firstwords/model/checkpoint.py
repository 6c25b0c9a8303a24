"""A model as one folder: save, load, check.

    recipe.toml         resolved: every default written out
    structure.json      what was cut since (structure.py); only where something was
    model.safetensors   weights and buffers; its header names the recipe, pieces, vocabulary and structure it
                        belongs to
    tokenizer/          pieces.txt, ...
    check/              a synthetic clip and the answer it must get
    card.md             language, hours, error rate, date, command
    resume/             training only; delete freely

The section ``post`` of recipe.toml may be changed at will: what is done to recognised text concerns no
weight, and the fingerprint of the recipe in the weights is that of the recipe without it.

Loading runs no code from the folder and needs no network. All files are written aside, then renamed, the
weights last; when anything fails, the model that was there before is there still. A copy stopped half-way is
noticed because the header of the weights names its companions.

Tensors may be kept in fewer bytes (storage.py); loading gives an ordinary model either way.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import tomli_w
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from firstwords.config import read_toml
from firstwords.device import choose_device
from firstwords.errors import CheckpointError, ConfigError, quoted
from firstwords.files import staged, unwritable, write_atomically, written_aside
from firstwords.folders import MODEL, kind_of_folder
from firstwords.model.recipe import FORMAT, Recipe, read_recipe, write_recipe
from firstwords.model.selfcheck import run_check, write_check
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import Storage, choices_of, pack, unpack
from firstwords.model.structure import FILE as STRUCTURE
from firstwords.model.structure import read_structure, write_structure
from firstwords.search.speech_gate import OPEN, SpeechGate
from firstwords.text.load import load_tokenizer
from firstwords.text.tokenizer import Tokenizer

RECIPE, WEIGHTS, TOKENIZER, CARD = "recipe.toml", "model.safetensors", "tokenizer", "card.md"
INPUT_SCALES = "input_scales"  # in the header of the weights


@dataclass(frozen=True)
class LoadedModel:
    """What a folder holds, ready to use."""

    folder: Path
    recipe: Recipe
    tokenizer: Tokenizer
    model: SpeechModel
    speech_gate: SpeechGate = OPEN
    storage: Mapping[str, Storage] = field(default_factory=dict[str, Storage])
    input_scales: Mapping[str, float] = field(default_factory=dict[str, float])


def save_model(
    folder: Path,
    model: SpeechModel,
    tokenizer: Tokenizer,
    *,
    card: str,
    speech_gate: SpeechGate = OPEN,
    storage: Mapping[str, Storage] | None = None,
    input_scales: Mapping[str, float] | None = None,
) -> None:
    """Write (or replace) everything a folder needs to transcribe: all of it, or WriteError and nothing.

    Args:
        storage: how tensors are kept; those without a choice as they are. The check clip gets the answer of
            the weights as they are kept.
        input_scales: of linear layers by their names, for 8-bit computation (model/int8.py).
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    weights, told = pack(weights, storage or {})
    if told:
        model = deepcopy(model).cpu()
        load_weights(model, unpack(weights, told, source="weights"), source="weights")
    header = {
        "format": str(FORMAT),
        "recipe": bare_digest(model.recipe),
        "pieces": tokenizer.piece_hash,
        "vocabulary": str(model.vocabulary),
        "speech_gate": f"{speech_gate.threshold:.4f}",
    }
    if speech_gate.words:
        header["words"] = json.dumps(sorted(speech_gate.words), ensure_ascii=False)
    if model.structure:
        header["structure"] = model.structure.digest
    if input_scales:
        header[INPUT_SCALES] = json.dumps(input_scales)
    header |= told
    gone = () if model.structure else (STRUCTURE,)
    with staged(folder, last=(WEIGHTS,), gone=gone) as new:
        write_recipe(new / RECIPE, model.recipe)
        write_structure(new, model.structure)
        tokenizer.save(new / TOKENIZER)
        write_atomically(new / CARD, card)
        write_check(folder, new, model)
        save_tensors(new / WEIGHTS, weights, header)
        # safetensors makes files only their owner may read
        (new / WEIGHTS).chmod((new / RECIPE).stat().st_mode & 0o777)


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, str] | None = None
) -> None:
    """Tensors -> a safetensors file, whole or not at all."""
    try:
        with written_aside(path) as new:
            save_file(dict(tensors), new, metadata=None if header is None else dict(header))
            if header is not None:
                _sort_header(new)
    except SafetensorError as error:  # what its Rust says of a full disk
        raise unwritable(path, error, mend="Free some space there, then do the same again.") from None


def _sort_header(path: Path) -> None:
    """The library writes its metadata in an order drawn anew each time: the same model, the same bytes."""
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
        assert len(content) == size  # another order, nothing else
        file.seek(8)
        file.write(content)


def load_model(
    folder: Path | str, *, device: str | torch.device = "auto", check: bool = False
) -> LoadedModel:
    """Model folder -> LoadedModel in eval mode; ``check=True`` proves it on its own clip."""
    folder = Path(folder)
    require_files(folder)
    try:
        recipe = read_recipe(folder / RECIPE)
    except ConfigError as error:
        raise CheckpointError(error.what, mend=error.mend) from None
    tokenizer = load_tokenizer(folder / TOKENIZER)
    place = choose_device(device) if isinstance(device, str) else device
    weights, header = _read_weights(folder / WEIGHTS)
    structure = read_structure(folder)
    if file := stranger(folder, recipe, tokenizer, header):
        raise CheckpointError(
            f"'{folder}': {WEIGHTS} was not saved with this {file} (the stored fingerprint differs).",
            mend="Was the file edited, or the copy interrupted? Copy the whole folder again.",
        )
    model = SpeechModel(recipe, len(tokenizer.pieces), structure)
    source = str(folder / WEIGHTS)
    load_weights(model, unpack(weights, header, source=source), source=source)
    model.to(place).eval()
    if check:
        run_check(folder, model)
    gate = SpeechGate(_number(header.get("speech_gate"), folder), closed_words(header, folder))
    kept, scales = choices_of(header, source=source), _input_scales(header, folder)
    return LoadedModel(folder, recipe, tokenizer, model, gate, kept, scales)


def stranger(folder: Path, recipe: Recipe, tokenizer: Tokenizer, header: Mapping[str, str]) -> str | None:
    """Which file of a model folder the weights with this header were not saved with, if there is one."""
    if header.get("recipe") not in recipe_digests(folder / RECIPE, recipe):
        return RECIPE
    if header.get("structure", "") != read_structure(folder).digest:
        return STRUCTURE
    return TOKENIZER if header.get("pieces") != tokenizer.piece_hash else None


def recipe_digests(path: Path, recipe: Recipe) -> tuple[str, ...]:
    """All fingerprints under which what belongs to the recipe in this file may have been written down."""
    return (bare_digest(recipe), recipe.digest, *_digests(path))


def bare_digest(recipe: Recipe) -> str:
    """Fingerprint of all that weights depend on: the recipe without its section ``post``."""
    return recipe.with_(post=None).digest


def closed_words(header: Mapping[str, str], folder: Path) -> frozenset[str]:
    """The words of a closed vocabulary, by the header of the weights; none where it is open."""
    text = header.get("words")
    try:
        words: object = json.loads(text) if text is not None else []
    except ValueError:
        words = None
    if not isinstance(words, list):
        raise CheckpointError(
            f"'{folder}': the header of {WEIGHTS} holds '{text}' where a list of words belongs.",
            mend="Was the file edited? Copy the whole folder again.",
        )
    return frozenset(str(word) for word in cast("list[object]", words))


def _number(text: str | None, folder: Path) -> float:
    try:
        return float(text) if text is not None else 0.0  # folders of before had none
    except ValueError:
        raise CheckpointError(
            f"'{folder}': the header of {WEIGHTS} holds '{text}' where a number belongs.",
            mend="Copy the whole folder again.",
        ) from None


def _input_scales(header: Mapping[str, str], folder: Path) -> dict[str, float]:
    """Layer -> scale of its input, by the header of the weights; empty where none were measured."""
    text = header.get(INPUT_SCALES, "{}")
    try:
        found: Any = json.loads(text)
        scales = {str(name): float(scale) for name, scale in found.items()}
        if not all(0 < scale < math.inf for scale in scales.values()):
            raise ValueError(scales)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"'{folder}': the header of {WEIGHTS} holds '{text[:40]}...' where the scales of inputs belong.",
            mend="Was the file edited? Copy the whole folder again.",
        ) from None
    return scales


def _digests(path: Path) -> tuple[str, str]:
    """What ``Recipe.digest`` was when this file was written, as it stands and without its section ``post``.

    A later version knows settings that the file has not; read and written again it would be another text.
    """
    text = path.read_bytes().replace(b"\r\n", b"\n")
    values = read_toml(path)
    values.pop("post", None)
    return hashlib.sha256(text).hexdigest(), hashlib.sha256(tomli_w.dumps(values).encode()).hexdigest()


def load_weights(
    module: torch.nn.Module,
    weights: Mapping[str, torch.Tensor],
    *,
    source: str,
    mend: str = "Use the recipe.toml that was saved with these weights.",
) -> None:
    """Fill a module; names every missing, unknown or misshapen tensor."""
    own = module.state_dict()
    faults = [f"{name} is missing" for name in own if name not in weights]
    faults += [f"{name} is unknown" for name in weights if name not in own]
    faults += [
        f"{name} has shape {tuple(weights[name].shape)}, the recipe wants {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(
            f"'{source}' does not fit the recipe: {'; '.join(faults[:5])}{more}.",
            mend=mend,
        )
    module.load_state_dict({name: weights[name].to(own[name].dtype) for name in own})


def _read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, dict(header)  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read as safetensors: {error}.",
            mend="Was the copy interrupted? Copy it again.",
        ) from None


def require_files(folder: Path) -> None:
    """CheckpointError, with what was found, for a folder that is no whole model."""
    if not folder.is_dir():
        raise CheckpointError(
            f"'{folder}' is not a folder.", mend="Give the folder that 'firstwords train' wrote."
        )
    if (kind := kind_of_folder(folder)) not in (None, MODEL):
        raise CheckpointError(
            f"'{folder}' is {kind}, not the folder of a recogniser.",
            mend="Give the folder that 'firstwords train' wrote.",
        )
    missing = [name for name in (RECIPE, WEIGHTS, TOKENIZER) if not (folder / name).exists()]
    if missing:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
        if any((folder / name).exists() for name in ("features.onnx", "tokens.txt")):
            raise CheckpointError(
                f"'{folder}' holds parts of an exported bundle, and its bundle.json is missing.",
                mend="Export it again, or copy the whole folder.",
            )
        if (folder / "state.safetensors").exists() and (folder / "state.json").exists():
            run = folder.absolute().parent.parent
            raise CheckpointError(
                f"'{folder}' is what a training goes on from, not a model: of a run, only its folder is one.",
                mend=f"Give the folder of its run, {quoted(run)}: it holds the best weights so far.",
            )
        mend = "Was the copy interrupted?"
        if not any(folder.glob("resume/best-*")):
            if (folder / "resume").is_dir():
                mend = (
                    "Its training has not reached a first validation: run the same 'firstwords train' again."
                )
        elif missing == [WEIGHTS]:
            mend = "Run the same 'firstwords train' again: it writes the model anew from its best weights."
        raise CheckpointError(
            f"'{folder}' is not a model: {', '.join(missing)} missing. Found: {found}.", mend=mend
        )


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names and bytes of a model's weights: equal only if bit for bit the same."""
    total = hashlib.sha256()
    for name in sorted(state):
        total.update(name.encode())
        total.update(state[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
