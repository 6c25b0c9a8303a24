"""Files of icefall: checkpoints (without running code from them), config.json, tokens.txt."""

from __future__ import annotations

import collections
import json
import pickle
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

import torch
from torch import Tensor

from firstwords.errors import CheckpointError
from firstwords.text.given import is_id
from firstwords.text.tokenizer import BLANK

# Training arguments hold paths. Their classes are replaced by pure ones, which exist on every system and
# touch no file.
_HARMLESS: list[Any] = [
    *((PurePosixPath, f"{module}.{name}") for module in ("pathlib", "pathlib._local")
      for name in ("PosixPath", "PurePosixPath")),
    *((PureWindowsPath, f"{module}.{name}") for module in ("pathlib", "pathlib._local")
      for name in ("WindowsPath", "PureWindowsPath")),
    collections.defaultdict,
    collections.deque,
    dict,
    list,
]  # fmt: skip


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], bool]:
    """.pt file -> (tensors by name, training arguments inside, whether the tensors are an average)."""
    content = _load(path)
    averaged = isinstance(content.get("model_avg"), Mapping)
    chosen: Any = content.get("model_avg") if averaged else content.get("model", content)
    if not isinstance(chosen, Mapping):
        raise CheckpointError(
            f"'{path}': its 'model' is no table of tensors.", mend="Give pretrained.pt or epoch-N.pt."
        )
    named = cast("Mapping[Any, Any]", chosen)
    weights = {
        str(name).removeprefix("module."): value for name, value in named.items() if isinstance(value, Tensor)
    }
    arguments = {str(k): v for k, v in content.items() if isinstance(v, str | int | float | bool)}
    return weights, arguments, averaged


def _load(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise CheckpointError(f"'{path}' does not exist.", mend="Give the .pt file of an icefall model.")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), None)
        if reason is None:
            raise _unreadable(path, error) from None
        raise CheckpointError(
            f"'{path}' holds more than weights, and loading it would run code: {reason}",
            mend="Save its weights alone: torch.save({'model': checkpoint['model']}, 'pretrained.pt').",
        ) from None
    except Exception as error:  # noqa: BLE001 - a damaged file leads torch's unpickler anywhere
        raise _unreadable(path, error) from None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"'{path}' holds a {type(content).__name__}, not a table of tensors.",
            mend="Give pretrained.pt or epoch-N.pt; a TorchScript file (jit_script.pt) cannot be converted.",
        )
    return cast("dict[Any, Any]", content)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"'{path}' cannot be read as a PyTorch file: {reason}",
        mend="Was the download interrupted, or is it a pointer file of git-lfs?",
    )


def read_settings(path: Path) -> dict[str, Any]:
    """config.json -> its arguments, groups like 'encoder' flattened."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is no JSON file: {error}.", mend="Check the path.") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' is no table of arguments.", mend='Expected {"encoder_dim": ...}.')
    table = cast("dict[str, Any]", content)
    flat = {name: value for name, value in table.items() if not isinstance(value, dict)}
    groups = {name: value for name, value in table.items() if isinstance(value, dict)}
    return {**groups.get("conv_embed", {}), **flat, **groups.get("encoder", {})}


def read_tokens(path: Path | None, vocabulary: int) -> list[str]:
    """tokens.txt (lines "piece id") -> pieces by id; others are called <id>; id 0 is the blank."""
    pieces = {i: f"<{i}>" for i in range(1, vocabulary)}
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"'{path}' cannot be read: {error}.", mend="Check the path.") from None
        for number, line in enumerate(lines, start=1):
            parts = line.split()
            if not parts:
                continue
            if len(parts) != 2 or not is_id(parts[1]):
                raise CheckpointError(
                    f"'{path}' line {number}: expected 'piece id', got {line!r}.", mend="Give tokens.txt."
                )
            index = int(parts[1])
            if index < vocabulary:
                pieces[index] = parts[0]
            elif not parts[0].startswith("#"):  # #0, #1 … exist for decoding graphs alone
                raise CheckpointError(
                    f"'{path}' line {number}: id {index}, but the model has {vocabulary} outputs.",
                    mend="Is it the tokens.txt of this model?",
                )
    pieces[0] = BLANK
    ordered = [pieces[i] for i in range(vocabulary)]
    twice = [piece for piece, count in collections.Counter(ordered).items() if count > 1]
    if twice:
        raise CheckpointError(f"'{path}': {twice[0]!r} stands twice.", mend="Give each piece one line.")
    return ordered
