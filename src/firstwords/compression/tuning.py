"""Training a compressed model for a while, by the loop, the feeding and the recipe that made it.

    tune            a cut model, in a folder that can resume; the teacher is the model before it was cut
    better_of       the same, and what errs less on dev: the tuned model, or the one before
    tune_in_place   a quantized one, for a few minutes in memory: its weights are tied in ways no folder keeps

A fifth of the recipe's rate, in place a tenth, as a cosine; every regulariser as at the end of training; the
tokenizer is the model's, whatever the corpus holds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from firstwords.compression.material import Material
from firstwords.compression.pacing import PacedTask
from firstwords.errors import TrainingError
from firstwords.files import write_atomically
from firstwords.model.checkpoint import RECIPE, TOKENIZER, LoadedModel, load_model
from firstwords.model.recipe import Recipe, write_recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.model.structure import write_structure
from firstwords.training.course import optimizer_of
from firstwords.training.distributed import Processes
from firstwords.training.feeding import Feeding
from firstwords.training.log import MetricsLog
from firstwords.training.measure import measure
from firstwords.training.plan import REFERENCE_STEPS, make_plan
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from firstwords.training.schedule import CosineConfig
from firstwords.training.session import Run
from firstwords.training.settle import RESUME
from firstwords.training.tasks.task import Validation
from firstwords.training.trainer import train

RATE_SHARE = 0.2  # of the recipe's rate
SHORT_RATE_SHARE = 0.1
WORSE = "Fine-tuning made it worse on dev: the weights before it are kept."
_WARMUP = 0.05  # of the run
_FINISHED = "finished"  # a file: nothing is left to do in the folder of a tuning


def tuning_recipe(recipe: Recipe, *, minutes: float, teacher: Path | None) -> Recipe:
    """The recipe of a trained model -> that of its fine-tuning.

    Args:
        teacher: a model that it learns from beside the transcripts, hearing what it hears itself: audio is
            varied, and a shorter way to the answers of clean audio would be of little use for so few steps.
    """
    training = recipe.training
    changes: dict[str, object] = {
        "schedule": CosineConfig(lr=training.schedule.lr * RATE_SHARE, warmup=_WARMUP),
        "schedule_scale": REFERENCE_STEPS,
        "minutes": minutes,
        "steps": None,
        "epochs": None,
        "early_stop": None,
        "sorted_first_epoch": False,
        "freeze_encoder_steps": 0,
    }
    values = recipe.model_dump(mode="json", exclude_none=True)
    values["training"] = training.model_copy(update=changes).model_dump(mode="json", exclude_none=True)
    values.pop("post", None)
    values.pop("distillation", None)  # what the model itself once learned from
    if teacher is not None:
        values["distillation"] = {"teacher": str(teacher.resolve()), "hears": "varied"}
    return Recipe.model_validate(values)


def tune(
    folder: Path,
    start: LoadedModel,
    corpus: Path,
    *,
    minutes: float,
    teacher: Path | None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Train ``start`` in ``folder``, or go on there -> the folder, now a model.

    KeyboardInterrupt where the user stopped it: everything is saved, and the same call goes on.
    """
    if not (folder / RECIPE).is_file():
        (folder / RESUME).mkdir(parents=True, exist_ok=True)
        start.tokenizer.save(folder / TOKENIZER)
        write_structure(folder, start.model.structure)
        recipe = tuning_recipe(start.recipe, minutes=minutes, teacher=teacher)
        write_recipe(folder / RECIPE, recipe)  # last: its presence says that the folder is settled
    result = train_corpus(corpus, folder, start_from=start.folder, device=device, progress=progress)
    if not result.finished:
        raise KeyboardInterrupt
    if not (folder / "model.safetensors").is_file():
        raise TrainingError(
            f"{minutes:g} minutes were too short for a first validation in '{folder}'.",
            mend="Give more --minutes, or --no-tuning.",
        )
    return folder


def better_of(
    folder: Path,
    start: LoadedModel,
    trial: Material,
    corpus: Path,
    *,
    minutes: float,
    teacher: Path | None,
    device: str,
    progress: Progress,
) -> LoadedModel:
    """Tune ``start`` in ``folder``, or go on there -> that model, or ``start`` where it errs less on dev.

    A few minutes of training on little speech may do harm, and no step of compression shall keep harm.
    """
    if not (folder / _FINISHED).is_file():
        tune(folder, start, corpus, minutes=minutes, teacher=teacher, device=device, progress=progress)
        write_atomically(folder / _FINISHED, "")
    tuned = load_model(folder, device="cpu")
    if trial.error(start.model).objective < trial.error(tuned.model).objective:
        progress.say(WORSE)
        return start
    return tuned


def tune_in_place(
    material: Material,
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
    recipe = material.loaded.recipe
    settings = recipe.training
    schedule = CosineConfig(lr=settings.schedule.lr * SHORT_RATE_SHARE, warmup=_WARMUP)
    changes = {"schedule": schedule, "early_stop": None, "sorted_first_epoch": False}
    settings = settings.model_copy(update=changes)
    recipe = recipe.model_copy(update={"training": settings})
    model.to(material.compute.device)
    task = material.task(model, masked=True)

    def optimizer() -> torch.optim.Optimizer:
        return optimizer_of(model, settings)

    with tempfile.TemporaryDirectory(prefix="firstwords-") as scratch:
        feeding = Feeding(recipe, material.prepared, material.compute, Processes(), Path(scratch))
        with feeding.training(0) as loader:
            dev = material.dev
            before = task.validate(dev)
            kept, best = _state(model), before
            chosen = sorted({0, loader.batches_in_epoch // 2, loader.batches_in_epoch - 1})
            batches = [b for n in chosen if (b := loader.batch(n)) is not None]
            measured = measure(task, batches, optimizer, material.compute.device)
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
                progress=material.progress,
                processes=Processes(),
                steps_in_epoch=in_epoch,
                publish=publish,
            )
            run.counters.best = before.objective
            run.counters.elapsed = time.monotonic() - began
            material.progress.say(
                f"dev CER before tuning {100 * before.objective:.2f} %; {plan.steps} steps are planned."
            )
            try:
                material.progress.start()
                outcome = train(PacedTask(task, paced, run), loader, dev, optimizer(), run)
            finally:
                material.progress.stop()
                log.close()
    if outcome == "interrupted":
        raise KeyboardInterrupt
    model.load_state_dict(kept)
    model.eval()
    return best


def _state(model: SpeechModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
