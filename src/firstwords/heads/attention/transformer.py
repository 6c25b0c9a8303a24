"""Transformer decoder: Vaswani et al., 2017, arXiv:1706.03762, section 3.

Owns the decoder layer, the decoder and its scorer, which keeps the keys and values of the tokens before
("cache"), so that a token costs one row of each layer and not the whole sentence again.

Notable features. Norms stand before each part and once at the end (``norm = "pre"``, Xiong et al., 2020,
arXiv:2002.04745) or after each sum as in the paper (``"post"``). Keys and values of the frames are computed
once per utterance; the hypotheses of a search are queries of one attention, so the frames are not copied.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NamedTuple, cast, final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.errors import SearchError
from firstwords.heads.attention.fusion import FusionConfig, Said, build_fusion
from firstwords.heads.attention.objective import (
    Lesson,
    TaughtHead,
    Written,
    log_probs_by_id,
    sentence_loss,
    units_of,
)
from firstwords.heads.numeric import at_least_float32
from firstwords.nn.attention import CausalSelfAttention, KeysValues
from firstwords.nn.linear import Linear
from firstwords.nn.positions import sinusoids
from firstwords.nn.scorer import AttentionScorer
from firstwords.tensors import Padded, real_frames

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "swish": nn.SiLU}


class TransformerDecoderConfig(Config):
    """Settings of a Transformer decoder; the defaults suit ten hours. The paper: 6 layers, 512, 2048."""

    kind: Literal["transformer_decoder"] = "transformer_decoder"
    weight: NonNegativeFloat = 1.0  # factor on the loss of this head; 0.7 beside 0.3 for CTC
    width: PositiveInt = 192
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    feedforward: PositiveInt = 768
    activation: Literal["relu", "gelu", "swish"] = "relu"
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    most_tokens: Annotated[int, Field(ge=2)] = 1024  # of a sentence and its end, with learned positions
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    fusion: FusionConfig | None = None  # with a language model; see fusion.py

    @model_validator(mode="after")
    def width_splits(self) -> TransformerDecoderConfig:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width = {self.width} must be even and a multiple of heads = {self.heads}")
        return self


class Sight(NamedTuple):
    """The frames as one layer sees them."""

    frames: KeysValues
    real: Bool[Tensor, "batch time"]


@final
class FrameAttention(nn.Module):
    """Each token looks at all frames of its utterance."""

    def __init__(self, config: TransformerDecoderConfig, dim: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.ask = Linear(config.width, config.width)
        self.read = Linear(dim, 2 * config.width)
        self.write = Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def sight(self, encoded: Padded) -> Sight:
        """Encoded (B, T, D) -> keys and values, once for all tokens."""
        keys, values = self.read(encoded.values).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return Sight(KeysValues(keys, values), real_frames(encoded.lengths, encoded.values.shape[1]))

    def forward(
        self, x: Float[Tensor, "rows tokens width"], sight: Sight
    ) -> tuple[Float[Tensor, "rows tokens width"], Float[Tensor, "rows tokens time"]]:
        """Tokens of several rows per utterance -> output, and the weights averaged over the heads."""
        keys, values = sight.frames
        batch, time = sight.real.shape
        query = self.ask(x).view(batch, -1, self.heads, keys.shape[3]).transpose(1, 2)
        energies = at_least_float32(query @ keys.transpose(2, 3)) / math.sqrt(keys.shape[3])
        hidden = ~sight.real[:, None, None]
        lowest = torch.finfo(energies.dtype).min  # not -inf: an utterance without frames would give nan
        weights = energies.masked_fill(hidden, lowest).softmax(dim=-1).masked_fill(hidden, 0)
        seen = self.dropout(weights).to(values.dtype) @ values
        out = self.write(seen.transpose(1, 2).reshape(x.shape))
        return out, weights.mean(dim=1).view(*x.shape[:2], time)


@final
class DecoderLayer(nn.Module):
    """Self-attention, attention to the frames, feed-forward, each added to what it reads (figure 1)."""

    def __init__(self, config: TransformerDecoderConfig, dim: int) -> None:
        super().__init__()
        self.before = config.norm == "pre"
        self.self_attention = CausalSelfAttention(config.width, config.heads, config.dropout)
        self.frame_attention = FrameAttention(config, dim)
        self.feedforward = nn.Sequential(
            Linear(config.width, config.feedforward),
            ACTIVATIONS[config.activation](),
            nn.Dropout(config.dropout),
            Linear(config.feedforward, config.width),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "rows tokens width"], sight: Sight, past: KeysValues | None
    ) -> tuple[Float[Tensor, "rows tokens width"], KeysValues, Float[Tensor, "rows tokens time"]]:
        """Tokens -> output, keys and values of all tokens so far, and what was looked at."""
        added, now = self.self_attention(self._read(x, 0), past)
        x = self._add(x, added, 0)
        added, weights = self.frame_attention(self._read(x, 1), sight)
        x = self._add(x, added, 1)
        return self._add(x, self.feedforward(self._read(x, 2)), 2), now, weights

    def _read(self, x: Tensor, part: int) -> Tensor:
        return self.norms[part](x) if self.before else x

    def _add(self, x: Tensor, added: Tensor, part: int) -> Tensor:
        x = x + self.dropout(added)
        return x if self.before else self.norms[part](x)


class DecoderState(NamedTuple):
    """Where R rows stand after some tokens."""

    tokens: int
    past: tuple[KeysValues, ...]  # of each layer; empty before the first token
    attended: Float[Tensor, "rows time"]  # attention that each frame has had in the last layer
    text: Any = ()  # state of the language model, where there is one


@final
class TransformerDecoderHead(TaughtHead):
    """A Transformer decoder.

    Args:
        dim: width of the encoder's output.
        vocabulary: number of pieces, blank included.
    """

    def __init__(self, config: TransformerDecoderConfig, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        learned = config.positions == "learned"
        self.longest = config.most_tokens - 1 if learned else None  # the end has a position too
        self.embedding = nn.Embedding(vocabulary, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)  # times sqrt(width) in ``_embed``
        self.positions = nn.Embedding(config.most_tokens, config.width) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config, dim) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()
        self.fusion = build_fusion(config.fusion, config.width, vocabulary)
        self.output = Linear(self.fusion.features if self.fusion else config.width, vocabulary)

    def lesson_loss(self, encoded: Padded, lesson: Lesson) -> Float[Tensor, " batch"]:
        """-log P(lesson); in training with label smoothing."""
        smoothing = self.config.label_smoothing if self.training else 0.0
        return sentence_loss(self.write(encoded, lesson).logits, lesson, smoothing=smoothing)

    def write(self, encoded: Padded, lesson: Lesson) -> Written:
        """All tokens at once; weights of the last layer.

        Padding stands behind every real token, which therefore never sees it.
        """
        said = None if self.fusion is None else self.fusion.language_model.read(lesson.inputs)
        logits, _, weights = self.step(lesson.inputs, self.sights(encoded), 0, (), said)
        return Written(logits, weights)

    def scorer(self, encoded: Padded) -> TransformerScorer:
        """Encoded (B, T, D) -> a scorer whose rows are B times any number."""
        return TransformerScorer(self, self.sights(encoded))

    def sights(self, encoded: Padded) -> tuple[Sight, ...]:
        """Encoded (B, T, D) -> the frames as each layer sees them."""
        return tuple(cast("DecoderLayer", layer).frame_attention.sight(encoded) for layer in self.layers)

    def step(
        self,
        units: Int[Tensor, "rows tokens"],
        sights: tuple[Sight, ...],
        start: int,
        past: tuple[KeysValues, ...],
        said: Said | None = None,
    ) -> tuple[Float[Tensor, "rows tokens units"], tuple[KeysValues, ...], Float[Tensor, "rows tokens time"]]:
        """Units at the positions from ``start`` on -> logits, the new past, weights of the last layer.

        Args:
            said: by the language model of a head with fusion, after each of the units.
        """
        x = self._embed(units, start)
        now: list[KeysValues] = []
        weights = x.new_zeros(0)
        for n, (layer, sight) in enumerate(zip(self.layers, sights, strict=True)):
            x, own, weights = layer(x, sight, past[n] if past else None)
            now.append(own)
        x = self.norm(x)
        if self.fusion is None or said is None:
            return self.output(x), tuple(now), weights
        return self.fusion(x, said, self.output), tuple(now), weights

    def _embed(self, units: Int[Tensor, "rows tokens"], start: int) -> Float[Tensor, "rows tokens width"]:
        x = self.embedding(units) * math.sqrt(self.config.width)
        end = start + units.shape[1]
        if self.positions is None:
            places = torch.arange(start, end, device=x.device, dtype=torch.float32)
            table = sinusoids(places, self.config.width, halves=True).to(x.dtype)
        elif end <= self.config.most_tokens:
            table = self.positions.weight[start:end]
        else:
            raise SearchError(
                f"A sentence of {end} tokens: this decoder has learned {self.config.most_tokens} positions.",
                mend="Cut the recording, or train with a larger heads.<name>.most_tokens.",
            )
        return self.dropout(x + table)


@final
class TransformerScorer(AttentionScorer[DecoderState]):
    """A decoder at work on one batch."""

    def __init__(self, head: TransformerDecoderHead, sights: tuple[Sight, ...]) -> None:
        self.head = head
        self.sights = sights
        self.real = sights[0].real

    def start(self, rows: int) -> DecoderState:
        """The state before the first token."""
        fusion = self.head.fusion
        text = () if fusion is None else fusion.language_model.start(rows)
        return DecoderState(0, (), torch.zeros(rows, self.real.shape[1], device=self.real.device), text)

    def score(
        self, last: Int[Tensor, " rows"], state: DecoderState
    ) -> tuple[Float[Tensor, "rows vocabulary"], DecoderState]:
        """The tokens chosen last -> scores of the next ones."""
        units = units_of(last.to(self.real.device), self.head.vocabulary)
        said, text = None, state.text
        if self.head.fusion is not None:
            found, text = self.head.fusion.language_model.step(units, text)
            said = Said(*(part[:, None] for part in found))
        logits, past, weights = self.head.step(units[:, None], self.sights, state.tokens, state.past, said)
        after = DecoderState(state.tokens + 1, past, state.attended + weights[:, 0], text)
        return log_probs_by_id(logits[:, 0]), after

    def reorder(self, state: DecoderState, kept: Int[Tensor, " kept"]) -> DecoderState:
        """The state of the rows ``kept``."""
        kept = kept.to(self.real.device)
        past = tuple(KeysValues(layer.keys[kept], layer.values[kept]) for layer in state.past)
        fusion = self.head.fusion
        text = () if fusion is None else fusion.language_model.reorder(state.text, kept)
        return DecoderState(state.tokens, past, state.attended[kept], text)

    def covered(self, state: DecoderState) -> Float[Tensor, " rows"]:
        """Number of frames with more than half a token's attention."""
        return (state.attended > 0.5).sum(dim=1).float()
