"""What the one training loop drives: recognition, language models, later pre-training, distillation.

Losses are sums, never means. The loop adds up the sums and the sizes of all batches of a step, over
accumulation and over processes, and divides once: two processes, four small batches or one joint batch
give the same gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from torch import Tensor, nn

BatchT = TypeVar("BatchT")


class Loss(NamedTuple):
    """The loss of one batch.

    total   scalar, sum over the utterances (or sentences), float32, with its graph
    parts   what it consists of and what else is worth a curve, as sums like ``total``, without graph
    size    what the sums are divided by: seconds of audio, or tokens; always above 0
    each    (B,) loss of every utterance, without graph, to name the one that is not finite
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    size: float
    each: Tensor


class Sample(NamedTuple):
    """A decoded utterance, to be shown."""

    id: str
    reference: str
    hypothesis: str


class Validation(NamedTuple):
    """Numbers of one pass over the dev set; less ``objective`` is better."""

    objective: float
    numbers: Mapping[str, float]
    samples: tuple[Sample, ...]
    headline: str = ""  # the objective in words; none: it is an error rate


class Advice(NamedTuple):
    """What a task found out about its training: words for the user, and a factor on the rate from now on."""

    message: str
    rate_factor: float = 1.0


class Task(ABC, Generic[BatchT]):
    """A model and what is wanted of it."""

    model: nn.Module
    item: ClassVar[str] = "utterance"  # what batches are made of, in messages
    size: ClassVar[str] = "audio"  # what ``Loss.size`` counts, in the log
    remedy: ClassVar[str] = (
        "Run 'firstwords check' on the corpus, listen to these utterances, or lower the rate"
    )
    has_settings: ClassVar[bool] = True  # its command has --set; without, ``remedy`` says all

    @abstractmethod
    def set_step(self, step: int, count: float) -> None:
        """Before each step: its number, and the batches of the reference recipe it stands for."""

    @abstractmethod
    def loss(self, batch: BatchT) -> Loss:
        """The loss of a batch in training mode."""

    @abstractmethod
    def validate(self, batches: Iterable[BatchT]) -> Validation:
        """Decode a dev set in evaluation mode; leaves the model in the mode it was in."""

    @abstractmethod
    def watch(self, step: int, progress: float, loss: float, means: Mapping[str, float]) -> Advice | None:
        """After each step, with loss and parts per size: may change the task's own settings and say so."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain values that a resumed run must have again (the model's weights apart)."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state`` returned."""

    @abstractmethod
    def names(self, batch: BatchT) -> tuple[str, ...]:
        """Ids of the utterances, in the order of ``Loss.each``."""

    @abstractmethod
    def halves(self, batch: BatchT) -> tuple[BatchT, BatchT] | None:
        """Two batches of half the size; None where there is only one utterance."""

    @abstractmethod
    def cost(self, batch: BatchT) -> float:
        """Predicted use of memory and time, in cost-seconds (see data/sampler.py)."""
