"""Training a cut model for a while, by the loop and the recipe that made it, into a folder that can resume.

A fifth of the recipe's rate, as a cosine; every regulariser as at the end of training; the tokenizer is the
model's, whatever the corpus holds. The teacher, where recipes know one, is the model before it was cut.
"""

from __future__ import annotations

from pathlib import Path

from firstwords.errors import TrainingError
from firstwords.model.checkpoint import RECIPE, TOKENIZER, LoadedModel
from firstwords.model.recipe import Recipe, write_recipe
from firstwords.model.structure import write_structure
from firstwords.training.plan import REFERENCE_STEPS
from firstwords.training.progress import Progress
from firstwords.training.run import train_corpus
from firstwords.training.schedule import CosineConfig
from firstwords.training.settle import RESUME

RATE_SHARE = 0.2  # of the recipe's rate
_WARMUP = 0.05  # of the run
_TEACHER = "distillation"  # section of a recipe that names a model to learn from


def tuning_recipe(recipe: Recipe, *, minutes: float, teacher: Path | None) -> Recipe:
    """The recipe of a trained model -> that of its fine-tuning.

    The hook for distillation: where recipes have a section for it, ``teacher`` is named there.
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
    if teacher is not None and _TEACHER in Recipe.model_fields:
        values[_TEACHER] = {"teacher": str(teacher.resolve()), "hears": "varied"}
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
