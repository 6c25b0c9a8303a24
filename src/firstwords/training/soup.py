"""What merged weights are worth on a corpus: dev error, statistics of their own, the gate; the greedy soup.

Batch normalization remembers mean and variance of the activations of the weights it was trained with. Merged
weights give other activations, so their statistics are measured anew in one pass over training speech, as
Izmailov et al., 2018, arXiv:1803.05407, section 3.2, do for averages of one run. The gate of a merged model
is measured as that of a trained one (training/gate.py): those of the parents judge other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from firstwords.data.manifest import Corpus
from firstwords.data.places import Item
from firstwords.data.voices import voice_of
from firstwords.device import choose_compute
from firstwords.errors import CorpusError, FirstwordsError
from firstwords.model.merging import Parent
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.search.speech_gate import SpeechGate, closed_vocabulary
from firstwords.search.tuning import refuse_kept
from firstwords.tensors import Padded
from firstwords.text.normalize import normalizer, writes_spaces
from firstwords.text.tokenizer import Tokenizer
from firstwords.training.distributed import Processes
from firstwords.training.feeding import Feeding
from firstwords.training.gate import choose_gate
from firstwords.training.prepare import Prepared, recordings, within
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask
from firstwords.training.tasks.task import Validation

RENEWAL_SECONDS = 1800.0  # of training speech at most, for the statistics of batch normalization
Say = Callable[[str], None]


@dataclass
class Tasting:
    """A corpus that merged models are tried on.

    Error rates compare with those of the parents' cards where these were made on the same split.

    Args:
        split: what errors are counted on; what the models were trained on, and one that is called test, are
            refused.
        say: told what could not be used.
    """

    corpus: Corpus
    split: str
    recipe: Recipe
    tokenizer: Tokenizer
    device: str = "auto"
    say: Say = lambda _: None
    _train: list[Item] = field(init=False)
    _dev: list[Item] = field(init=False)

    def __post_init__(self) -> None:
        refuse_kept(self.split)
        seed, settings = self.recipe.seed, self.recipe.training
        self._compute = choose_compute(self.device, "fp32")
        dev = self._items(self.split)
        if not any(item.text for item in dev):
            known = ", ".join(f"'{name}'" for name in self.corpus.splits) or "none"
            raise CorpusError(
                f"'{self.corpus.folder}' has no usable utterance with a transcript in split '{self.split}' "
                f"(splits found: {known}).",
                mend="Choose one with --split.",
            )
        self._dev = within(dev, settings.max_validation_seconds, seed)
        self._train = self._items("train")
        self._words = frozenset[str]()
        texts = [item.text for item in self._train if item.text]
        if self.recipe.text.closed and writes_spaces(texts):
            self._words = closed_vocabulary(texts)
        try:
            negatives = recordings(self.recipe.data.negative_folders, self.recipe)
        except FirstwordsError as error:
            self.say(f"The gate is measured on made-up noise alone: {error.what}")
            negatives = []
        heard = Prepared([], self._dev, negatives)
        feeding = Feeding(self.recipe, heard, self._compute, Processes(), Path())
        self._speech, self._noise = feeding.dev(), feeding.non_speech()

    def renew(self, model: SpeechModel) -> bool:
        """Measure the statistics of batch normalization anew; False where there is nothing to measure."""
        if not batch_norms(model):
            return False
        if not self._train:
            self.say("No split 'train': the statistics of batch normalization stay those of the parents.")
            return False
        items = within(self._train, RENEWAL_SECONDS, self.recipe.seed)
        feeding = Feeding(self.recipe, Prepared([], items), self._compute, Processes(), Path())
        model.to(self._compute.device)
        renew_statistics(model, (batch.audio for batch in feeding.dev()))
        return True

    def error(self, model: SpeechModel) -> Validation:
        """Quick decoding of dev, as in training; the objective is the CER."""
        return self._task(model).validate(self._speech)

    def measure(self, model: SpeechModel) -> tuple[Validation, SpeechGate]:
        """Error on dev, and how sure this model must be of a text before it counts as speech."""
        task = self._task(model)
        found = task.validate(self._speech)
        return found, SpeechGate(choose_gate(task.heard, task.answers(self._noise)), self._words)

    def _task(self, model: SpeechModel) -> RecognitionTask:
        return RecognitionTask(
            model.to(self._compute.device),
            self.tokenizer,
            compute=self._compute,
            masking=None,
            settings=RecognitionSettings(scoring=normalizer(self.recipe.text.scoring)),
            words=self._words,
        )

    def _items(self, split: str) -> list[Item]:
        """Utterances that a training could use; a validation reads no tokens."""
        data, normalize = self.recipe.data, normalizer(self.recipe.text.normalizer)
        return [
            Item(u.id, u.audio, u.start, u.duration, normalize(u.text), (), voice=voice_of(u))
            for u in self.corpus.split(split)
            if u.text is not None and data.min_duration <= u.duration <= data.max_duration
        ]


def batch_norms(model: torch.nn.Module) -> list[MaskedBatchNorm]:
    """The layers whose statistics depend on the weights below them."""
    return [module for module in model.modules() if isinstance(module, MaskedBatchNorm)]


@torch.no_grad()
def renew_statistics(model: SpeechModel, batches: Iterator[Padded]) -> None:
    """Running statistics become the means over these batches of audio; all else stays as it is.

    Layers are in evaluation mode but for batch normalization, so that each normalizes by the batch and the
    layers above see what they will see once the statistics have settled.
    """
    norms = batch_norms(model)
    place = next(model.parameters()).device
    model.eval()
    with _training(norms):
        for number, audio in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / number  # the first batch replaces what was there
            model.encode(Padded(audio.values.to(place), audio.lengths.to(place)))


@contextmanager
def _training(norms: Sequence[MaskedBatchNorm]) -> Generator[None]:
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.train()
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.eval()
            norm.momentum = momentum


class Tasted(NamedTuple):
    """One step of a greedy soup: the model that was tried, the error with it, and whether it stayed."""

    parent: Parent
    error: float
    kept: bool


def greedy_soup(
    parents: Sequence[Parent], error: Callable[[Sequence[Parent]], float]
) -> tuple[list[Parent], list[tuple[Parent, float]], list[Tasted]]:
    """Models, and the dev error of the average of some -> those of the soup, each alone, every step.

    The best model first; each next one stays if the error does not rise (Wortsman et al., 2022,
    arXiv:2203.05482, recipe 1). So the soup is never worse on dev than the best model alone.
    """
    alone = sorted(((parent, error([parent])) for parent in parents), key=lambda pair: pair[1])
    soup, best = [alone[0][0]], alone[0][1]
    steps = [Tasted(alone[0][0], best, True)]
    for parent, _ in alone[1:]:
        found = error([*soup, parent])
        kept = found <= best
        if kept:
            soup, best = [*soup, parent], found
        steps.append(Tasted(parent, found, kept))
    return soup, alone, steps
