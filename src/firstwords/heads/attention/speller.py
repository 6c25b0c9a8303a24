"""The speller of LAS: an LSTM that writes token by token and looks at the frames between (attention).

Chan et al., 2015, arXiv:1508.01211, section 3.2:

    s_i = LSTM([embedding(y_{i-1}); c_{i-1}], s_{i-1})      c_i = Attend(s_i, frames)
    P(y_i | y_<i, audio) = softmax(W [s_i; c_i] + b)        c_0 = 0

Notable features. The attention may know where it looked before (mechanisms.py). Label smoothing, scheduled
sampling (sampling.py) and guided attention (guided.py) act in training mode alone. Embeddings,
their part of the first layer's gates and the outputs are computed for all tokens at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, cast, final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from firstwords.config import Config
from firstwords.heads.attention.fusion import FusionConfig, Said, build_fusion
from firstwords.heads.attention.guided import GuidedConfig, guided_loss, guided_weight
from firstwords.heads.attention.mechanisms import (
    Attention,
    AttentionSettings,
    LocationAttentionConfig,
    Look,
    Memory,
)
from firstwords.heads.attention.objective import (
    Lesson,
    TaughtHead,
    Written,
    log_probs_by_id,
    sentence_loss,
    units_of,
)
from firstwords.heads.attention.recurrent import Linear, LstmCell, many_times
from firstwords.heads.attention.sampling import SamplingConfig, predicted, sampling_share, toss
from firstwords.heads.numeric import at_least_float32
from firstwords.nn.scorer import AttentionScorer
from firstwords.tensors import Padded


class SpellerConfig(Config):
    """Settings of a speller and of the losses that go with it."""

    kind: Literal["speller"] = "speller"
    weight: NonNegativeFloat = 1.0  # factor on the loss of this head; 0.7 beside 0.3 for CTC
    width: PositiveInt = 256  # of the LSTM and the embeddings
    layers: PositiveInt = 2
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1  # on embeddings, between layers, before the output
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    attention: AttentionSettings = LocationAttentionConfig()
    sampling: SamplingConfig = SamplingConfig()
    guided: GuidedConfig = GuidedConfig()
    fusion: FusionConfig | None = None  # with a language model; see fusion.py


class SpellerState(NamedTuple):
    """Where R rows stand after some tokens. Every tensor begins with the rows, utterance by utterance."""

    hidden: tuple[Float[Tensor, "rows width"], ...]  # of each layer
    cell: tuple[Float[Tensor, "rows width"], ...]
    context: Float[Tensor, "rows dim"]
    weights: Float[Tensor, "rows heads time"]  # of the last token
    past: Float[Tensor, "rows heads time"]


@final
class SpellerHead(TaughtHead):
    """An LSTM decoder with attention.

    Args:
        dim: width of the encoder's output.
        vocabulary: number of pieces, blank included.
    """

    def __init__(self, config: SpellerConfig, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.longest = None
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.embedded_gates = nn.Linear(config.width, 4 * config.width, bias=False)  # of the first layer
        self.cells = nn.ModuleList(
            LstmCell(dim if n == 0 else config.width, config.width) for n in range(config.layers)
        )
        self.attend = Attention(config.attention, config.width, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.fusion = build_fusion(config.fusion, config.width + dim, vocabulary)
        self.output = nn.Linear(self.fusion.features if self.fusion else config.width + dim, vocabulary)
        self.count = 0.0

    def set_step(self, count: float) -> None:
        """Scheduled sampling and guided attention follow ``count``, in batches of the reference recipe."""
        self.count = count

    def lesson_loss(self, encoded: Padded, lesson: Lesson) -> Float[Tensor, " batch"]:
        """-log P(lesson); in training smoothed, sampled and guided as the settings say."""
        if not self.training:
            return sentence_loss(self.write(encoded, lesson).logits, lesson)
        share = sampling_share(self.config.sampling, self.count)
        written = self.write(encoded, lesson, toss(share, lesson.inputs) if share else None)
        loss = sentence_loss(written.logits, lesson, smoothing=self.config.label_smoothing)
        if weight := guided_weight(self.config.guided, self.count):
            width = self.config.guided.width
            loss = loss + weight * guided_loss(written.weights, lesson.lengths, encoded.lengths, width)
        return loss

    def scorer(self, encoded: Padded) -> SpellerScorer:
        """Encoded (B, T, D) -> a scorer whose rows are B times any number."""
        return SpellerScorer(self, self.attend.memory(encoded))

    def begin(self, memory: Memory, rows: int) -> SpellerState:
        """The state before the first token: zeros, and even weights."""
        frames = memory.frames
        look = self.attend.start(memory, rows // max(frames.shape[0], 1))
        zeros = at_least_float32(frames.new_zeros(rows, self.config.width))  # the cells add up many tokens
        return SpellerState(
            (zeros,) * self.config.layers,
            (zeros,) * self.config.layers,
            frames.new_zeros(rows, frames.shape[2]),
            look.weights.flatten(0, 1),
            look.past.flatten(0, 1),
        )

    def gates_of(self, units: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows gates"]:
        """Units read -> their share of the first layer's gates."""
        return self.embedded_gates(self.dropout(self.embedding(units)))

    def readers(self) -> list[Linear]:
        """The matrix of each layer, for all tokens of one pass."""
        return [many_times(cast("LstmCell", cell).gates) for cell in self.cells]

    def step(
        self,
        gates: Float[Tensor, "rows gates"],
        memory: Memory,
        state: SpellerState,
        readers: Sequence[Linear],
    ) -> tuple[Float[Tensor, "rows features"], SpellerState]:
        """One token: the gates of what was read -> what the output layer sees, and the next state."""
        below = state.context
        hidden, cell = list(state.hidden), list(state.cell)
        for n, layer in enumerate(self.cells):
            below = below if n == 0 else self.dropout(below)
            hidden[n], cell[n] = layer(below, hidden[n], cell[n], gates if n == 0 else None, readers[n])
            below = hidden[n]
        batch = memory.frames.shape[0]
        before = Look(*(x.unflatten(0, (batch, -1)) for x in (state.weights, state.past)))
        context, look = self.attend(below.unflatten(0, (batch, -1)), memory, before)
        context = context.flatten(0, 1)
        features = torch.cat([below, context.to(below.dtype)], dim=1)
        weights, past = look.weights.flatten(0, 1), look.past.flatten(0, 1)
        return features, SpellerState(tuple(hidden), tuple(cell), context, weights, past)

    def write(
        self, encoded: Padded, lesson: Lesson, coins: Bool[Tensor, "batch tokens_and_end"] | None = None
    ) -> Written:
        """Read the lesson's inputs, or one's own prediction where a coin says so."""
        memory = self.attend.memory(encoded)
        state = self.begin(memory, len(lesson.inputs))
        gates = self.gates_of(lesson.inputs)
        sampled = [False] * lesson.inputs.shape[1] if coins is None else coins.any(dim=0).tolist()
        readers = self.readers()
        read = lesson.inputs
        features: list[Tensor] = []
        weights: list[Tensor] = []
        for i, known in enumerate(gates.unbind(dim=1)):
            if coins is not None and sampled[i]:
                with torch.no_grad():
                    own = predicted(self._last_logits(features, read), self.config.sampling.choice)
                known = torch.where(coins[:, i, None], self.gates_of(own), known)
                if self.fusion is not None:
                    read = read.clone()
                    read[:, i] = torch.where(coins[:, i], own, read[:, i])
            feature, state = self.step(known, memory, state, readers)
            features.append(feature)
            weights.append(state.weights)
        said = None if self.fusion is None else self.fusion.language_model.read(read)
        logits = self.logits(self.dropout(torch.stack(features, dim=1)), said)
        return Written(logits, torch.stack(weights, dim=1).mean(dim=2))

    def logits(
        self, features: Float[Tensor, "*rows features"], said: Said | None
    ) -> Float[Tensor, "*rows units"]:
        """What ``step`` gave, and what a language model says where there is one -> scores of units."""
        if self.fusion is None or said is None:
            return self.output(features)
        return self.fusion(features, said, self.output)

    def _last_logits(
        self, features: Sequence[Tensor], read: Int[Tensor, "batch tokens_and_end"]
    ) -> Float[Tensor, "batch units"]:
        """Scores of the token after those read so far.

        The language model reads the sentence again for each sampled token: there are few (``share``).
        """
        if self.fusion is None:
            return self.output(features[-1])
        said = self.fusion.language_model.read(read[:, : len(features)])
        return self.logits(features[-1], Said(said.hidden[:, -1], said.scores[:, -1]))


class Heard(NamedTuple):
    """State of a search: the speller's, and how much attention every frame has had."""

    speller: SpellerState
    attended: Float[Tensor, "rows time"]
    text: Any = ()  # state of the language model, where there is one


@final
class SpellerScorer(AttentionScorer[Heard]):
    """A speller at work on one batch."""

    def __init__(self, head: SpellerHead, memory: Memory) -> None:
        self.head = head
        self.memory = memory

    def start(self, rows: int) -> Heard:
        """The state before the first token."""
        state = self.head.begin(self.memory, rows)
        fusion = self.head.fusion
        text = () if fusion is None else fusion.language_model.start(rows)
        return Heard(state, torch.zeros_like(state.weights[:, 0]), text)

    def score(
        self, last: Int[Tensor, " rows"], state: Heard
    ) -> tuple[Float[Tensor, "rows vocabulary"], Heard]:
        """The tokens chosen last -> scores of the next ones."""
        units = units_of(last.to(self.memory.frames.device), self.head.vocabulary)
        gates = self.head.gates_of(units)
        features, after = self.head.step(gates, self.memory, state.speller, self.head.readers())
        said, text = None, state.text
        if self.head.fusion is not None:
            said, text = self.head.fusion.language_model.step(units, text)
        scores = log_probs_by_id(self.head.logits(self.head.dropout(features), said))
        return scores, Heard(after, state.attended + after.weights.mean(dim=1), text)

    def reorder(self, state: Heard, kept: Int[Tensor, " kept"]) -> Heard:
        """The state of the rows ``kept``."""
        kept = kept.to(self.memory.frames.device)

        def pick(part: Any) -> Any:
            return part[kept] if isinstance(part, Tensor) else tuple(x[kept] for x in part)

        fusion = self.head.fusion
        text = () if fusion is None else fusion.language_model.reorder(state.text, kept)
        return Heard(SpellerState(*(pick(part) for part in state.speller)), state.attended[kept], text)

    def join(self, states: Sequence[Heard]) -> Heard:
        """The rows of all these states; the language model joins its own."""
        joined = super().join([state._replace(text=()) for state in states])
        if self.head.fusion is None:
            return joined
        return joined._replace(text=self.head.fusion.language_model.join([state.text for state in states]))

    def covered(self, state: Heard) -> Float[Tensor, " rows"]:
        """Number of frames with more than half a token's attention."""
        return (state.attended > 0.5).sum(dim=1).float()
