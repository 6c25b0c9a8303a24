"""``firstwords punctuation train``: formatted text in, the folder of a punctuation model out.

The loop, its checkpoints and its log are those of recognisers (trainer.py, session.py): a run that was killed
goes on with the same call, and the same seed gives the same weights.

    FOLDER/           the best model so far, from the first validation on
    FOLDER/resume/    what is needed to go on; delete it when training is over

A folder that holds a finished model and nothing to go on from is refused, and so is one that
holds a corpus, a recogniser or a language model.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from firstwords.config import dump_config, read_toml
from firstwords.data.manifest import MANIFEST
from firstwords.device import choose_device, set_threads
from firstwords.errors import TrainingError, UsageError
from firstwords.files import claimed
from firstwords.folders import PUNCTUATION, refuse_occupied
from firstwords.formatting.punctuation_model import (
    FORMS,
    HEADER,
    WEIGHTS,
    LoadedPunctuator,
    Punctuator,
    PunctuatorConfig,
    load_punctuator,
    save_punctuator,
)
from firstwords.formatting.punctuation_text import Tally
from firstwords.lm.language_model import HEADER as LM_HEADER
from firstwords.text.normalize import normalizer
from firstwords.training.course import conduct, find, numbers_of, optimizer_of
from firstwords.training.distributed import Processes
from firstwords.training.plan import Plan, Segment
from firstwords.training.progress import Progress
from firstwords.training.resume import check_identity, fingerprint
from firstwords.training.schedule import CosineConfig
from firstwords.training.session import Run
from firstwords.training.settings import TrainingConfig
from firstwords.training.tasks.punctuation import (
    PunctuationDev,
    PunctuationLoader,
    PunctuationTask,
    TaughtText,
    read_measured,
    tally_of,
)
from firstwords.training.tasks.task import Validation
from firstwords.training.trainer import Outcome

RESUME = "resume"
_ROWS = 32  # windows of a batch
_EPOCHS = 12
_STEPS = (300, 20_000)  # fewest and most, where none are given
_RATE = 1e-2

Lines = Iterable[tuple[str, int]]


@dataclass(frozen=True)
class PunctuationResult:
    """What came of a run; ``tally`` counts all held-out words with the best weights, None if interrupted."""

    outcome: Outcome
    steps: int
    text: TaughtText
    tally: Tally | None


def train_punctuation(
    text: TaughtText,
    folder: Path,
    *,
    language: str = "und",
    normalizer_name: str = "default",
    steps: int | None = None,
    seed: int = 1,
    sizes: Mapping[str, float] | None = None,
    device: str = "cpu",
    console: Console | None = None,
    quiet: bool = False,
    save_every_seconds: float = 60.0,
) -> PunctuationResult:
    """Text (``read_taught``) -> model folder; goes on where it was stopped.

    Args:
        normalizer_name: what the text was read with.
        steps: None: twelve passes over the text, between 300 and 20,000.
        sizes: ``dim``, ``hidden``, ``layers``, ``buckets``, ``dropout``, where they shall be others.

    Raises:
        UsageError, TrainingError: the folder holds something that would be overwritten (``check_folder``), or
            was begun with another text, another seed or other settings.
    """
    began = time.monotonic()
    with claimed(folder):
        check_folder(folder)
        progress = Progress(console, quiet=quiet, unit="word")
        given = {"language": language, "normalizer": normalizer_name, "marks": text.marks, **(sizes or {})}
        config = PunctuatorConfig.model_validate(given)
        loader = PunctuationLoader(text.train, seed=seed, rows=_ROWS)
        in_epoch = loader.batches_in_epoch
        planned = steps or min(max(round(_EPOCHS * in_epoch), _STEPS[0]), _STEPS[1])
        check_identity(
            folder / RESUME,
            {
                "text": _digest(text),
                "settings": fingerprint(f"{dump_config(config)} steps {planned} rows {_ROWS} rate {_RATE}"),
                "seed": str(seed),
            },
        )
        torch.manual_seed(seed)
        model = Punctuator(config).to(choose_device(device))
        count = sum(p.numel() for p in model.parameters())
        progress.say(
            f"{text.lines:,} lines, {len(text.train.words):,} words to train on, {len(text.dev.words):,} "
            f"held out; marks {' '.join(text.marks) or 'none'}; {count / 1e6:.2f} M parameters."
        )
        task = PunctuationTask(model)
        training = TrainingConfig(
            schedule=CosineConfig(lr=_RATE, warmup=0.05, final=0.01),
            optimizer="adamw",
            weight_decay=0.01,
            max_grad_norm=1.0,
            save_every_seconds=save_every_seconds,
        )
        found = find(folder / RESUME, Processes())

        def publish(validation: Validation, step: int) -> None:
            del validation, step
            save_punctuator(folder, LoadedPunctuator(model, text.forms))

        run = Run(
            folder=folder / RESUME,
            config=training,
            seed=seed,
            plan=Plan(planned, (Segment(0, 0.0, planned),), 0.0, max(1, -(-planned // 10)), 1.0),
            log=found.open_log(),
            progress=progress,
            processes=found.processes,
            steps_in_epoch=in_epoch,
            publish=publish,
        )
        dev, optimizer = PunctuationDev(text.dev), optimizer_of(model, training)
        files = [folder / name for name in (HEADER, FORMS, WEIGHTS)]
        threads = torch.get_num_threads()
        set_threads(1)  # a recurrence of this size gains nothing by a second one, and sums stay in one order
        try:
            outcome = conduct(run, found, task, loader, dev, optimizer, model=files, began=began)
        finally:
            torch.set_num_threads(threads)
        numbers_of(
            run, outcome, lambda n: f"F1 marks {100 * n['marks f1']:.1f} %, case {100 * n['cases f1']:.1f} %"
        )
        if outcome == "interrupted":
            return PunctuationResult(outcome, run.step, text, None)
        best = load_punctuator(folder)
        return PunctuationResult(outcome, run.step, text, tally_of(best.model, text.dev.in_order()))


def check_folder(folder: Path) -> None:
    """Refuse to write a punctuation model where it would overwrite something."""
    recipe = folder / "recipe.toml"
    holds = ""
    if (folder / MANIFEST).exists():
        holds = "corpus"
    elif recipe.is_file():
        holds = "recogniser" if "encoder" in read_toml(recipe) else "language model"
    elif (folder / LM_HEADER).is_file():
        holds = "language model"
    if holds:
        raise UsageError(
            f"--to {folder}: this folder is a {holds}.",
            mend="Give the punctuation model a folder of its own.",
        )
    refuse_occupied(folder, (HEADER, RESUME), kind=PUNCTUATION)
    if (folder / HEADER).is_file() and not (folder / RESUME).is_dir():
        raise TrainingError(
            f"'{folder}' holds a finished punctuation model and nothing to resume from.",
            mend="Give another --to folder.",
        )


def measure_punctuation(folder: Path, lines: Lines, *, told: Callable[[int], None] | None = None) -> Tally:
    """A model folder and lines of formatted text that it has not seen -> what it gets right."""
    loaded = load_punctuator(folder)
    config = loaded.config
    text = read_measured(lines, normalizer(config.normalizer), config.marks, progress=told)
    return tally_of(loaded.model, text.in_order())


def _digest(text: TaughtText) -> str:
    digest = hashlib.sha256()
    for side in (text.train, text.dev):
        digest.update(" ".join(side.words).encode("utf-8", "replace"))
        digest.update(repr((list(side.marks), list(side.cases), list(side.starts))).encode())
    digest.update(repr(sorted(text.forms.items())).encode())
    return digest.hexdigest()
