"""A corpus as compression needs it: utterances to calibrate and judge by, and a few minutes of training.

Judging is quick: the likelihood of the transcripts of some dev utterances, or the error rate of all of them
as training measures it. Training is that of ``firstwords train`` (the same loop, feeding and task) at a tenth
of the rate, with the regularisers as they were at the end of training.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from firstwords.compression.pacing import PacedTask
from firstwords.data.batch import Batch
from firstwords.data.loader import ValidationLoader
from firstwords.data.manifest import Corpus
from firstwords.data.places import Item
from firstwords.device import Compute, choose_compute
from firstwords.features.specaugment import SpecAugment
from firstwords.model.checkpoint import LoadedModel
from firstwords.model.speech_model import SpeechModel
from firstwords.search.speech_gate import SpeechGate
from firstwords.tensors import Padded
from firstwords.text.normalize import normalizer
from firstwords.training.distributed import Processes
from firstwords.training.feeding import Feeding
from firstwords.training.gate import choose_gate
from firstwords.training.log import MetricsLog
from firstwords.training.measure import measure
from firstwords.training.plan import REFERENCE_STEPS, make_plan
from firstwords.training.prepare import Prepared, prepare
from firstwords.training.progress import Progress
from firstwords.training.schedule import CosineConfig
from firstwords.training.session import Run
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask
from firstwords.training.tasks.task import Validation
from firstwords.training.trainer import make_optimizer, train

RATE_SHARE = 0.1  # of the recipe's learning rate
_WARMUP = 0.05  # of the run


@dataclass
class Material:
    """A corpus, read as the model's own training read it.

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

    def dev_batches(self, count: int) -> list[Batch]:
        """At most so many dev utterances with text, the same ones each time, in batches."""
        spoken = [item for item in self.prepared.dev if item.text]
        return list(self._feeding(self._some(spoken, count)).dev())

    def calibration(self, count: int) -> Iterator[Padded]:
        """At most so many training utterances, one by one, on the device."""
        heard = [item for item in self.prepared.train if item.audio is not None and item.text]
        for batch in self._feeding(self._some(heard, count)).dev():
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
                place = self.compute.device
                audio = Padded(batch.audio.values.to(place), batch.audio.lengths.to(place))
                targets = Padded(batch.targets.values.to(place), batch.targets.lengths.to(place))
                encoded = model.encode(audio)
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

    def error(self, model: SpeechModel) -> tuple[Validation, SpeechGate]:
        """Error rates on dev as training measures them, and the gate of this model (training/gate.py)."""
        task = self._task(model, masked=False)
        found = task.validate(self._dev)
        noise = self._feeding([]).non_speech()
        return found, SpeechGate(choose_gate(task.heard, task.answers(noise)), self.loaded.speech_gate.words)

    def tune(
        self,
        model: SpeechModel,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        paced: Callable[[float], None] = lambda _: None,
    ) -> Validation:
        """Train a model in place for a while; it keeps the weights that were best on dev, or those it had.

        Args:
            steps: at most; what the recipe says of the length of a run counts for nothing.
            paced: told before each step how far training is, 0 to 1.

        Returns:
            error rates of the weights it keeps.
        """
        began = time.monotonic()
        recipe = self.loaded.recipe
        settings = recipe.training
        schedule = CosineConfig(lr=settings.schedule.lr * RATE_SHARE, warmup=_WARMUP)
        changes = {"schedule": schedule, "early_stop": None, "sorted_first_epoch": False}
        settings = settings.model_copy(update=changes)
        recipe = recipe.model_copy(update={"training": settings})
        model.to(self.compute.device)
        task = self._task(model, masked=True)

        def optimizer() -> torch.optim.Optimizer:
            return make_optimizer(
                model, settings.optimizer, rate=schedule.lr, weight_decay=settings.weight_decay
            )

        with tempfile.TemporaryDirectory(prefix="firstwords-") as scratch:
            feeding = Feeding(recipe, self.prepared, self.compute, Processes(), Path(scratch))
            with feeding.training(0) as loader:
                dev = self._dev
                before = task.validate(dev)
                kept, best = _state(model), before
                chosen = sorted({0, loader.batches_in_epoch // 2, loader.batches_in_epoch - 1})
                batches = [b for n in chosen if (b := loader.batch(n)) is not None]
                measured = measure(task, batches, optimizer, self.compute.device)
                cost = sum(loader.sampler.planned(n).cost for n in range(loader.batches_in_epoch))
                in_epoch = loader.batches_in_epoch / settings.accumulate
                pace = measured.seconds_per_cost * cost / in_epoch
                plan = make_plan(
                    steps=steps,
                    epochs=None,
                    minutes=minutes,
                    steps_in_epoch=in_epoch,
                    seconds_per_step=max(pace, 1e-6),
                    validation_seconds=dev.seconds,
                    elapsed=time.monotonic() - began,
                    batch_seconds=feeding.batch_seconds,
                    step_seconds=feeding.prepared.epoch_seconds / in_epoch,
                    schedule_scale=REFERENCE_STEPS,  # every regulariser as at the end of training
                )

                def publish(validation: Validation, step: int) -> None:
                    nonlocal kept, best
                    del step
                    kept, best = _state(model), validation

                log = MetricsLog(Path(scratch) / "log.jsonl", after=0)
                run = Run(
                    folder=Path(scratch),
                    config=settings,
                    seed=recipe.seed,
                    plan=plan,
                    log=log,
                    progress=self.progress,
                    processes=Processes(),
                    steps_in_epoch=in_epoch,
                    publish=publish,
                )
                run.counters.best = before.objective
                run.counters.elapsed = time.monotonic() - began
                self.progress.say(
                    f"dev CER before tuning {100 * before.objective:.2f} %; {plan.steps} steps are planned."
                )
                try:
                    self.progress.start()
                    outcome = train(PacedTask(task, paced, run), loader, dev, optimizer(), run)
                finally:
                    self.progress.stop()
                    log.close()
        if outcome == "interrupted":
            raise KeyboardInterrupt
        model.load_state_dict(kept)
        model.eval()
        return best

    @cached_property
    def _dev(self) -> ValidationLoader:
        return self._feeding(self.prepared.dev).dev()

    def _feeding(self, items: Sequence[Item]) -> Feeding:
        heard = Prepared([], list(items), self.prepared.negatives)
        return Feeding(self.loaded.recipe, heard, self.compute, Processes(), Path())

    def _some(self, items: Sequence[Item], count: int) -> list[Item]:
        """A seeded choice, in the order given."""
        chosen = np.random.default_rng([self.loaded.recipe.seed, 9]).permutation(len(items))[:count]
        return [items[place] for place in sorted(chosen.tolist())]

    def _task(self, model: SpeechModel, *, masked: bool) -> RecognitionTask:
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


def _state(model: SpeechModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
