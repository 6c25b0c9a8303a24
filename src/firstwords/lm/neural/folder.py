"""A neural language model as one folder: enough to score a text.

    lm.toml              kind, unit, normalizer, pieces, [network] its sizes; format = 1
    words.txt            one unit a line, line number - 1 = id; the first is the start and end of a sentence
    model.safetensors    weights, and how often each unit was seen; its header names the files it belongs to
    tokenizer/           unit = "piece": the tokenizer whose pieces these are
    recipe.toml          how it was trained
    compared.toml        with which dev and test its text was compared (lm/compared.py)
    resume/              training only; delete freely

Ids of pieces are those of the tokenizer. A model of letters has ids of its own, of which 1 is <unk>: the
letters seen once while training, and all that are met later. Loading runs no code from the folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from pydantic import model_validator
from torch import Tensor

from firstwords.config import Config, dump_config
from firstwords.errors import CheckpointError
from firstwords.folders import COPY_AGAIN, read_file
from firstwords.lm.compared import Compared
from firstwords.lm.language_model import (
    HEADER,
    TOKENIZER,
    WORDS,
    fingerprint,
    kind_of,
    parse_header,
    safetensors_fault,
    write_folder,
)
from firstwords.lm.neural.config import LstmLmConfig, NetworkConfig, TransformerLmConfig
from firstwords.lm.neural.lstm import LstmLm
from firstwords.lm.neural.model import NeuralLm
from firstwords.lm.neural.transformer import TransformerLm
from firstwords.lm.ngram import SPECIAL
from firstwords.lm.ngram_text import splitter
from firstwords.lm.writing import check_normalizer, check_pieces
from firstwords.text.load import load_tokenizer
from firstwords.text.normalize import normalizer
from firstwords.text.tokenizer import BLANK, Tokenizer

WEIGHTS = "model.safetensors"
SEEN = "seen"  # among the weights: how often each unit stood in the training text
MARK, UNKNOWN = 0, 1  # start and end of a sentence; <unk>, of letters alone
LONGEST = 1 << 12  # tokens of a sentence that are read at once
_TOKENS = 1 << 14  # scored side by side, padding counted


class NeuralHeader(Config):
    """What a model is; ``lm.toml``."""

    format: Literal[1] = 1
    kind: Literal["lstm", "transformer"]
    unit: Literal["char", "piece"]
    normalizer: str = "default"  # what text went through before it was learned
    pieces: str = ""  # unit = "piece": the hash of the tokenizer's pieces
    network: NetworkConfig

    @model_validator(mode="after")
    def kinds_agree(self) -> Self:
        if self.kind != self.network.kind:
            raise ValueError(f"kind = '{self.kind}' and network.kind = '{self.network.kind}' differ")
        return self


@dataclass(frozen=True)
class NeuralLanguageModel:
    """A network and the way from text to its units.

    Args:
        words: id -> unit; the first is <blank>, which marks both ends of a sentence.
        seen: how often each unit stood in the training text; the first counts the sentences.
    """

    header: NeuralHeader
    network: NeuralLm[Any]
    words: tuple[str, ...]
    seen: Int64[np.ndarray, " units"]
    tokenizer: Tokenizer | None = None
    name: str = "the language model"  # for messages

    def units(self, text: str) -> list[str]:
        """Text -> its letters or pieces, after the model's own normalizer."""
        return splitter(self.header.unit, self.tokenizer)(normalizer(self.header.normalizer)(text))

    def ids(self, units: Sequence[str]) -> Int64[np.ndarray, " units"]:
        """Letters or pieces -> ids; letters that the model does not know are <unk>."""
        return np.array([self._id_of.get(unit, UNKNOWN) for unit in units], dtype=np.int64)

    def unknown(self, ids: Int64[np.ndarray, " units"]) -> Bool[np.ndarray, " units"]:
        """True for <unk>, and for pieces of the tokenizer that never stood in the training text."""
        return (self.seen[ids] == 0) | ((ids == UNKNOWN) & (self.header.unit == "char"))

    def log_prob(self, text: str) -> float:
        """log P(text and its end), in nats."""
        return float(self.score([self.ids(self.units(text))])[0].sum())

    @torch.inference_mode()
    def score(
        self, sentences: Sequence[Int64[np.ndarray, " units"]]
    ) -> list[Float64[np.ndarray, " units_and_end"]]:
        """log P of each unit and of the end of each sentence.

        Sentences of like length go side by side; of one longer than LONGEST tokens each part is read alone.
        """
        network = self.network.eval()
        parts = [(n, *part) for n, sentence in enumerate(sentences) for part in _parts(sentence)]
        scores: list[Float64[np.ndarray, " part"]] = [np.zeros(0)] * len(parts)
        order = sorted(range(len(parts)), key=lambda p: -len(parts[p][1]))
        while order:
            longest = len(parts[order[0]][1])
            count = max(1, _TOKENS // longest)
            together, order = order[:count], order[count:]
            read, said = (np.full((len(together), longest), MARK, dtype=np.int64) for _ in range(2))
            for row, p in enumerate(together):
                _, before, after = parts[p]
                read[row, : len(before)], said[row, : len(after)] = before, after
            log_probs = network.logits(network(torch.from_numpy(read).to(network.device))).log_softmax(dim=2)
            columns = torch.from_numpy(said).to(network.device)[:, :, None]
            values = log_probs.gather(2, columns).squeeze(2).double().cpu().numpy()
            for row, p in enumerate(together):
                scores[p] = values[row, : len(parts[p][1])]
        found: list[list[Float64[np.ndarray, " part"]]] = [[] for _ in sentences]
        for (n, *_), values in zip(parts, scores, strict=True):
            found[n].append(values)
        return [np.concatenate(each) for each in found]

    def check_normalizer(self, name: str) -> None:
        """Refuse a model whose units are not what normalizer ``name`` writes."""
        letters = self.words[2:] if self.header.unit == "char" else ()
        check_normalizer(name, self.header.normalizer, self.header.unit, letters, self.name)

    def columns(self, tokenizer: Tokenizer) -> Int64[np.ndarray, " vocabulary"]:
        """Tokenizer id -> id of the network; 0 for 0, <unk> for letters the model does not know.

        A model whose units cannot be the tokenizer's pieces is refused.
        """
        check_pieces(tokenizer, self.header.unit, self.header.pieces, self.name)
        if self.header.unit == "piece":
            return np.arange(len(tokenizer.pieces))
        columns = np.array([MARK, *self.ids(tokenizer.pieces[1:])])
        if (columns[1:] == UNKNOWN).all():
            raise CheckpointError(
                f"{self.name} knows none of the {len(columns) - 1} pieces of this tokenizer: another "
                "vocabulary.",
                mend="Make it anew: 'firstwords lm train TEXT --to LM --unit piece --tokenizer MODEL'.",
            )
        return columns

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {word: n for n, word in enumerate(self.words) if n > (self.header.unit == "char")}


def _parts(
    sentence: Int64[np.ndarray, " units"],
) -> Iterator[tuple[Int64[np.ndarray, " part"], Int64[np.ndarray, " part"]]]:
    """A sentence -> what is read and what is to be said, in parts of at most LONGEST tokens."""
    row = np.concatenate([[MARK], sentence, [MARK]]).astype(np.int64)
    for first in range(0, len(row) - 1, LONGEST):
        yield row[first : min(first + LONGEST, len(row) - 1)], row[first + 1 : first + 1 + LONGEST]


def build_network(config: LstmLmConfig | TransformerLmConfig, vocabulary: int) -> NeuralLm[Any]:
    """Settings and number of units, start and end counted once -> network with random weights."""
    match config:
        case LstmLmConfig():
            return LstmLm(config, vocabulary)
        case TransformerLmConfig():
            return TransformerLm(config, vocabulary)


def save_neural(folder: Path, lm: NeuralLanguageModel, compared: Compared | None = None) -> None:
    """Write (or replace) the folder of a language model: all of it, or WriteError and nothing.

    Args:
        compared: what its text was compared with; None: not known.
    """
    from safetensors.torch import save

    header = dump_config(lm.header).encode()
    words = "".join(f"{word}\n" for word in lm.words).encode()
    weights = {name: value.detach().cpu().contiguous() for name, value in lm.network.state_dict().items()}
    weights[SEEN] = torch.from_numpy(lm.seen)
    content = save(weights, metadata={"fingerprint": fingerprint(header, words)})
    contents = {HEADER: header, WORDS: words, WEIGHTS: content}
    write_folder(folder, contents, lm.tokenizer, compared)


def load_neural(folder: Path | str) -> NeuralLanguageModel:
    """Folder of a language model -> the model; what is missing or of other files is a CheckpointError."""
    folder = Path(folder)
    if (kind := kind_of(folder)) not in ("lstm", "transformer"):
        raise CheckpointError(
            f"'{folder}' holds a language model of kind '{kind}'; an LSTM or Transformer is expected here.",
            mend="Make one: 'firstwords lm train TEXT --kind lstm --to LM'.",
        )
    header = parse_header(folder, NeuralHeader)
    content = read_file(folder, WORDS)
    words = tuple(content.decode(errors="replace").removesuffix("\n").split("\n"))
    tokenizer = load_tokenizer(folder / TOKENIZER) if header.unit == "piece" else None
    if tokenizer is not None and tokenizer.piece_hash != header.pieces:
        raise CheckpointError(f"'{folder}': {TOKENIZER} is of another model than {HEADER}.", mend=COPY_AGAIN)
    weights, stored = _read_weights(folder)
    if stored != fingerprint(read_file(folder, HEADER), content):
        raise CheckpointError(
            f"'{folder}': {WEIGHTS} was not saved with these {HEADER} and {WORDS} (fingerprints differ).",
            mend=COPY_AGAIN,
        )
    first = (BLANK,) if tokenizer is not None else (BLANK, SPECIAL[0])
    if words[: len(first)] != first or (tokenizer is not None and words != tuple(tokenizer.pieces)):
        raise CheckpointError(f"'{folder}': {WORDS} does not hold the units of {HEADER}.", mend=COPY_AGAIN)
    seen = weights.pop(SEEN, torch.zeros(0))
    network = build_network(header.network, len(words))
    own = network.state_dict()
    wrong = [n for n in sorted({*own, *weights}) if n not in own or n not in weights]
    wrong += [n for n in own if n in weights and not _fits(weights[n], own[n])]
    if seen.shape != (len(words),) or seen.dtype is not torch.int64 or bool((seen < 0).any()):
        wrong.append(SEEN)
    if wrong:
        raise CheckpointError(
            f"'{folder}': {WEIGHTS} holds no network of this size: '{wrong[0]}' is missing, unknown, of "
            "another shape or not finite.",
            mend=COPY_AGAIN,
        )
    network.load_state_dict(weights)
    return NeuralLanguageModel(header, network.eval(), words, seen.numpy(), tokenizer, name=f"'{folder}'")


def _fits(stored: Tensor, own: Tensor) -> bool:
    return stored.shape == own.shape and stored.dtype == own.dtype and bool(stored.isfinite().all())


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], str]:
    from safetensors import safe_open

    path = folder / WEIGHTS
    read_file(folder, WEIGHTS)  # says why it cannot be read
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, str(metadata.get("fingerprint"))
    except (safetensors_fault(), OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' is no safetensors file: {error}.", mend=COPY_AGAIN) from None
