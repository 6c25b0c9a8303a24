"""A language model as one folder, beside a model (``lm/``) or on its own: enough to score a text.

    lm.toml                what it is: kind, unit, order, normalizer, pieces; format = 1
    words.txt              n-gram: one word, letter or piece a line, line number - 1 = id
    ngrams.safetensors     n-gram: the trie of ngram.py; its header names the two files above
    model.safetensors      lstm, transformer: neural/folder.py
    tokenizer/             unit = "piece": the tokenizer whose pieces these are

Loading runs no code from the folder and downloads nothing. The weights are put in their place last, and carry
the fingerprints of what they belong to: a copy stopped half-way is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from firstwords.config import Config, ConfigT, dump_config, read_config, read_toml
from firstwords.errors import CheckpointError, ConfigError, DependencyError, TextError, UsageError, quoted
from firstwords.files import staged, write_atomically
from firstwords.folders import COPY_AGAIN, LANGUAGE_MODEL, MODEL, kind_of_folder, read_file, refuse_occupied
from firstwords.lm.compared import COMPARED, Compared, write_compared
from firstwords.lm.ngram import SPECIAL, UNKNOWN, Level, NgramModel
from firstwords.lm.ngram_text import Unit, splitter
from firstwords.lm.perplexity import score_sentences
from firstwords.lm.tensors_file import parse_tensors
from firstwords.lm.writing import check_normalizer, check_pieces
from firstwords.text.load import load_tokenizer
from firstwords.text.normalize import normalizer
from firstwords.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # models are queried without it, too
    from jaxtyping import Bool, Float64, Int64

_MAKE_ONE = "Make one: 'firstwords lm train TEXT --to LM', or 'firstwords lm import ARPA --to LM'."
HEADER, WORDS, WEIGHTS, TOKENIZER = "lm.toml", "words.txt", "ngrams.safetensors", "tokenizer"
KINDS = ("ngram", "lstm", "transformer", "mixture")  # the others: neural/folder.py, mixture.py


class NgramHeader(Config):
    """What an n-gram model is; ``lm.toml``."""

    format: Literal[1] = 1
    kind: Literal["ngram"] = "ngram"
    unit: Unit
    order: int = Field(ge=1, le=20)
    normalizer: str = "default"  # what text went through before it was counted
    pieces: str = ""  # unit = "piece": the hash of the tokenizer's pieces


@dataclass(frozen=True)
class NgramLanguageModel:
    """An n-gram model and the way from text to its words."""

    header: NgramHeader
    model: NgramModel
    tokenizer: Tokenizer | None = None
    name: str = "the language model"  # for messages

    def units(self, text: str) -> list[str]:
        """Text -> its words, letters or pieces, after the model's own normalizer."""
        return splitter(self.header.unit, self.tokenizer)(normalizer(self.header.normalizer)(text))

    def encode(self, text: str) -> Int64[np.ndarray, " words"]:
        """Text -> ids of its words; those the model does not know are <unk>."""
        return self.model.word_ids(self.units(text))

    def ids(self, units: Sequence[str]) -> Int64[np.ndarray, " words"]:
        """Words, letters or pieces -> ids; those the model does not know are <unk>."""
        return self.model.word_ids(units)

    def unknown(self, ids: Int64[np.ndarray, " words"]) -> Bool[np.ndarray, " words"]:
        """True for <unk>."""
        return ids == UNKNOWN

    def score(
        self, sentences: Sequence[Int64[np.ndarray, " words"]]
    ) -> list[Float64[np.ndarray, " words_and_end"]]:
        """log P of each word and of the end of each sentence."""
        return score_sentences(self.model, sentences)

    def log_prob(self, text: str) -> float:
        """log P(text and its end), in nats."""
        return float(self.model.sentence(self.encode(text)).sum())

    def check_normalizer(self, name: str) -> None:
        """Refuse a model whose words are not what normalizer ``name`` writes."""
        check_normalizer(name, self.header.normalizer, self.header.unit, self.model.words[3:], self.name)

    def columns(self, tokenizer: Tokenizer) -> Int64[np.ndarray, " vocabulary"]:
        """Tokenizer id -> word id, </s> for 0 and <unk> for pieces the model does not know.

        A model whose words cannot be the tokenizer's pieces is refused.
        """
        check_pieces(tokenizer, self.header.unit, self.header.pieces, self.name)
        known = self.model.id_of
        ids = [known.get(p, 0) if p not in SPECIAL else 0 for p in tokenizer.pieces[1:]]
        if not any(ids):
            raise CheckpointError(
                f"{self.name} knows none of the {len(ids)} pieces of this tokenizer: another vocabulary.",
                mend="Make it anew: 'firstwords lm train TEXT --to LM --unit piece --tokenizer MODEL'.",
            )
        return np.array([known["</s>"], *ids], dtype=np.int64)


def save_language_model(folder: Path, lm: NgramLanguageModel, compared: Compared | None = None) -> None:
    """Write (or replace) the folder of a language model: all of it, or WriteError and nothing.

    Args:
        compared: what its text was compared with; None: not known.
    """
    library = _safetensors()
    model = lm.model
    words = "".join(f"{word}\n" for word in model.words).encode()
    header = dump_config(lm.header).encode()
    tensors = {
        "counts": np.array(model.counts, dtype=np.int64),
        "parent": model.parent[1:].astype(np.int32),
        "word": model.word[1:],
        "log_prob": model.log_prob[1:],
        "backoff": model.backoff[1:],
    }
    content = library.save(tensors, metadata={"fingerprint": fingerprint(header, words)})
    contents = {HEADER: header, WORDS: words, WEIGHTS: content}
    write_folder(folder, contents, lm.tokenizer, compared)


def write_folder(
    folder: Path, contents: Mapping[str, bytes], tokenizer: Tokenizer | None, compared: Compared | None
) -> None:
    """Write (or replace) the folder of a language model: all of it, or WriteError and nothing.

    Args:
        contents: of its files by name; the last is put in its place last.
        compared: what its text was compared with; None: not known.
    """
    with staged(folder, last=tuple(contents)[-1:], gone=() if compared else (COMPARED,)) as new:
        if compared is not None:
            write_compared(new, compared)
        if tokenizer is not None:
            tokenizer.save(new / TOKENIZER)
        for name, content in contents.items():
            write_atomically(new / name, content)


def load_language_model(folder: Path | str) -> NgramLanguageModel:
    """Folder of a language model -> the model; what is missing or of other files is a CheckpointError."""
    folder = Path(folder)
    lm = read_ngram(folder)
    if lm.header.unit != "piece":
        return lm
    tokenizer = load_tokenizer(folder / TOKENIZER)
    if tokenizer.piece_hash != lm.header.pieces:
        raise CheckpointError(f"'{folder}': {TOKENIZER} is of another model than {HEADER}.", mend=COPY_AGAIN)
    return replace(lm, tokenizer=tokenizer)


def read_ngram(folder: Path | str) -> NgramLanguageModel:
    """The same without the tokenizer, for who knows the pieces and makes no text of his own."""
    folder = Path(folder)
    header = read_header(folder)
    words = read_file(folder, WORDS)
    names = words.decode(errors="replace").removesuffix("\n").split("\n")
    tensors, stored = _tensors(folder)
    if stored != fingerprint(read_file(folder, HEADER), words):
        raise CheckpointError(
            f"'{folder}': {WEIGHTS} was not saved with these {HEADER} and {WORDS} (fingerprints differ).",
            mend=COPY_AGAIN,
        )
    levels = _levels(tensors, len(names), header.order)
    if levels is None or tuple(names[:3]) != SPECIAL:
        raise CheckpointError(f"'{folder}': {WEIGHTS} holds no n-grams of these words.", mend=COPY_AGAIN)
    return NgramLanguageModel(header, NgramModel(names, levels), name=f"'{folder}'")


def kind_of(folder: Path | str) -> str:
    """Which kind of model a folder holds: one of ``KINDS``."""
    kind = header_values(Path(folder)).get("kind", "ngram")
    if kind not in KINDS:
        raise _of_a_later_version(Path(folder), "kind", kind, " or ".join(map(repr, KINDS)))
    return str(kind)


def refuse_others(folder: Path) -> None:
    """Refuse to write an n-gram model where anything else is: a network, a model, somebody's files."""
    if (folder / "resume").is_dir():
        raise UsageError(
            f"--to {folder}: an LSTM or a Transformer is being trained there, or was.",
            mend="Give another --to folder.",
        )
    if (folder / HEADER).is_file() and (kind := kind_of(folder)) != "ngram":
        raise UsageError(
            f"--to {folder}: a language model of kind '{kind}' is there.", mend="Give another --to folder."
        )
    refuse_occupied(folder, (HEADER,), kind=LANGUAGE_MODEL)


def header_values(folder: Path) -> dict[str, Any]:
    """``lm.toml`` of a folder as it stands there, its format checked."""
    if not (folder / HEADER).is_file():
        if folder.is_file():
            raise CheckpointError(
                f"'{folder}' is a file; a language model is a folder.",
                mend=_MAKE_ONE.replace("ARPA", quoted(folder)),
            )
        if (kind := kind_of_folder(folder)) not in (None, MODEL):  # a network has weights of that name, too
            raise CheckpointError(f"'{folder}' is {kind}, not a language model.", mend=_MAKE_ONE)
        if not folder.is_dir():
            raise CheckpointError(
                f"'{folder}' is no language model: there is no such folder.", mend="Check the path."
            )
        if (folder / "config.json").is_file():
            raise CheckpointError(
                f"'{folder}' is a language model in Hugging Face format, not one of 'firstwords lm'.",
                mend="It chooses among the readings that a search found: give it with --rescore.",
            )
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8])
        raise CheckpointError(
            f"'{folder}' is no language model: {HEADER} is missing (found: {found or 'nothing'}).",
            mend="Its training has not reached a first validation: run the same 'firstwords lm train' again."
            if (folder / "resume").is_dir()
            else _MAKE_ONE,
        )
    try:
        values = read_toml(folder / HEADER)
        if values.get("format") != 1:
            raise _of_a_later_version(folder, "format", values.get("format"), "1")
        normalizer(str(values.get("normalizer", "default")))
    except (ConfigError, TextError) as error:
        raise CheckpointError(error.what, mend=error.mend) from None
    return values


def _of_a_later_version(folder: Path, key: str, value: object, known: str) -> CheckpointError:
    return CheckpointError(
        f"'{folder / HEADER}': {key} is {value!r}; this version reads {known}.", mend="Update firstwords."
    )


def read_header(folder: Path) -> NgramHeader:
    """``lm.toml`` of the folder of an n-gram model."""
    if (kind := kind_of(folder)) != "ngram":
        raise CheckpointError(
            f"'{folder}' holds a language model of kind '{kind}'; an n-gram model is expected here.",
            mend="Make one: 'firstwords lm train TEXT --to LM'.",
        )
    return parse_header(folder, NgramHeader)


def parse_header(folder: Path, kind: type[ConfigT]) -> ConfigT:
    """``lm.toml`` of a folder -> its settings."""
    try:
        return read_config(folder / HEADER, kind, name="lm")
    except ConfigError as error:
        raise CheckpointError(error.what, mend=error.mend) from None


def fingerprint(header: bytes, words: bytes) -> str:
    """SHA-256 of the two files that weights belong to."""
    digest = hashlib.sha256(header.replace(b"\r\n", b"\n"))
    digest.update(words)
    return digest.hexdigest()


def _tensors(folder: Path) -> tuple[dict[str, np.ndarray], str]:
    content = read_file(folder, WEIGHTS)
    try:
        tensors, remarks = parse_tensors(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"'{folder / WEIGHTS}' is no safetensors file: {error}.", mend=COPY_AGAIN
        ) from None
    return tensors, str(remarks.get("fingerprint"))


def _levels(tensors: dict[str, np.ndarray], words: int, order: int) -> list[Level] | None:
    """The stored trie by orders; None where it is none."""
    kinds = {"counts": "i8", "parent": "i4", "word": "i4", "log_prob": "f4", "backoff": "f4"}
    if any(n not in tensors or tensors[n].dtype != t or tensors[n].ndim != 1 for n, t in kinds.items()):
        return None
    counts, parent, word = tensors["counts"], tensors["parent"].astype(np.int64), tensors["word"]
    log_prob, backoff = tensors["log_prob"].astype(np.float64), tensors["backoff"].astype(np.float64)
    if len(counts) != order or (counts < 0).any() or counts[0] != words or words < 3:
        return None
    if any(len(part) != counts.sum() for part in (parent, word, log_prob, backoff)):
        return None
    if not (np.isfinite(log_prob).all() and np.isfinite(backoff).all() and (log_prob <= 0).all()):
        return None
    if (word < 0).any() or (word >= words).any() or (np.diff(parent * words + word) <= 0).any():
        return None
    levels: list[Level] = []
    first, below = 0, (0, 1)  # nodes of the order below
    for count in counts.tolist():
        part = slice(first, first + count)
        if count and not (below[0] <= parent[part].min() and parent[part].max() < below[1]):
            return None
        levels.append(Level(parent[part] - below[0], word[part], log_prob[part], backoff[part]))
        below, first = (first + 1, first + count + 1), first + count
    return levels


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError:
        raise DependencyError(
            "Language models need the package 'safetensors'.", mend='pip install "firstwords[train]"'
        ) from None
    return safetensors.numpy


def safetensors_fault() -> type[Exception]:
    """What the library raises."""
    from safetensors import SafetensorError

    return SafetensorError
