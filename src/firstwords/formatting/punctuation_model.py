"""A small model of text that says for each word which mark follows it and how it is cased.

    words         pieces of letters          (B, L) words, each some hashed pieces
      |           mean of embeddings         (B, L, dim)         Bojanowski et al., 2017, arXiv:1607.04606
      |           bidirectional LSTM         (B, L, 2 hidden)
      +-- marks   (B, L, 1 + marks)          none, ".", ",", ...
      +-- cases   (B, L, 4)                  as is, capital, upper, other

Pieces of letters know words that were never seen by their beginnings and endings, which is what little data
and rich morphology need. The folder:

    punctuation.toml      what it is: language, normalizer, marks, sizes; format = 1
    forms.json            words with capitals inside, as they are written
    weights.safetensors   its header names the fingerprint of both
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from firstwords.config import Config, dump_config, read_config
from firstwords.errors import CheckpointError, ConfigError, TextError
from firstwords.files import staged, write_atomically
from firstwords.folders import COPY_AGAIN, read_file
from firstwords.formatting.punctuation_text import CASES, grams_of
from firstwords.nn.recurrent import BidirectionalLstm
from firstwords.text.normalize import normalizer

HEADER, FORMS, WEIGHTS = "punctuation.toml", "forms.json", "weights.safetensors"


class PunctuatorConfig(Config):
    """What a punctuation model is; ``punctuation.toml``."""

    format: Literal[1] = 1
    kind: Literal["punctuation"] = "punctuation"
    language: str = "und"
    normalizer: str = "default"  # what bare words went through: that of the recogniser
    marks: tuple[str, ...] = ()
    buckets: int = Field(default=16_384, ge=16, le=1 << 22)  # of the pieces' hashes
    dim: int = Field(default=64, ge=4, le=4096)
    hidden: int = Field(default=96, ge=4, le=4096)
    layers: int = Field(default=2, ge=1, le=8)
    dropout: float = Field(default=0.3, ge=0, lt=1)


class Bags(NamedTuple):
    """Words of several rows: the hashed pieces of all, where each word's begin, and words in each row."""

    pieces: Int[Tensor, " pieces"]
    offsets: Int[Tensor, " words"]
    lengths: Int[Tensor, " batch"]


class Scores(NamedTuple):
    """Logits; what lies beyond a row's words is of no meaning."""

    marks: Float[Tensor, "batch words marks"]
    cases: Float[Tensor, "batch words cases"]


@final
class Punctuator(nn.Module):
    """Words -> Scores."""

    def __init__(self, config: PunctuatorConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.EmbeddingBag(config.buckets, config.dim, mode="mean")
        self.layers = nn.ModuleList(
            BidirectionalLstm(config.dim if n == 0 else 2 * config.hidden, config.hidden)
            for n in range(config.layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.marks = nn.Linear(2 * config.hidden, 1 + len(config.marks))
        self.cases = nn.Linear(2 * config.hidden, len(CASES))

    def forward(self, bags: Bags) -> Scores:
        words: Tensor = self.embedding(bags.pieces, bags.offsets)
        lengths = bags.lengths
        longest = int(lengths.max()) if len(lengths) else 0
        x = words.new_zeros(len(lengths), longest, words.shape[1])
        real = torch.arange(longest, device=lengths.device)[None, :] < lengths[:, None]
        x[real] = words
        x = self.dropout(x)
        for layer in self.layers:
            x = self.dropout(layer(x, lengths))
        return Scores(self.marks(x), self.cases(x))

    def bags(self, rows: Sequence[Sequence[str]]) -> Bags:
        """Rows of words (as ``feature`` gives them) -> their hashed pieces."""
        place = self.embedding.weight.device
        found = [_hashed(word, self.config.buckets) for row in rows for word in row]
        offsets = [0]
        for pieces in found[:-1]:
            offsets.append(offsets[-1] + len(pieces))
        return Bags(
            torch.tensor([piece for pieces in found for piece in pieces], dtype=torch.int64, device=place),
            torch.tensor(offsets if found else [], dtype=torch.int64, device=place),
            torch.tensor([len(row) for row in rows], dtype=torch.int64, device=place),
        )


@lru_cache(maxsize=200_000)
def _hashed(word: str, buckets: int) -> tuple[int, ...]:
    return tuple(zlib.crc32(gram.encode("utf-8", "replace")) % buckets for gram in grams_of(word))


@dataclass(frozen=True)
class LoadedPunctuator:
    """A punctuation model and the written forms it knows."""

    model: Punctuator
    forms: Mapping[str, str]

    @property
    def config(self) -> PunctuatorConfig:
        return self.model.config

    @cached_property
    def digest(self) -> str:
        """Fingerprint of all of it: settings, forms, names and bytes of the weights."""
        total = hashlib.sha256(_fingerprint(dump_config(self.config), _dumped(self.forms)).encode())
        for name, value in sorted(self.model.state_dict().items()):
            total.update(name.encode())
            total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()


def save_punctuator(folder: Path, loaded: LoadedPunctuator) -> None:
    """Write (or replace) the folder of a punctuation model: all of it, or WriteError and nothing."""
    header = dump_config(loaded.config)
    forms = _dumped(loaded.forms)
    state = {name: value.detach().cpu().contiguous() for name, value in loaded.model.state_dict().items()}
    content = save_tensors(state, metadata={"fingerprint": _fingerprint(header, forms)})
    with staged(folder, last=(WEIGHTS,)) as new:
        write_atomically(new / HEADER, header)
        write_atomically(new / FORMS, forms)
        write_atomically(new / WEIGHTS, content)


def load_punctuator(folder: Path) -> LoadedPunctuator:
    """Folder -> model, in evaluation mode; what is missing or of other files is a CheckpointError."""
    if not folder.exists():
        raise CheckpointError(
            f"'{folder}' is no punctuation model: there is no such folder.", mend="Check the path."
        )
    if not (folder / HEADER).is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else ""
        raise CheckpointError(
            f"'{folder}' is no punctuation model: {HEADER} is missing (found: {found or 'nothing'}).",
            mend="Train one: 'firstwords punctuation train TEXT --to FOLDER'.",
        )
    try:
        config = read_config(folder / HEADER, PunctuatorConfig, name="punctuation")
        normalizer(config.normalizer)
    except (ConfigError, TextError) as error:
        raise CheckpointError(error.what, mend=error.mend) from None
    header, forms = read_file(folder, HEADER).decode(), read_file(folder, FORMS)
    tensors, fingerprint = _tensors(folder)
    if fingerprint != _fingerprint(header, forms.decode(errors="replace")):
        raise CheckpointError(
            f"'{folder}': {WEIGHTS} was not saved with these {HEADER} and {FORMS} (fingerprints differ).",
            mend=COPY_AGAIN,
        )
    model = Punctuator(config)
    try:
        model.load_state_dict(tensors)
        known: Any = json.loads(forms)
    except (RuntimeError, ValueError, RecursionError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(
            f"'{folder}' holds no model of these sizes: {first}.", mend=COPY_AGAIN
        ) from None
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise CheckpointError(f"'{folder / WEIGHTS}' holds weights that are no numbers.", mend=COPY_AGAIN)
    written = cast("dict[Any, Any]", known) if isinstance(known, dict) else {}
    return LoadedPunctuator(model.eval(), {str(k): str(v) for k, v in written.items()})


def _dumped(forms: Mapping[str, str]) -> str:
    return json.dumps(dict(forms), ensure_ascii=False, indent=0, sort_keys=True) + "\n"


def _fingerprint(header: str, forms: str) -> str:
    digest = hashlib.sha256(header.replace("\r\n", "\n").encode())
    digest.update(forms.replace("\r\n", "\n").encode())
    return digest.hexdigest()


def _tensors(folder: Path) -> tuple[dict[str, Tensor], str]:
    content = read_file(folder, WEIGHTS)
    try:
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        return load_tensors(content), str(metadata.get("fingerprint"))
    except (ValueError, AttributeError, KeyError, RecursionError, SafetensorError) as error:
        raise CheckpointError(
            f"'{folder / WEIGHTS}' is no safetensors file: {error}.", mend=COPY_AGAIN
        ) from None
