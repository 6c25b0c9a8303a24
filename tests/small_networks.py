"""Small neural language models for tests, with random weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from firstwords.lm.neural.config import LstmLmConfig, TransformerLmConfig
from firstwords.lm.neural.folder import NeuralHeader, NeuralLanguageModel, build_network
from firstwords.lm.ngram_text import splitter
from firstwords.text.tokenizer import BLANK, Tokenizer

KINDS = ("lstm", "transformer")


def small_config(kind: str, *, dropout: float = 0.0) -> LstmLmConfig | TransformerLmConfig:
    if kind == "lstm":
        return LstmLmConfig(dim=12, layers=2, dropout=dropout)
    return TransformerLmConfig(dim=12, layers=2, heads=3, feedforward=24, dropout=dropout)


def small_lm(
    kind: str, sentences: Sequence[str], tokenizer: Tokenizer | None = None, *, seed: int = 3
) -> NeuralLanguageModel:
    """Sentences -> a model that knows their letters (or the tokenizer's pieces) and has learned nothing."""
    split = splitter("char" if tokenizer is None else "piece", tokenizer)
    counts = Counter(unit for sentence in sentences for unit in split(sentence))
    words = (BLANK, "<unk>", *sorted(counts)) if tokenizer is None else tuple(tokenizer.pieces)
    torch.manual_seed(seed)
    config = small_config(kind)
    header = NeuralHeader(
        kind=config.kind,
        unit="char" if tokenizer is None else "piece",
        pieces="" if tokenizer is None else tokenizer.piece_hash,
        network=config,
    )
    seen = np.array([len(sentences), *(counts[w] for w in words[1:])], dtype=np.int64)
    network = build_network(config, len(words)).eval()
    with torch.no_grad():
        network.embedding.bias.normal_()
    return NeuralLanguageModel(header, network, words, seen, tokenizer)
