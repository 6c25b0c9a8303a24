"""Text in, folder of a neural language model out: ``firstwords lm train --kind lstm``.

The loop, its checkpoints, its plan and its log are those of every training (../trainer.py, ../session.py).
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from firstwords.config import read_toml
from firstwords.data.manifest import MANIFEST
from firstwords.device import Compute, choose_compute, choose_device, keep_machine_code, set_threads
from firstwords.errors import TrainingError, UsageError
from firstwords.files import claimed
from firstwords.folders import LANGUAGE_MODEL, refuse_occupied
from firstwords.lm.language_model import HEADER, TOKENIZER, WORDS, kind_of
from firstwords.lm.neural.folder import (
    LONGEST,
    MARK,
    WEIGHTS,
    NeuralHeader,
    NeuralLanguageModel,
    build_network,
    save_neural,
)
from firstwords.text.normalize import normalizer
from firstwords.text.tokenizer import Tokenizer
from firstwords.training.course import conduct, find, numbers_of, optimizer_of
from firstwords.training.distributed import Processes
from firstwords.training.lm.feeding import TextDev, TextLoader, Windows
from firstwords.training.lm.recipe import RECIPE, LmRecipe, LmWanted, read_lm_recipe, write_lm_recipe
from firstwords.training.lm.texts import Sources, Texts, read_texts
from firstwords.training.measure import measure
from firstwords.training.plan import Plan, make_plan
from firstwords.training.progress import Progress
from firstwords.training.resume import IDENTITY, check_identity
from firstwords.training.session import Run
from firstwords.training.settle import RESUME, differences
from firstwords.training.tasks.language_modelling import LanguageModellingTask
from firstwords.training.tasks.task import Validation
from firstwords.training.trainer import Outcome

_PROBES = (0.5, 0.9, 0.2, 1.0)  # places among the batches by cost


@dataclass(frozen=True)
class LmResult:
    """What came of a run.

    Args:
        numbers: of the best weights on dev ("perplexity", "nats", "tokens"); empty before a validation.
    """

    folder: Path
    outcome: Outcome
    steps: int
    elapsed: float
    numbers: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def finished(self) -> bool:
        return self.outcome != "interrupted"


def train_language_model(
    sources: Sources,
    folder: Path,
    wanted: LmWanted,
    *,
    tokenizer: Tokenizer | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> LmResult:
    """Train, or go on training, a neural language model.

    Args:
        tokenizer: whose pieces are the units, where unit = "piece".
    """
    began = time.monotonic()
    set_threads(threads)
    keep_machine_code()
    place = choose_device(device)
    progress = progress or Progress(unit="token")
    with claimed(folder):
        recipe, stored = _recipe(folder, wanted)
        tokenizer = tokenizer if recipe.unit == "piece" else None
        texts = read_texts(sources, recipe, tokenizer)
        if texts.empty:
            progress.say(f"{texts.empty:,} lines without text after normalizer '{recipe.normalizer}'.")
        for line in texts.leaks.told(sources.leaks):
            progress.say(line)
        _settle(folder, recipe, texts, tokenizer, stored=stored)
        precision = recipe.training.precision
        compute = choose_compute(str(place), precision)
        progress.say(f"Computing on {compute.reason}.")
        session = _Session(folder, recipe, texts, tokenizer, compute, progress)
        try:
            return session.run(began)
        finally:
            progress.stop()


def _recipe(folder: Path, wanted: LmWanted) -> tuple[LmRecipe, bool]:
    """The recipe of the run, and whether it stood in the folder."""
    if (folder / MANIFEST).exists():
        raise UsageError(
            f"--to {folder}: this folder is a corpus.", mend="Give the language model a folder of its own."
        )
    if (folder / HEADER).is_file() and (kind := kind_of(folder)) in ("ngram", "mixture"):
        raise UsageError(
            f"--to {folder}: a language model of kind '{kind}' is there.", mend="Give another --to folder."
        )
    if (folder / HEADER).is_file() and not (folder / RESUME).is_dir():
        raise TrainingError(
            f"'{folder}' holds a finished language model and nothing to resume from.",
            mend="Give another --to folder.",
        )
    if not (folder / RECIPE).is_file():
        refuse_occupied(folder, (HEADER, RESUME), kind=LANGUAGE_MODEL)
        recipe = wanted.fresh()
        normalizer(recipe.normalizer)
        return recipe, False
    if "encoder" in read_toml(folder / RECIPE):
        raise UsageError(
            f"--to {folder}: this folder is a recogniser.",
            mend="Give the language model a folder of its own.",
        )
    if not (folder / RESUME).is_dir():
        raise TrainingError(
            f"'{folder}' holds a finished language model and nothing to resume from.",
            mend="Give another --to folder.",
        )
    stored = read_lm_recipe(folder / RECIPE)
    asked = wanted.on(stored)
    changed = list(differences(stored.model_dump(mode="json"), asked.model_dump(mode="json")))
    if changed:
        raise TrainingError(
            f"'{folder}' was begun with another recipe: {'; '.join(changed[:5])}.",
            mend="Leave these settings away to go on with the run, or give another --to folder.",
        )
    return stored, True


def _settle(
    folder: Path, recipe: LmRecipe, texts: Texts, tokenizer: Tokenizer | None, *, stored: bool
) -> None:
    """Write the recipe of a new run, or prove that an old one is the same experiment."""
    resume = folder / RESUME
    begun = bool(list(resume.glob("step-*")))
    if not stored and not begun:
        (resume / IDENTITY).unlink(missing_ok=True)  # of a start that never came to a first step
    identity = {"recipe": recipe.digest, "text": texts.fingerprint}
    if tokenizer is not None:
        identity["tokenizer"] = tokenizer.piece_hash
    check_identity(resume, identity, whole=True)
    if not stored:
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)  # of an earlier start; see _recipe
        write_lm_recipe(folder / RECIPE, recipe)  # last: its presence says that the folder is settled


@dataclass
class _Session:
    """One call of train_language_model, once recipe and text are settled."""

    folder: Path
    recipe: LmRecipe
    texts: Texts
    tokenizer: Tokenizer | None
    compute: Compute
    progress: Progress

    def run(self, began: float) -> LmResult:
        """Everything from the text to the result."""
        recipe, config, texts = self.recipe, self.recipe.training, self.texts
        torch.manual_seed(recipe.seed)
        network = build_network(recipe.network, len(texts.words))
        network.to(self.compute.device)
        header = NeuralHeader(
            kind=recipe.network.kind,
            unit=recipe.unit,
            normalizer=recipe.normalizer,
            pieces=self.tokenizer.piece_hash if self.tokenizer is not None else "",
            network=recipe.network,
        )
        lm = NeuralLanguageModel(header, network, texts.words, texts.seen, self.tokenizer)
        task = LanguageModellingTask(network, self.compute)
        windows = Windows(texts.train, config.window)
        loader = self._loader(windows, config.batch_tokens)
        dev = TextDev(Windows(texts.dev, LONGEST), batch_tokens=config.batch_tokens)
        self._introduce(network, windows)
        found = find(self.folder / RESUME, Processes())
        plan = found.plan
        if plan is not None:
            loader = self._loader(windows, int(plan.batch_seconds))
        else:
            loader, plan = self._plan(task, loader, dev, began)

        def publish(validation: Validation, step: int) -> None:
            del validation, step
            save_neural(self.folder, lm, texts.compared)

        run = Run(
            folder=self.folder / RESUME,
            config=config,
            seed=recipe.seed,
            plan=plan,
            log=found.open_log(),
            progress=self.progress,
            processes=found.processes,
            steps_in_epoch=loader.batches_in_epoch / config.accumulate,
            publish=publish,
        )
        names = (HEADER, WORDS, WEIGHTS, *((TOKENIZER,) if self.tokenizer is not None else ()))
        outcome = conduct(
            run,
            found,
            task,
            loader,
            dev,
            optimizer_of(network, config),
            model=[self.folder / name for name in names],
            began=began,
        )
        numbers = numbers_of(run, outcome, lambda n: f"perplexity {n['perplexity']:.3f}")
        return LmResult(self.folder, outcome, run.step, run.counters.elapsed, numbers)

    def _loader(self, windows: Windows, batch_tokens: int) -> TextLoader:
        return TextLoader(
            windows,
            batch_tokens=batch_tokens,
            max_rows=self.recipe.training.max_sentences,
            seed=self.recipe.seed,
        )

    def _introduce(self, network: torch.nn.Module, windows: Windows) -> None:
        texts = self.texts
        name = "letters" if self.recipe.unit == "char" else "pieces"
        parameters = sum(p.numel() for p in network.parameters())
        sentences, dev_sentences = (int((row[1:] == MARK).sum()) for row in (texts.train, texts.dev))
        units, dev_units = len(texts.train) - 1 - sentences, len(texts.dev) - 1 - dev_sentences
        where = "put aside" if texts.held_out else "of the dev text"
        self.progress.say(
            f"{parameters / 1e6:.2f} M parameters, {len(texts.words)} {name}; to learn {sentences:,} "
            f"sentences with {units:,} {name}; to measure {dev_sentences:,} {where} with {dev_units:,}, of "
            f"which {texts.dev_unknown:,} are unknown ({100 * texts.dev_unknown / max(1, dev_units):.2f} %)."
        )
        if windows.cut:
            self.progress.say(
                f"{windows.cut:,} lines have more than {self.recipe.training.window} {name}: they are read "
                "in parts."
            )

    def _plan(
        self, task: LanguageModellingTask, loader: TextLoader, dev: TextDev, began: float
    ) -> tuple[TextLoader, Plan]:
        """Measure a few batches and one validation, then decide how long the run is."""
        config = self.recipe.training
        costs = loader.costs()
        by_cost = sorted(range(len(costs)), key=lambda n: (costs[n], n))
        chosen = [loader.batch(by_cost[round(p * (len(by_cost) - 1))]) for p in _PROBES]
        measured = measure(task, chosen, lambda: optimizer_of(task.model, config), self.compute.device)
        largest = measured.largest_cost(config.memory_share)
        limit = config.batch_tokens
        if largest < limit:
            limit = max(1, int(largest))
            self.progress.say(
                f"Batches are capped at {limit} tokens instead of {config.batch_tokens}: more would not fit "
                "into the memory."
            )
            loader = self._loader(loader.windows, limit)
        task.validate(dev)
        per_step = sum(costs) / len(costs) * config.accumulate
        seconds = measured.seconds_per_cost * per_step
        plan = make_plan(
            steps=config.steps,
            epochs=config.epochs,
            minutes=config.minutes,
            steps_in_epoch=loader.batches_in_epoch / config.accumulate,
            seconds_per_step=seconds,
            validation_seconds=dev.seconds,
            elapsed=time.monotonic() - began,
            batch_seconds=limit,  # here in tokens
            step_seconds=0.0,
            schedule_scale=1.0,
            validate_every=None if config.validate_every == "auto" else config.validate_every,
        )
        self.progress.say(
            f"Measured: {seconds:.3f} s a step ({per_step / max(seconds, 1e-9):,.0f} tokens per second), "
            f"{dev.seconds:.1f} s a validation."
        )
        return loader, plan
