"""Utterances of a corpus as a trained model hears them, one by one and never varied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from firstwords.data.batch import Batch
from firstwords.data.manifest import Corpus
from firstwords.data.places import Item
from firstwords.device import Compute
from firstwords.model.checkpoint import LoadedModel
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import Padded
from firstwords.training.distributed import Processes
from firstwords.training.feeding import Feeding
from firstwords.training.prepare import Prepared, prepare, within


def speech(corpus: Corpus, loaded: LoadedModel) -> Prepared:
    """What of a corpus the model could be trained and validated on; utterances with words alone."""
    prepared = prepare(corpus, loaded.recipe, loaded.tokenizer, loaded.model)
    prepared.train = [item for item in prepared.train if item.audio is not None and item.text]
    prepared.dev = [item for item in prepared.dev if item.text]
    return prepared


def one_by_one(
    items: Sequence[Item], loaded: LoadedModel, compute: Compute, *, seconds: float
) -> Iterator[Batch]:
    """A seeded choice of at most ``seconds`` of audio, each utterance a batch of its own (no padding)."""
    recipe = loaded.recipe
    alone = recipe.with_(training=recipe.training.with_(max_utterances=1))
    chosen = within(list(items), seconds, recipe.seed)
    feeding = Feeding(alone, Prepared([], chosen), compute, Processes(), Path())
    for batch in feeding.dev():
        audio = Padded(batch.audio.values.to(compute.device), batch.audio.lengths.to(compute.device))
        targets = Padded(batch.targets.values.to(compute.device), batch.targets.lengths.to(compute.device))
        yield batch._replace(audio=audio, targets=targets)


def encode_and_write(model: SpeechModel, batch: Batch) -> None:
    """Run every part of a model that recognition runs: encoder, and heads on the transcript."""
    encoded = model.encode(batch.audio)
    for _, head in model.named_heads():
        head.loss(encoded, batch.targets)
