"""What a label-synchronous search asks: how probable is each next token, given the tokens so far?

One interface for attention decoders, CTC prefixes and language models, so that one beam search serves every
sum of them. State goes in and comes out; a scorer itself changes nothing.

Ids are those of the tokenizer. Column 0, where frame-wise models have the blank, is the end of the sentence,
and 0 as the last token is its start:

    last 0        ->  log P(end)  log P(a)  log P(b)      the first token
    last a        ->  log P(end)  log P(a)  log P(b)      after "a"

Laws (tests/laws): token by token equals the whole sentence at once; the rows of a normalized model sum to
one; ``reorder`` commutes with ``score``, and so does ``join``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstwords.errors import SearchError

State = TypeVar("State")


class TokenScorer(ABC, Generic[State]):
    """Natural-log probabilities of the next token, for many sentences (rows) at once.

    A scorer that listens to B utterances wants its rows utterance by utterance, equally many of each.
    """

    @abstractmethod
    def start(self, rows: int) -> State:
        """The state before the first token."""

    @abstractmethod
    def score(
        self, last: Int[Tensor, " rows"], state: State
    ) -> tuple[Float[Tensor, "rows vocabulary"], State]:
        """The tokens chosen last and the state before them -> scores of the next ones, and the state after.

        Tensors may come from another device than the scorer's; scores are on the scorer's.
        """

    @abstractmethod
    def reorder(self, state: State, kept: Int[Tensor, " kept"]) -> State:
        """The state of the rows ``kept``, in their order; a row may be kept several times or not at all."""

    def join(self, states: Sequence[State]) -> State:
        """The rows of all these states as one, for searches in which some sentences grow while others wait.

        Right as it is for states that are a tensor with one entry per row, or a (named) tuple of such; a
        scorer with another kind of state says how, if it shall be used in such a search.
        """
        return cast("State", _joined(self, cast("Sequence[Any]", states)))


def _joined(scorer: object, states: Sequence[Any]) -> Any:
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat(cast("list[Tensor]", list(states)))
    if isinstance(first, tuple):
        parts = [_joined(scorer, part) for part in zip(*states, strict=True)]
        kind = type(cast("tuple[Any, ...]", first))
        return kind(*parts) if hasattr(first, "_fields") else tuple(parts)
    raise SearchError(
        f"{type(scorer).__name__} cannot take part in a search frame by frame: its state is "
        f"{type(first).__name__}, not tensors with one entry per row.",
        mend="Give it a method 'join', or use it with search.kind = 'attention_beam'.",
    )


class AttentionScorer(TokenScorer[State], ABC):
    """A scorer that knows which frames it has looked at."""

    @abstractmethod
    def covered(self, state: State) -> Float[Tensor, " rows"]:
        """Number of frames to which more than half a token's attention has gone so far.

        The coverage of Chorowski and Jaitly, 2016, arXiv:1612.02695.
        """
