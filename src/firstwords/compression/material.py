"""A corpus that a model is tried on: what its parts are judged by, and its error on dev.

Everything is read as the model's own training read it. Judging is quick: the likelihood of some transcripts,
or the error rate of all of dev as training measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.data.batch import Batch
from firstwords.data.loader import ValidationLoader
from firstwords.data.manifest import Corpus
from firstwords.data.places import Item
from firstwords.device import Compute, choose_compute
from firstwords.errors import CorpusError
from firstwords.features.specaugment import SpecAugment
from firstwords.model.checkpoint import LoadedModel
from firstwords.model.speech_model import SpeechModel
from firstwords.search.speech_gate import SpeechGate
from firstwords.tensors import Padded
from firstwords.text.normalize import normalizer
from firstwords.training.distributed import Processes
from firstwords.training.feeding import Feeding
from firstwords.training.gate import choose_gate
from firstwords.training.prepare import Prepared, prepare, within
from firstwords.training.progress import Progress
from firstwords.training.soup import RENEWAL_SECONDS, batch_norms, renew_statistics
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask
from firstwords.training.tasks.task import Validation

BATCHES = 10  # that importance is measured on
BATCH_SECONDS = 30.0  # of audio in each


@dataclass
class Material:
    """The train and dev splits of a corpus.

    Args:
        loaded: whose recipe, tokenizer and encoder decide what can be used.
    """

    corpus: Corpus
    loaded: LoadedModel
    device: str = "auto"
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))

    def __post_init__(self) -> None:
        recipe = self.loaded.recipe
        self.compute: Compute = choose_compute(self.device, "fp32")
        self.prepared = prepare(self.corpus, recipe, self.loaded.tokenizer, self.loaded.model)

    @property
    def notes(self) -> list[str]:
        """What a user should know of the corpus."""
        return self.prepared.notes

    @cached_property
    def spoken(self) -> list[Item]:
        """Training utterances with words; CorpusError where there are none."""
        found = [item for item in self.prepared.train if item.audio is not None and item.text]
        if not found:
            raise CorpusError(
                f"No training utterance of '{self.corpus.folder}' has a transcript.",
                mend="Check the column or files that 'firstwords import' took the text from.",
            )
        return found

    @cached_property
    def spoken_dev(self) -> list[Item]:
        """Dev utterances with words; CorpusError where there are none."""
        found = [item for item in self.prepared.dev if item.text]
        if not found:
            raise CorpusError(
                "No dev utterance has words in it.", mend="Run 'firstwords check' on the corpus."
            )
        return found

    def one_by_one(self, items: Sequence[Item], *, seconds: float) -> Iterator[Batch]:
        """A seeded choice of at most ``seconds`` of audio, each utterance a batch of its own (no padding)."""
        recipe = self.loaded.recipe
        alone = recipe.with_(training=recipe.training.with_(max_utterances=1))
        chosen = within(list(items), seconds, recipe.seed)
        for batch in Feeding(alone, Prepared([], chosen), self.compute, Processes(), Path()).dev():
            yield batch._replace(audio=self._here(batch.audio), targets=self._here(batch.targets))

    def dev_batches(self, count: int) -> list[Batch]:
        """At most so many dev utterances with text, the same ones each time, in batches."""
        spoken = [item for item in self.prepared.dev if item.text]
        return list(self.feeding(self._some(spoken, count)).dev())

    def calibration(self, count: int) -> Iterator[Padded]:
        """At most so many training utterances, one by one, on the device."""
        for batch in self.feeding(self._some(self.spoken, count)).dev():
            for samples, length in zip(batch.audio.values, batch.audio.lengths, strict=True):
                one = samples[: int(length)].unsqueeze(0).to(self.compute.device)
                yield Padded(one, length[None].to(self.compute.device))

    def losses(self, model: SpeechModel, batches: Sequence[Batch]) -> Float[Tensor, " utterances"]:
        """-log P(transcript) of each utterance in nats, over all heads with their weights; without dropout.

        Divided by the mean number of tokens, so that the mean is nats a token. An utterance that a head
        cannot write counts 0.
        """
        found: list[Tensor] = []
        tokens = 0
        model.eval()
        with torch.no_grad():
            for batch in batches:
                targets = self._here(batch.targets)
                encoded = model.encode(self._here(batch.audio))
                total = torch.zeros(len(batch.ids))
                for name, head in model.named_heads():
                    each: Tensor = head.loss(encoded, targets).cpu()
                    total += model.recipe.heads[name].weight * each.masked_fill(~each.isfinite(), 0.0)
                found.append(total)
                tokens += int(targets.lengths.sum())
        every = torch.cat(found)
        return every * (len(every) / max(tokens, 1))

    def loss(self, model: SpeechModel, batches: Sequence[Batch]) -> float:
        """-log P(transcript) in nats a token."""
        return float(self.losses(model, batches).mean())

    def gradients(
        self, model: SpeechModel, *, batches: int = BATCHES, seed: int = 1
    ) -> list[Callable[[], Tensor]]:
        """The loss of so many batches of training speech, each with its graph when it is called.

        The same batches each time; less where there is less.
        """
        order = np.random.default_rng([seed, 11]).permutation(len(self.spoken)).tolist()
        chosen: list[Item] = []
        seconds = 0.0
        for place in order:
            if seconds >= batches * BATCH_SECONDS:
                break
            chosen.append(self.spoken[place])
            seconds += self.spoken[place].duration
        task = self.task(model, masked=False)
        return [_loss_of(task, batch) for batch in self.feeding(chosen, BATCH_SECONDS).dev()]

    def error(self, model: SpeechModel) -> Validation:
        """Error rates on dev, decoded as quickly as in training."""
        return self.task(model, masked=False).validate(self.dev)

    def measure(self, model: SpeechModel) -> tuple[Validation, SpeechGate]:
        """Error on dev, and how sure this model must be of a text before it counts as speech."""
        task = self.task(model, masked=False)
        found = task.validate(self.dev)
        noise = self.feeding([]).non_speech()
        return found, SpeechGate(choose_gate(task.heard, task.answers(noise)), self.loaded.speech_gate.words)

    def renew(self, model: SpeechModel) -> bool:
        """Measure the statistics of batch normalization anew; False where there are none."""
        if not batch_norms(model):
            return False
        items: list[Item] = []
        seconds = 0.0
        for item in self.spoken:
            if seconds >= RENEWAL_SECONDS:
                break
            items.append(item)
            seconds += item.duration
        model.to(self.compute.device)
        renew_statistics(model, (batch.audio for batch in self.feeding(items).dev()))
        return True

    @cached_property
    def dev(self) -> ValidationLoader:
        """All of dev."""
        return self.feeding(self.prepared.dev).dev()

    def feeding(self, items: Sequence[Item], batch_seconds: float | None = None) -> Feeding:
        """These items as dev."""
        recipe = self.loaded.recipe
        if batch_seconds is not None:
            recipe = recipe.with_(training=recipe.training.with_(batch_seconds=batch_seconds))
        heard = Prepared([], list(items), self.prepared.negatives)
        return Feeding(recipe, heard, self.compute, Processes(), Path())

    def _some(self, items: Sequence[Item], count: int) -> list[Item]:
        """A seeded choice, in the order given."""
        chosen = np.random.default_rng([self.loaded.recipe.seed, 9]).permutation(len(items))[:count]
        return [items[place] for place in sorted(chosen.tolist())]

    def task(self, model: SpeechModel, *, masked: bool) -> RecognitionTask:
        """What the model was trained to do, with the masks of its recipe or without any."""
        training = self.loaded.recipe.training
        mask = masked and training.specaugment.probability > 0
        return RecognitionTask(
            model.to(self.compute.device),
            self.loaded.tokenizer,
            compute=self.compute,
            masking=SpecAugment(training.specaugment) if mask else None,
            settings=RecognitionSettings(
                scoring=normalizer(self.loaded.recipe.text.scoring),
                consistency_warmup=training.consistency_warmup,
            ),
            words=self.loaded.speech_gate.words,
        )

    def _here(self, padded: Padded) -> Padded:
        return Padded(padded.values.to(self.compute.device), padded.lengths.to(self.compute.device))


def _loss_of(task: RecognitionTask, batch: Batch) -> Callable[[], Tensor]:
    def loss() -> Tensor:
        return task.loss(batch).total / max(len(batch.ids), 1)

    return loss
