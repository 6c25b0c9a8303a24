"""A language model in Hugging Face format: is the folder whole, and what of it is loaded.

    config.json                    the architecture: one that transformers knows, no code of the folder is run
    *.safetensors                  the weights; pickles (pytorch_model.bin) are refused
    tokenizer.json or the like     the tokenizer

Nothing is downloaded unless the model is named as ``hub:ORGANISATION/NAME`` (or ``...@REVISION``): a path
that does not exist is an error, not a name to look for elsewhere.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from firstwords.device import choose_device
from firstwords.errors import CheckpointError, DependencyError, UsageError
from firstwords.folders import LANGUAGE_MODEL, MODEL, kind_of_folder

HUB = "hub:"
Kind = Literal["causal", "masked"]
Dtype = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CLASSES: dict[Kind, str] = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM"}
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_READ_WHOLE, _PLACES, _BLOCK = 64 << 20, 1024, 4096  # bytes, places and bytes that a fingerprint reads
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")


@dataclass(frozen=True)
class LoadedLlm:
    """A model on its device in evaluation mode and its tokenizer; ``limit``: the longest input in tokens."""

    model: Any
    tokenizer: Any
    limit: int | None
    device: torch.device


def load_llm(where: Path | str, kind: Kind, *, device: str = "auto", dtype: Dtype = "auto") -> LoadedLlm:
    """Folder or ``hub:`` name -> the model; every fault is a CheckpointError that lists what was found.

    Args:
        dtype: "auto" is float32 on a CPU and bfloat16 on a GPU.
    """
    if dtype != "auto" and dtype not in _DTYPES:
        raise UsageError(f"'{dtype}' is no number format.", mend="Use auto, fp32, bf16 or fp16.")
    folder = find_llm(where)
    declared = _check(folder, kind)
    transformers = import_transformers()
    place = choose_device(device)
    number = _DTYPES.get(dtype) or (torch.float32 if place.type == "cpu" else torch.bfloat16)
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **safe)
            model, info = getattr(transformers, _CLASSES[kind]).from_pretrained(
                folder, **safe, use_safetensors=True, dtype=number, output_loading_info=True
            )
    # Whatever transformers, tokenizers and safetensors make of a foreign folder; said with what they say.
    except Exception as error:  # noqa: BLE001
        raise CheckpointError(
            f"'{folder}' cannot be loaded as a {kind} language model{declared}: {_first_line(error)}",
            mend="Save the model and its tokenizer anew with save_pretrained(folder), as safetensors.",
        ) from None
    if absent := sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])}):
        raise CheckpointError(
            f"'{folder}': {len(absent)} weights of {type(model).__name__} are missing or of another shape, "
            f"the first is '{absent[0]}'.",
            mend=f"This folder holds another kind of model{declared}; a {kind} language model is needed.",
        )
    if bad := next((name for name, value in model.named_parameters() if not value.isfinite().all()), None):
        raise CheckpointError(
            f"'{folder}': the weight '{bad}' of {type(model).__name__} holds numbers that are not finite.",
            mend="Copy the folder anew; of a model of your own, take a state before its training failed.",
        )
    _check_tokens(folder, model, tokenizer)
    model = model.to(place).eval().requires_grad_(False)
    return LoadedLlm(model, tokenizer, _limit(model, tokenizer), place)


def kind_of(folder: Path) -> Kind:
    """What the folder's config.json says its model was trained as; without a word, causal."""
    path = folder / "config.json"
    return "masked" if path.is_file() and "Masked" in _architecture(path) else "causal"


def import_transformers() -> Any:
    """The optional package, or how to install it."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise DependencyError(
            f"Language models in Hugging Face format need the package 'transformers' ({error}).",
            mend='pip install "firstwords[llm]"',
        ) from None


def find_llm(where: Path | str) -> Path:
    """Path or ``hub:`` name -> the folder; a hub's model is downloaded if it is not in the cache."""
    if isinstance(where, str) and where.startswith(HUB):
        return _download(where.removeprefix(HUB))
    folder = Path(where).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(
            f"'{folder}' is a file; a language model is a folder.",
            mend="Give the folder that holds its config.json.",
        )
    mend = "Check the path."
    if isinstance(where, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", where):
        mend += f" If a model of the Hugging Face hub is meant, write {HUB}{where}: it is then downloaded."
    raise CheckpointError(f"'{folder}' does not exist; nothing was downloaded.", mend=mend)


def llm_fingerprint(folder: Path) -> str:
    """What tells two states of a model folder apart: names and sizes of its files, and what they hold.

    Of files above 64 MB the beginning and 1,024 places spread evenly are read: training moves
    all weights, and reading gigabytes would take longer than many a recording.
    """
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _WANTED for path in folder.glob(pattern) if path.is_file()}):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode(errors="surrogatepass"))
        with path.open("rb") as file:
            if size <= _READ_WHOLE:
                digest.update(file.read())
                continue
            digest.update(file.read(1 << 20))
            for place in range(_PLACES):
                file.seek(place * (size - _BLOCK) // (_PLACES - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:16]


def _download(name: str) -> Path:
    import_transformers()
    hub = importlib.import_module("huggingface_hub")
    repository, _, revision = name.partition("@")
    try:
        return Path(hub.snapshot_download(repository, revision=revision or None, allow_patterns=_WANTED))
    except Exception as error:  # noqa: BLE001 - no network, no such name, no rights: a dozen foreign types
        raise CheckpointError(
            f"'{HUB}{name}' could not be downloaded: {_first_line(error)}",
            mend="Check the name and the network, or download the folder elsewhere and give its path.",
        ) from None


def _check(folder: Path, kind: Kind) -> str:
    """Refuse what is no such model before anything is loaded -> what the folder says it is, for messages."""
    names = sorted(p.name for p in folder.iterdir())
    found = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"
    weights = [name for name in names if name.endswith(".safetensors")]
    mend = "A language model folder holds config.json, *.safetensors and a tokenizer (tokenizer.json)."
    if (own := kind_of_folder(folder)) == LANGUAGE_MODEL:
        raise CheckpointError(
            f"'{folder}' is a language model of 'firstwords lm', not one in Hugging Face format.",
            mend="It takes part in the search: give it with --lm in place of --rescore.",
        )
    if own not in (None, MODEL) or "recipe.toml" in names:
        what = own if own not in (None, MODEL) else "a speech recogniser"
        raise CheckpointError(
            f"'{folder}' is {what}, no language model.",
            mend="Give the folder of a language model in Hugging Face format.",
        )
    if "config.json" not in names:
        raise CheckpointError(
            f"'{folder}' is no language model: config.json is missing. Found: {found}.", mend=mend
        )
    if not weights:
        pickled = [name for name in names if name.endswith(_PICKLES)]
        raise CheckpointError(
            f"'{folder}' has no *.safetensors. Found: {found}.",
            mend=f"'{pickled[0]}' is a pickle, which can run code: have the model saved as safetensors."
            if pickled
            else mend,
        )
    if not any(name in names for name in _TOKENIZERS):
        raise CheckpointError(f"'{folder}' has no tokenizer. Found: {found}.", mend=mend)
    architecture = _architecture(folder / "config.json")
    if kind == "causal" and "Masked" in architecture:
        raise CheckpointError(
            f"'{folder}' is a masked language model ({architecture}), a causal one was asked for.",
            mend="Score with MaskedLlm (pseudo-log-likelihood), or give a causal model.",
        )
    if kind == "masked" and ("CausalLM" in architecture or "LMHead" in architecture):
        raise CheckpointError(
            f"'{folder}' is a causal language model ({architecture}), a masked one was asked for.",
            mend="Score with CausalLlm, or give a masked model.",
        )
    return f" (its config.json says {architecture})" if architecture else ""


def _architecture(path: Path) -> str:
    """The first of the config's architectures, "" where it names none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read: {error}.", mend="Copy the folder anew; was the copy interrupted?"
        ) from None
    if not isinstance(values, dict):
        raise CheckpointError(f"'{path}' is no table of settings.", mend="Copy the folder anew.")
    named = cast("dict[str, Any]", values).get("architectures")
    return str(cast("list[Any]", named)[0]) if isinstance(named, list) and named else ""


def _check_tokens(folder: Path, model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer that writes tokens beyond the model's; added ones that are not used do no harm."""
    special = [getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "mask", "cls", "sep")]
    used = max(int(tokenizer.vocab_size), *(1 + int(token) for token in special if token is not None), 0)
    known = int(model.get_input_embeddings().weight.shape[0])
    if used > known:
        raise CheckpointError(
            f"'{folder}': the tokenizer has {used:,} tokens, {type(model).__name__} knows {known:,}: "
            "they are not of one model.",
            mend="Put the tokenizer that the model was trained with into the folder.",
        )


def _limit(model: Any, tokenizer: Any) -> int | None:
    """Longest input in tokens; None for models without positions of their own (ALiBi, state space)."""
    settings: dict[str, Any] = model.config.get_text_config().to_dict()
    limits = [int(settings[name]) for name in _LIMITS if isinstance(settings.get(name), int)]
    limit = min(limits) if limits else None
    for name, module in model.named_modules():
        # RoBERTa and its kin number positions from padding_idx + 1 on.
        if limit is not None and name.endswith("position_embeddings") and module._get_name() == "Embedding":
            limit -= 0 if module.padding_idx is None else module.padding_idx + 1
    told = int(tokenizer.model_max_length)
    return min(limit, told) if limit is not None else None


@contextmanager
def _quiet(transformers: Any) -> Generator[None]:
    """Loading without bars and advice on the terminal; what was set before is set again."""
    log = transformers.utils.logging
    bars, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."
