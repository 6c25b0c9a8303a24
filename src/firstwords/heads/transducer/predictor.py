"""Predictors: what a transducer has written so far -> a vector for each history.

    stateless    the last tokens alone: embedding, a short convolution, ReLU (Ghodsi et al., 2020)
    lstm         all of it: Graves, 2012, arXiv:1211.3711

A history begins with a blank. Row u of an output has seen the first u tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal, TypeAlias, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.tensors import Padded

State: TypeAlias = tuple[Tensor, ...]  # each with one row per history first
_NO_TOKEN = -1  # before the start
_CHANNELS_PER_GROUP = 4  # of the convolution over the last tokens, as published


class StatelessConfig(Config):
    """Sees the last ``context`` tokens; the better choice for little text."""

    kind: Literal["stateless"] = "stateless"
    dim: PositiveInt = 512
    context: PositiveInt = 2

    @model_validator(mode="after")
    def dim_splits_into_groups(self) -> StatelessConfig:
        if self.context > 1 and self.dim % _CHANNELS_PER_GROUP:
            raise ValueError(f"dim = {self.dim} is not a multiple of {_CHANNELS_PER_GROUP}")
        return self


class LstmConfig(Config):
    """Sees all tokens before."""

    kind: Literal["lstm"] = "lstm"
    dim: PositiveInt = 512
    layers: PositiveInt = 1
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1  # on embeddings and between layers


PredictorConfig: TypeAlias = Annotated[StatelessConfig | LstmConfig, Field(discriminator="kind")]


class Predictor(nn.Module, ABC):
    """Histories -> vectors, all at once in training and token by token in a search."""

    dim: int
    context: int  # how many ids a history begins with, the blank counted

    @abstractmethod
    def forward(self, targets: Padded) -> Float[Tensor, "batch rows dim"]:
        """Target ids (B, U) -> one row more than tokens; rows beyond an utterance's own mean nothing."""

    @abstractmethod
    def start(self, rows: int) -> State:
        """The state before the first blank, for so many histories."""

    @abstractmethod
    def step(self, tokens: Int[Tensor, " rows"], state: State) -> tuple[Float[Tensor, "rows dim"], State]:
        """One more token of each history -> its vector and the next state."""


@final
class StatelessPredictor(Predictor):
    """Embedding, depthwise-like convolution over the last tokens, ReLU."""

    conv: nn.Conv1d | None

    def __init__(self, config: StatelessConfig, vocabulary: int) -> None:
        super().__init__()
        self.dim, self.context = config.dim, config.context
        self.embedding = nn.Embedding(vocabulary, config.dim)
        self.conv = None
        if config.context > 1:
            groups = config.dim // _CHANNELS_PER_GROUP
            self.conv = nn.Conv1d(config.dim, config.dim, config.context, groups=groups, bias=False)

    def forward(self, targets: Padded) -> Float[Tensor, "batch rows dim"]:
        """Target ids (B, U) -> (B, U + 1, D)."""
        blank = torch.nn.functional.pad(targets.values, (1, 0))
        return self.read(torch.nn.functional.pad(blank, (self.context - 1, 0), value=_NO_TOKEN))

    def read(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch rows dim"]:
        """Ids, -1 for none -> a row for each run of ``context`` neighbours."""
        embedded = self.embedding(tokens.clamp_min(0)) * (tokens >= 0)[:, :, None]
        if self.conv is not None:
            embedded = self.conv(embedded.transpose(1, 2)).transpose(1, 2)
        return torch.relu(embedded)

    def start(self, rows: int) -> State:
        """The tokens before the next one: none."""
        return (self.embedding.weight.new_full((rows, self.context - 1), _NO_TOKEN, dtype=torch.int64),)

    def step(self, tokens: Int[Tensor, " rows"], state: State) -> tuple[Float[Tensor, "rows dim"], State]:
        """One more token of each history -> its vector and the tokens before the next."""
        seen = torch.cat((state[0], tokens[:, None]), dim=1)
        return self.read(seen)[:, 0], (seen[:, 1:],)


@final
class LstmPredictor(Predictor):
    """Embedding and LSTM layers."""

    def __init__(self, config: LstmConfig, vocabulary: int) -> None:
        super().__init__()
        self.dim, self.context = config.dim, 1
        self.embedding = nn.Embedding(vocabulary, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(config.dim, config.dim, config.layers, batch_first=True, dropout=between)

    def forward(self, targets: Padded) -> Float[Tensor, "batch rows dim"]:
        """Target ids (B, U) -> (B, U + 1, D)."""
        tokens = torch.nn.functional.pad(targets.values, (1, 0))
        return self.lstm(self.dropout(self.embedding(tokens)))[0]

    def start(self, rows: int) -> State:
        """Hidden and cell values, (rows, layers, D) each: zeros."""
        shape = (rows, self.lstm.num_layers, self.dim)
        return self.embedding.weight.new_zeros(shape), self.embedding.weight.new_zeros(shape)

    def step(self, tokens: Int[Tensor, " rows"], state: State) -> tuple[Float[Tensor, "rows dim"], State]:
        """One more token of each history -> its vector and the next hidden and cell values."""
        hidden, cell = (part.transpose(0, 1).contiguous() for part in state)
        found, (hidden, cell) = self.lstm(self.dropout(self.embedding(tokens))[:, None], (hidden, cell))
        return found[:, 0], (hidden.transpose(0, 1), cell.transpose(0, 1))


def build_predictor(config: StatelessConfig | LstmConfig, vocabulary: int) -> Predictor:
    """Settings and number of pieces, blank included -> predictor."""
    match config:
        case StatelessConfig():
            return StatelessPredictor(config, vocabulary)
        case LstmConfig():
            return LstmPredictor(config, vocabulary)
