"""A corpus that a model is tried on: batches that its units are judged by, and its error on dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from firstwords.compression.importance import LossOf
from firstwords.data.batch import Batch
from firstwords.data.manifest import Corpus
from firstwords.data.places import Item
from firstwords.device import Compute, choose_compute
from firstwords.errors import CorpusError
from firstwords.model.checkpoint import LoadedModel
from firstwords.model.speech_model import SpeechModel
from firstwords.search.speech_gate import SpeechGate
from firstwords.text.normalize import normalizer
from firstwords.training.distributed import Processes
from firstwords.training.feeding import Feeding
from firstwords.training.gate import choose_gate
from firstwords.training.prepare import Prepared, prepare
from firstwords.training.soup import RENEWAL_SECONDS, batch_norms, renew_statistics
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask
from firstwords.training.tasks.task import Validation

BATCHES = 10  # that importance is measured on
BATCH_SECONDS = 30.0  # of audio in each


@dataclass
class Trial:
    """The train and dev splits of a corpus, as the model's own training would read them."""

    corpus: Corpus
    start: LoadedModel
    device: str = "auto"

    def __post_init__(self) -> None:
        recipe = self.start.recipe
        self._compute: Compute = choose_compute(self.device, "fp32")
        self._prepared = prepare(self.corpus, recipe, self.start.tokenizer, self.start.model)
        self._heard = [item for item in self._prepared.train if item.audio is not None and item.text]
        if not self._heard:
            raise CorpusError(
                f"No training utterance of '{self.corpus.folder}' has a transcript.",
                mend="Check the column or files that 'firstwords import' took the text from.",
            )

    @property
    def notes(self) -> list[str]:
        """What a user should know of the corpus."""
        return self._prepared.notes

    def losses(self, model: SpeechModel, *, batches: int = BATCHES, seed: int = 1) -> list[LossOf]:
        """So many batches of training speech, the same ones each time; less where there is less."""
        order = np.random.default_rng([seed, 11]).permutation(len(self._heard)).tolist()
        chosen: list[Item] = []
        seconds = 0.0
        for place in order:
            if seconds >= batches * BATCH_SECONDS:
                break
            chosen.append(self._heard[place])
            seconds += self._heard[place].duration
        task = self._task(model)
        return [_loss_of(task, batch) for batch in self._feeding(chosen, BATCH_SECONDS).dev()]

    def error(self, model: SpeechModel) -> Validation:
        """Error rates on dev, decoded as quickly as in training."""
        return self._task(model).validate(self._feeding(self._prepared.dev).dev())

    def measure(self, model: SpeechModel) -> tuple[Validation, SpeechGate]:
        """Error on dev, and how sure this model must be of a text before it counts as speech."""
        task = self._task(model)
        found = task.validate(self._feeding(self._prepared.dev).dev())
        noise = self._feeding([]).non_speech()
        return found, SpeechGate(choose_gate(task.heard, task.answers(noise)), self.start.speech_gate.words)

    def renew(self, model: SpeechModel) -> bool:
        """Measure the statistics of batch normalization anew; False where there are none."""
        if not batch_norms(model):
            return False
        items: list[Item] = []
        seconds = 0.0
        for item in self._heard:
            if seconds >= RENEWAL_SECONDS:
                break
            items.append(item)
            seconds += item.duration
        model.to(self._compute.device)
        renew_statistics(model, (batch.audio for batch in self._feeding(items).dev()))
        return True

    def _task(self, model: SpeechModel) -> RecognitionTask:
        return RecognitionTask(
            model.to(self._compute.device),
            self.start.tokenizer,
            compute=self._compute,
            masking=None,
            settings=RecognitionSettings(scoring=normalizer(self.start.recipe.text.scoring)),
            words=self.start.speech_gate.words,
        )

    def _feeding(self, items: Sequence[Item], batch_seconds: float | None = None) -> Feeding:
        recipe = self.start.recipe
        if batch_seconds is not None:
            training = recipe.training.model_copy(update={"batch_seconds": batch_seconds})
            recipe = recipe.model_copy(update={"training": training})
        heard = Prepared([], list(items), self._prepared.negatives)
        return Feeding(recipe, heard, self._compute, Processes(), Path())


def _loss_of(task: RecognitionTask, batch: Batch) -> LossOf:
    def loss() -> Tensor:
        return task.loss(batch).total / max(len(batch.ids), 1)

    return loss
