"""Language modelling as a training task: -log P of every token and end, perplexity of a dev set.

The network runs in the number format of the machine (autocast), losses in float32; dev is measured in
float32, as ``firstwords lm perplexity`` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from firstwords.device import Compute
from firstwords.heads.numeric import at_least_float32
from firstwords.lm.neural.model import NeuralLm
from firstwords.tensors import real_frames
from firstwords.training.lm.feeding import TextBatch
from firstwords.training.tasks.task import Advice, Loss, Task, Validation


@final
class LanguageModellingTask(Task[TextBatch]):
    """A network that learns what comes next."""

    item: ClassVar[str] = "sentence"
    size: ClassVar[str] = "tokens"
    remedy: ClassVar[str] = "Lower the learning rate"

    def __init__(self, network: NeuralLm[Any], compute: Compute) -> None:
        self.model: nn.Module = network
        self.network = network
        self.compute = compute

    def set_step(self, step: int, count: float) -> None:
        """Nothing depends on the step."""

    def loss(self, batch: TextBatch) -> Loss:
        """Sums over tokens and ends, in nats."""
        with torch.autocast(self.compute.device.type, self.compute.dtype, enabled=self.compute.autocast):
            each = self._each(batch)
        return Loss(each.sum(), {}, float(batch.lengths.sum()), each.detach())

    def validate(self, batches: Iterable[TextBatch]) -> Validation:
        """Nats per token and end (the objective), as perplexity too."""
        training = self.model.training
        self.model.eval()
        nats, tokens = 0.0, 0
        with torch.inference_mode():
            for batch in batches:
                nats += float(self._each(batch).double().sum())
                tokens += int(batch.lengths.sum())
        self.model.train(training)
        mean = nats / max(1, tokens)
        perplexity = math.exp(min(mean, 700.0))
        numbers = {"perplexity": perplexity, "nats": mean, "tokens": float(tokens)}
        return Validation(mean, numbers, (), f"dev perplexity {perplexity:.3f}")

    def watch(self, step: int, progress: float, loss: float, means: Mapping[str, float]) -> Advice | None:
        """Nothing to say."""

    def state(self) -> dict[str, Any]:
        """Nothing but the weights."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing was kept."""

    def names(self, batch: TextBatch) -> tuple[str, ...]:
        """Sentences by number, from 1."""
        return tuple(f"sentence {number + 1}" for number in batch.numbers)

    def halves(self, batch: TextBatch) -> tuple[TextBatch, TextBatch] | None:
        """The first and the second half of the sentences, each trimmed to its own longest."""
        middle = len(batch.numbers) // 2
        if not middle:
            return None
        return _rows(batch, 0, middle), _rows(batch, middle, len(batch.numbers))

    def cost(self, batch: TextBatch) -> float:
        """Tokens, padding counted."""
        return float(batch.read.numel())

    def _each(self, batch: TextBatch) -> Float[Tensor, " batch"]:
        """-log P of each row."""
        read, said, lengths = (part.to(self.compute.device, non_blocking=True) for part in batch[:3])
        logits = at_least_float32(self.network.logits(self.network(read)))
        losses = F.cross_entropy(logits.transpose(1, 2), said, reduction="none")
        return losses.masked_fill(~real_frames(lengths, said.shape[1]), 0).sum(dim=1)


def _rows(batch: TextBatch, start: int, end: int) -> TextBatch:
    lengths = batch.lengths[start:end]
    most = int(lengths.max())
    return TextBatch(
        batch.read[start:end, :most], batch.said[start:end, :most], lengths, batch.numbers[start:end]
    )
