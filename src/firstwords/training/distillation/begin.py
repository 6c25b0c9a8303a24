"""Before a student's first step: its teacher is loaded, its recipe fitted, both are found to go together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from firstwords.data.manifest import Corpus
from firstwords.device import Compute
from firstwords.errors import CheckpointError, ConfigError
from firstwords.features.specaugment import SpecAugment
from firstwords.model.checkpoint import LoadedModel, load_model, weights_digest
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.text.tokenizer import Tokenizer
from firstwords.training.distillation.cache import TargetCache
from firstwords.training.distillation.objective import Distillation
from firstwords.training.distillation.teacher import Teacher, questions_for, target_key
from firstwords.training.prepare import corpus_fingerprints

_MEGABYTE = 2**20


def load_teacher(recipe: Recipe) -> LoadedModel | None:
    """The teacher that a recipe names, on the CPU; None where it names none."""
    if recipe.distillation is None:
        return None
    try:
        return load_model(recipe.distillation.teacher, device="cpu")
    except CheckpointError as error:
        raise CheckpointError(f"distillation.teacher: {error.what}", mend=error.mend) from None


def taught_recipe(recipe: Recipe, teacher: LoadedModel, *, chosen: bool) -> Recipe:
    """The recipe with the teacher's pieces: what both say can only be compared piece by piece.

    Args:
        chosen: the recipe was chosen for the user, so features fit the teacher's sample rate; else one that
            does not fit is an error.
    """
    rate = teacher.recipe.data.sample_rate
    changes: dict[str, object] = {
        "tokenizer": teacher.recipe.tokenizer,
        "text": recipe.text.with_(normalizer=teacher.recipe.text.normalizer),
    }
    if recipe.data.sample_rate != rate:
        if not chosen:
            raise ConfigError(
                f"data.sample_rate = {recipe.data.sample_rate}: the teacher hears {rate} Hz, and both are "
                "given the same samples.",
                mend=f"Set data.sample_rate and features.sample_rate to {rate}.",
            )
        changes["data"] = recipe.data.with_(sample_rate=rate)
        changes["features"] = teacher.recipe.features
    if recipe.data.equalize != teacher.recipe.data.equalize:
        raise ConfigError(
            f"data.equalize = {str(recipe.data.equalize).lower()}: the teacher was trained with "
            f"{str(teacher.recipe.data.equalize).lower()}, and both are given the same samples.",
            mend=f"Set data.equalize to {str(teacher.recipe.data.equalize).lower()}.",
        )
    return recipe.model_copy(update=changes)


def identity_of(teacher: LoadedModel) -> str:
    """Fingerprint of a teacher: a run goes on with the one that it began with."""
    return hashlib.sha256(
        (weights_digest(teacher.model.state_dict()) + teacher.tokenizer.piece_hash).encode()
    ).hexdigest()


def begin_distillation(
    recipe: Recipe,
    student: SpeechModel,
    tokenizer: Tokenizer,
    corpus: Corpus,
    compute: Compute,
    *,
    masking: SpecAugment | None,
    hear: Callable[[str, float], Tensor | None],
    folder: Path,
    rank: int,
) -> Distillation | None:
    """A recipe's distillation, ready to use; None where it has none.

    Args:
        hear: id and speed -> the clean samples of a training utterance.
        folder: of what is needed to go on with the run; what the teacher said is kept there.
        rank: of this process.
    """
    teacher = load_teacher(recipe)
    config = recipe.distillation
    if teacher is None or config is None:
        return None
    if teacher.tokenizer.piece_hash != tokenizer.piece_hash:
        raise ConfigError(
            f"The teacher '{config.teacher}' writes other pieces than this run.",
            mend="Begin the run in a folder of its own: it then takes the teacher's pieces.",
        )
    questions = questions_for(
        student,
        teacher.model,
        ctc=config.ctc,
        readings=config.readings,
        hidden=config.hidden_layers if config.hidden else None,
    )
    clean = config.hears == "clean"
    cache = None
    if clean and config.cache_megabytes:
        data = recipe.data
        heard = f"{data.channels} {data.sample_rate} {data.keep_pitch}" + (" equal" if data.equalize else "")
        key = target_key(teacher, questions, corpus_fingerprints(corpus)[0], compute, heard=heard)
        owner = f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}-{rank}"
        place = folder if config.cache_folder is None else Path(config.cache_folder)
        cache = TargetCache(place, key, owner, config.cache_megabytes * _MEGABYTE)
    return Distillation(
        config,
        student,
        Teacher(
            teacher,
            questions,
            compute,
            cache=cache,
            hear=hear if clean else None,
            warp=None if clean or masking is None else masking.warp_time,
        ),
    )
