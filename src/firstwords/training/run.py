"""``firstwords train``: a corpus folder in, a model folder out.

    RUN/                recipe.toml, tokenizer/ (and structure.json of a cut model it starts from) from the
                        start; the model from the first validation on
    RUN/resume/         what is needed to go on; delete it when training is over

The same call on the same folder goes on where it was, and refuses when recipe or corpus are others.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from firstwords.data.loader import Loader, ValidationLoader
from firstwords.data.manifest import Corpus, load_corpus, write_quarantine
from firstwords.data.sampler import USUAL_COST
from firstwords.device import Compute, choose_compute, keep_machine_code, machine_name, set_threads
from firstwords.features.specaugment import SpecAugment
from firstwords.files import claimed
from firstwords.model.checkpoint import RECIPE, TOKENIZER, WEIGHTS, LoadedModel, save_model
from firstwords.model.recipe import Recipe, read_recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.model.structure import read_structure
from firstwords.search.speech_gate import SpeechGate
from firstwords.text.load import load_tokenizer
from firstwords.text.normalize import normalizer
from firstwords.text.tokenizer import Tokenizer
from firstwords.training.card import CardFacts, write_card
from firstwords.training.course import conduct, find, numbers_of, optimizer_of
from firstwords.training.crew import CREW, crew
from firstwords.training.distillation.begin import begin_distillation
from firstwords.training.distillation.cache import SUFFIX
from firstwords.training.distributed import Processes, join_processes, leave_processes
from firstwords.training.feeding import Feeding
from firstwords.training.fine_tune import FROZEN_SHARE, load_start, take_over
from firstwords.training.gate import choose_gate
from firstwords.training.language_model import freeze_for_deep_fusion, move_in
from firstwords.training.measure import measure
from firstwords.training.plan import Plan, make_plan
from firstwords.training.prepare import Prepared, as_it_was, prepare
from firstwords.training.progress import Progress
from firstwords.training.session import Run
from firstwords.training.settle import RESUME, Wanted, settle
from firstwords.training.tasks.recognition import RecognitionSettings, RecognitionTask
from firstwords.training.tasks.task import Validation
from firstwords.training.trainer import Outcome

_SPEECH_SHARE = 0.15  # of the run, at its start, in which there is no non-speech
_PROBES = (0.5, 0.9, 0.2, 1.0)  # places among the batches by cost


@dataclass(frozen=True)
class TrainingResult:
    """What came of a run.

    Args:
        numbers: of the best weights on dev ("cer", "wer", ...); empty before the first validation.
        left_out: utterances that were not used, and why.
    """

    folder: Path
    outcome: Outcome
    steps: int
    elapsed: float
    numbers: dict[str, float] = field(default_factory=dict[str, float])
    left_out: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def finished(self) -> bool:
        return self.outcome != "interrupted"


def train_corpus(
    corpus_folder: Path,
    run_folder: Path,
    *,
    recipe: Recipe | None = None,
    size: str | None = None,
    minutes: float | None = None,
    start_from: Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train, or go on training, a model on the train and dev splits of a corpus.

    Args:
        recipe: None: chosen from the hours of speech and the machine (choose.py), or that of the folder.
        size: of the Zipformer when the recipe is chosen: nano, tiny, S, M, L or kws.
        minutes: wall clock; overrides the recipe.
        start_from: a model folder to take the encoder from.
        overrides: ``a.b=1`` assignments on the recipe.
        precision: auto, fp32 or bf16; overrides the recipe without changing it.
        workers: loader processes; overrides the recipe without changing it.
    """
    began = time.monotonic()
    set_threads(threads)
    keep_machine_code()
    place = choose_compute(device).device
    processes = join_processes(place, share_batch=CREW in os.environ)
    if place.type == "cuda" and processes.size > 1:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    progress = progress or Progress(quiet=not processes.first)
    with claimed(run_folder) if processes.first else nullcontext():
        corpus, told = as_it_was(load_corpus(corpus_folder), run_folder / RESUME)
        if told:
            progress.say(told)
        start = load_start(start_from) if start_from is not None else None
        wanted = Wanted(recipe, size, minutes, tuple(overrides), start)
        if processes.first:
            settle(corpus, run_folder, wanted, place.type, progress)
            write_quarantine(run_folder / RESUME, corpus.quarantine)
        processes.wait()
        recipe = read_recipe(run_folder / RECIPE)
        chosen = precision if precision is not None else recipe.training.precision
        compute = choose_compute(
            str(place), "bf16" if chosen == "bf16" else "fp32" if chosen == "fp32" else "auto"
        )
        progress.say(f"Computing on {compute.reason}.")
        count = 1 if processes.size > 1 or recipe.training.processes == "auto" else recipe.training.processes
        cores = torch.get_num_threads()
        orders = {
            "corpus_folder": str(corpus_folder),
            "run_folder": str(run_folder),
            "start_from": str(start_from) if start_from is not None else None,
            "device": device,
            "precision": precision,
            "workers": workers,
        }
        with crew(count, orders, threads=max(1, cores // count)) as others:
            if others:
                torch.set_num_threads(max(1, cores // count))
                processes = join_processes(place, others, share_batch=True)
                processes.wait()
                progress.say(f"{count} processes train together, {torch.get_num_threads()} threads each.")
            session = _Session(corpus, run_folder, recipe, compute, processes, progress, start)
            try:
                return session.run(began, workers)
            finally:
                progress.stop()
                leave_processes(processes)
                torch.set_num_threads(cores)


@dataclass
class _Session:
    """One call of train_corpus, once the recipe is settled."""

    corpus: Corpus
    folder: Path
    recipe: Recipe
    compute: Compute
    processes: Processes
    progress: Progress
    start: LoadedModel | None

    def run(self, began: float, workers: int | None) -> TrainingResult:
        """Everything from the recipe to the result."""
        recipe, config = self.recipe, self.recipe.training
        tokenizer = load_tokenizer(self.folder / TOKENIZER)
        torch.manual_seed(recipe.seed)
        model = SpeechModel(recipe, len(tokenizer.pieces), read_structure(self.folder))
        frozen = self._start_from(model, tokenizer)
        prepared = prepare(self.corpus, recipe, tokenizer, model, batch_share=self.processes.batch_share)
        for note in prepared.notes:
            self.progress.say(note)
        model.to(self.compute.device)
        feeding = Feeding(recipe, prepared, self.compute, self.processes, self.folder / RESUME)
        masking = SpecAugment(config.specaugment) if config.specaugment.probability else None
        distillation = begin_distillation(
            recipe,
            model,
            tokenizer,
            self.corpus,
            self.compute,
            masking=masking,
            hear=feeding.clean(),
            folder=self.folder / RESUME,
            rank=self.processes.rank,
        )
        task = RecognitionTask(
            model,
            tokenizer,
            compute=self.compute,
            masking=masking,
            settings=RecognitionSettings(
                scoring=normalizer(recipe.text.scoring),
                consistency_start=config.consistency_start,
                consistency_warmup=config.consistency_warmup,
                mask_warmup=config.mask_warmup,
            ),
            words=prepared.words,
            distillation=distillation,
        )
        self.progress.say(
            f"{model.num_parameters / 1e6:.2f} M parameters, {len(tokenizer.pieces)} pieces; "
            f"{prepared.seconds / 3600:.2f} h to train on, "
            f"{sum(i.duration for i in prepared.dev) / 60:.1f} min to validate on."
        )
        found = find(self.folder / RESUME, self.processes)
        plan = found.plan
        if plan is None and (said := move_in(model, tokenizer, self.start)) is not None:
            self.progress.say(said)
        if freeze_for_deep_fusion(model):
            frozen = False  # nothing thaws later
            self.progress.say("Only the gate of the language model and the output layer learn.")
        with feeding.training(feeding.workers(workers)) as loader:
            dev, non_speech = feeding.dev(), feeding.non_speech()
            if plan is not None:
                loader.sampler = feeding.sampler(plan.batch_seconds)
            else:
                plan = self._plan(task, loader, feeding, dev, time.monotonic() - began)
            epochs = plan.steps * config.accumulate / loader.batches_in_epoch
            loader.source.speech_epochs = math.ceil(_SPEECH_SHARE * epochs)
            if frozen:
                steps = config.freeze_encoder_steps or round(FROZEN_SHARE * plan.steps)
                task.settings = replace(task.settings, frozen_steps=steps)
            facts = self._facts(prepared, model, tokenizer)

            def publish(validation: Validation, step: int) -> None:
                card = write_card(facts, validation, step=step, elapsed=run.counters.elapsed)
                gate = SpeechGate(choose_gate(task.heard, task.answers(non_speech)), prepared.words)
                save_model(self.folder, model, tokenizer, card=card, speech_gate=gate)

            run = Run(
                folder=self.folder / RESUME,
                config=config,
                seed=recipe.seed,
                plan=plan,
                log=found.open_log(),
                progress=self.progress,
                processes=self.processes,
                steps_in_epoch=loader.batches_in_epoch / config.accumulate,
                publish=publish,
            )
            optimizer, model_files = optimizer_of(task.model, config), [self.folder / WEIGHTS]
            outcome = conduct(run, found, task, loader, dev, optimizer, model=model_files, began=began)
        return self._result(run, outcome, prepared)

    def _start_from(self, model: SpeechModel, tokenizer: Tokenizer) -> bool:
        """True where an encoder was taken over and the head is new."""
        if self.start is None:
            return False
        new_head, said = take_over(model, tokenizer, self.start)
        self.progress.say(said)
        return new_head

    def _plan(
        self, task: RecognitionTask, loader: Loader, feeding: Feeding, dev: ValidationLoader, elapsed: float
    ) -> Plan:
        """Measure a few batches and one validation, then decide how long the run is."""
        began = time.monotonic()
        config = self.recipe.training
        by_cost = sorted(range(loader.batches_in_epoch), key=lambda n: (loader.sampler.planned(n).cost, n))
        chosen = [by_cost[round(p * (len(by_cost) - 1))] for p in _PROBES]
        batches = [b for n in chosen if (b := loader.batch(n)) is not None]
        measured = measure(task, batches, lambda: optimizer_of(task.model, config), self.compute.device)
        largest = measured.largest_cost(config.memory_share) / USUAL_COST
        limit, _ = self.processes.same([min(feeding.batch_seconds, largest), 0.0])
        if limit < feeding.batch_seconds:
            self.progress.say(
                f"Batches are capped at {limit:.0f} s instead of {feeding.batch_seconds:g} s: more would not "
                "fit into the memory."
            )
            loader.sampler = feeding.sampler(limit)
        dev.seconds = task.validation_seconds(dev)
        costs = [loader.sampler.planned(n).cost for n in range(loader.batches_in_epoch)]
        mean_cost = sum(costs) / len(costs)
        step = measured.seconds_per_cost * mean_cost * config.accumulate
        elapsed += time.monotonic() - began
        step, validation, elapsed = self.processes.same([step, dev.seconds, elapsed])
        audio = feeding.prepared.epoch_seconds / loader.batches_in_epoch * config.accumulate
        plan = make_plan(
            steps=config.steps,
            epochs=config.epochs,
            minutes=config.minutes,
            steps_in_epoch=loader.batches_in_epoch / config.accumulate,
            seconds_per_step=step,
            validation_seconds=validation,
            elapsed=elapsed,
            batch_seconds=limit,
            step_seconds=audio,
            schedule_scale=None if config.schedule_scale == "auto" else config.schedule_scale,
            validate_every=None if config.validate_every == "auto" else config.validate_every,
        )
        self.progress.say(
            f"Measured: {step:.2f} s a step ({audio / max(step, 1e-9):.0f} audio-seconds per second), "
            f"{validation:.1f} s a validation."
        )
        return plan

    def _facts(self, prepared: Prepared, model: SpeechModel, tokenizer: Tokenizer) -> CardFacts:
        used = {item.id for item in prepared.train}
        utterances = [u for u in self.corpus.usable if u.id in used]
        taught = self.recipe.distillation
        return CardFacts(
            recipe=self.recipe,
            parameters=model.num_parameters,
            pieces=len(tokenizer.pieces),
            hours=prepared.seconds / 3600,
            utterances=len(utterances),
            speakers=len({u.speaker for u in utterances}),
            machine=machine_name(),
            labels={} if taught is None else {"teacher": Path(taught.teacher).name},
        )

    def _result(self, run: Run, outcome: Outcome, prepared: Prepared) -> TrainingResult:
        if self.processes.first and outcome != "interrupted":
            for kept in ("audio-*.cache", f"*{SUFFIX}"):
                for path in (self.folder / RESUME).glob(kept):
                    path.unlink(missing_ok=True)
        numbers = numbers_of(
            run, outcome, lambda n: f"CER {100 * n['cer']:.1f} %, WER {100 * n['wer']:.1f} %"
        )
        return TrainingResult(
            self.folder, outcome, run.step, run.counters.elapsed, numbers, prepared.left_out | run.skipped
        )
