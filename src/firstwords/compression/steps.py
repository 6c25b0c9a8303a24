"""Low rank, folding, skipped layers, early exit: a model folder in, another model folder out.

    TO/tuning/orders.json    with fine-tuning: what was asked for; the same call goes on, another is refused
    TO/tuning/begun/         the model before its fine-tuning
    TO/tuning/tuned/         and after it
    TO/                      at the end the model, with its history (compression.json)

The model that is compressed is only read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firstwords import __version__
from firstwords.compression.card import step_card
from firstwords.compression.early_exit import choose_exit, ways
from firstwords.compression.folding import folded
from firstwords.compression.history import FILE as HISTORY
from firstwords.compression.history import note_step, read_history
from firstwords.compression.low_rank import (
    Method,
    candidates,
    collect,
    factored,
    ranks_by_cut,
    ranks_by_energy,
)
from firstwords.compression.material import Material
from firstwords.compression.order import (
    copy_companions,
    kept_as_before,
    require_exit_last,
    require_whole,
    scales_anew,
)
from firstwords.compression.skipping import require_layers, transcript_loss, without_layers
from firstwords.compression.tuning import WORSE, better_of
from firstwords.data.manifest import load_corpus
from firstwords.errors import UsageError
from firstwords.files import staged, write_atomically
from firstwords.inference.early_exit import ExitSettings, Measure, check_taps, write_exit
from firstwords.model.checkpoint import WEIGHTS, LoadedModel, load_model, save_model, weights_digest
from firstwords.model.speech_model import SpeechModel
from firstwords.search.speech_gate import SpeechGate
from firstwords.training.progress import Progress
from firstwords.training.settle import RESUME

TUNING, ORDERS = "tuning", "orders.json"
SECONDS = 600.0  # of training speech that covariances are measured on
DEV_SECONDS = 600.0  # of dev speech that layers are judged by
Say = Callable[[str], None]


@dataclass(frozen=True)
class LowRankOrders:
    """What is asked for.

    Args:
        energy: share of the outputs' variance that every layer keeps; None: ``cut`` decides.
        cut: share of the model's parameters that goes; None: ``energy`` decides.
        method: "data", or "plain" as a control.
        only: patterns of the paths of layers; none: all.
        minutes: of fine-tuning with the model it came from as teacher; None: none.
    """

    energy: float | None = None
    cut: float | None = None
    method: Method = "data"
    only: tuple[str, ...] = ()
    minutes: float | None = None
    seconds: float = SECONDS


@dataclass(frozen=True)
class StepResult:
    """What was written: parameters and dev CER before and after, and what was done, in words."""

    folder: Path
    parameters: tuple[int, int]
    cer: tuple[float, float] | None
    said: tuple[str, ...] = ()


def low_rank_model(
    source: Path,
    corpus: Path,
    to: Path,
    orders: LowRankOrders,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> StepResult:
    """Make the linear layers of a model thin."""
    progress = progress or Progress()
    _check(orders)
    start = load_model(source, device="cpu")
    require_exit_last(start, "low-rank")
    require_whole(start, "low-rank")
    wanted = {"step": "low-rank", "corpus": str(corpus.resolve()), **_plain(orders)}
    _settle(source, start, to, wanted, tuned=orders.minutes is not None)
    trial = Material(load_corpus(corpus), start, device)
    _ = trial.spoken  # raises where there is none
    before = trial.error(start.model).numbers["cer"]
    start.model.cpu()
    begun = to / TUNING / "begun"
    said = ()
    if (begun / WEIGHTS).is_file():
        progress.say("The layers were factored before.")
        model = load_model(begun, device="cpu").model
    else:
        model, said = _factored(start, trial, orders)
    if orders.minutes is not None:
        if not (begun / WEIGHTS).is_file():  # nothing is left behind of orders that cannot be followed
            write_atomically(to / TUNING / ORDERS, json.dumps(_with_model(wanted, start), indent=1) + "\n")
            save_model(begun, model, start.tokenizer, card="", speech_gate=start.speech_gate)
        thin = load_model(begun, device="cpu")
        kept = better_of(
            to / TUNING / "tuned",
            thin,
            trial,
            corpus,
            minutes=orders.minutes,
            teacher=source,
            device=device,
            progress=progress,
        )
        model, said = kept.model, (*said, *((WORSE,) if kept is thin else ()))
    settings = _plain(orders) | ({"teacher": True} if orders.minutes is not None else {})
    return _finish(source, to, start, model, trial, before, "low-rank", settings, said)


def fold_model(source: Path, to: Path) -> StepResult:
    """Fold norms and scales into the matrices beside them; the gate against non-speech stays as it is."""
    start = load_model(source, device="cpu")
    require_exit_last(start, "fold")
    require_whole(start, "fold")
    _settle(source, start, to, {}, tuned=False)
    model, paths = folded(start.model)
    if not paths:
        raise UsageError(
            f"'{source}' has nothing to fold: its norms depend on what they read, or were folded before.",
            mend="Leave this step out.",
        )
    said = (f"{len(paths)} norms and scales became part of the matrices beside them.",)
    return _finish(source, to, start, model, None, None, "fold", {"folded": paths}, said)


def skip_layers(
    source: Path,
    corpus: Path,
    to: Path,
    *,
    most: int,
    limit: float,
    device: str = "auto",
    say: Say = lambda _: None,
) -> StepResult:
    """Leave out the layers that the loss on dev misses least."""
    start = load_model(source, device="cpu")
    require_exit_last(start, "skip-layers")
    _settle(source, start, to, {}, tuned=False)
    if most < 1 or not limit > 0:
        raise UsageError(
            f"--most {most}, --limit {limit:g}: expected at least one layer and a limit above 0.",
            mend="For example --most 2 --limit 1.1.",
        )
    require_layers(start.model)
    trial = Material(load_corpus(corpus), start, device)
    before = trial.error(start.model).numbers["cer"]
    batches = list(trial.one_by_one(trial.spoken_dev, seconds=DEV_SECONDS))
    start.model.to(trial.compute.device)
    model, _, skipped = without_layers(
        start.model, lambda one: transcript_loss(one, batches), most=most, limit=limit, say=say
    )
    if not skipped:
        raise UsageError(
            f"Without any one layer of '{source}' the loss is more than {limit:g} times what it is.",
            mend="Raise --limit, or prune with fine-tuning: firstwords compress prune.",
        )
    settings = {"most": most, "limit": limit, "skipped": [one.layer for one in skipped]}
    said = (f"Left out: {', '.join(one.layer for one in skipped)}.",)
    return _finish(source, to, start, model.cpu(), trial, before, "skip-layers", settings, said)


def early_exit_model(
    source: Path,
    corpus: Path,
    to: Path,
    *,
    most_loss: float,
    measure: Measure,
    split: str = "dev",
    device: str = "cpu",
) -> ExitSettings:
    """A copy of the model that knows when to leave early.

    Args:
        most_loss: of CER that leaving early may cost, as a fraction.
    """
    start = load_model(source, device="cpu")
    check_taps(start.model)
    _settle(source, start, to, {}, tuned=False)
    trial = Material(load_corpus(corpus), start, device)
    start.model.to(trial.compute.device)
    seconds = start.recipe.training.max_validation_seconds
    batches = trial.one_by_one(trial.spoken_dev, seconds=seconds)
    settings = choose_exit(
        start,
        ways(start, batches, measure),
        measure=measure,
        most_loss=most_loss,
        corpus=trial.corpus.folder.resolve().name,
        split=split,
    )
    card = (source / "card.md").read_text(encoding="utf-8") if (source / "card.md").is_file() else ""
    told = {"most_loss": most_loss, "measure": measure, "above": settings.above}
    with staged(to, last=(WEIGHTS,)) as new:
        copy_companions(source, new)
        save_model(
            new,
            start.model.cpu(),
            start.tokenizer,
            card=card,
            speech_gate=start.speech_gate,
            storage=start.storage,
            input_scales=start.input_scales,
        )
        note_step(new, source, "early-exit", told)
        write_exit(new, settings)
    return settings


def note_distilled(to: Path, teacher: Path, start: Path | None, *, minutes: float, steps: int) -> None:
    """Write into a student's history what it learned from; a new student has no other history."""
    settings = {"teacher": teacher.resolve().name, "minutes": round(minutes, 2), "steps": steps}
    note_step(to, teacher if start is None else start, "distil", settings)
    if start is None:
        history = read_history(to)
        history = history.model_copy(update={"steps": history.steps[-1:]})
        write_atomically(to / HISTORY, json.dumps(history.model_dump(mode="json"), indent=1) + "\n")


def _check(orders: LowRankOrders) -> None:
    if (orders.energy is None) == (orders.cut is None):
        raise UsageError("Give one of --energy and --cut.", mend="For example --energy 0.95.")
    for name, value, example in (("energy", orders.energy, 0.95), ("cut", orders.cut, 0.3)):
        if value is not None and not 0 < value < 1:
            raise UsageError(
                f"--{name} {value:g}: expected a share between 0 and 1.",
                mend=f"For example --{name} {example:g}.",
            )
    if orders.minutes is not None and not orders.minutes > 0:
        raise UsageError(f"--minutes {orders.minutes:g}: expected more than 0.", mend="Or leave it away.")


def _plain(orders: LowRankOrders) -> dict[str, Any]:
    return vars(orders) | {"only": list(orders.only)}


def _settle(source: Path, start: LoadedModel, to: Path, wanted: Mapping[str, Any], *, tuned: bool) -> None:
    """A new folder, or one that was begun with these very orders."""
    if to.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"--to {to} is the model itself or lies within it; it is only read.", mend="Give another folder."
        )
    path = to / TUNING / ORDERS
    if not tuned or not path.is_file():
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise UsageError(f"'{to}' exists and is not empty.", mend="Give --to a new folder.")
        return
    try:
        known: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = None
    if known != _with_model(wanted, start):
        raise UsageError(f"'{to}' was begun with other orders.", mend="Give --to a new folder.")
    if (to / WEIGHTS).is_file():
        raise UsageError(f"'{to}' holds the finished model already.", mend="Give --to a new folder.")


def _with_model(wanted: Mapping[str, Any], start: LoadedModel) -> dict[str, Any]:
    return {**wanted, "model": weights_digest(start.model.state_dict())}


def _factored(
    start: LoadedModel, trial: Material, orders: LowRankOrders
) -> tuple[SpeechModel, tuple[str, ...]]:
    model = start.model.to(trial.compute.device)
    moments = collect(model, trial.one_by_one(trial.spoken, seconds=orders.seconds))
    model.cpu()
    layers = candidates(model, moments, method=orders.method, only=orders.only)
    if orders.cut is not None:
        ranks = ranks_by_cut(layers, model.num_parameters, orders.cut)
    else:
        assert orders.energy is not None  # checked
        ranks = ranks_by_energy(layers, orders.energy)
    if not ranks:
        raise UsageError(
            f"Every layer needs nearly its whole rank for {orders.energy:.0%} of the energy: nothing would "
            "become smaller.",
            mend="Lower --energy, or prune: firstwords compress prune.",
        )
    small = factored(model, moments, ranks, method=orders.method)
    said = (
        f"{len(ranks)} of {len(layers)} linear layers became products of two; ranks {min(ranks.values())} "
        f"to {max(ranks.values())}.",
    )
    return small, said


def _finish(
    source: Path,
    to: Path,
    start: LoadedModel,
    model: SpeechModel,
    trial: Material | None,
    cer_before: float | None,
    step: str,
    settings: dict[str, Any],
    said: Sequence[str],
) -> StepResult:
    """Measure the result, write it with card and history."""
    gate: SpeechGate = start.speech_gate
    cer = None
    rows = [
        ("language", start.recipe.language),
        ("model", f"{start.recipe.encoder.kind}, {model.num_parameters / 1e6:.2f} M parameters"),
        ("step", f"{step}, from {start.model.num_parameters / 1e6:.2f} M parameters"),
    ]
    storage, scales = kept_as_before(start, model), dict[str, float]()
    if trial is not None and cer_before is not None:
        found, gate = trial.measure(model)
        scales = scales_anew(start, model.cpu(), trial)
        cer = (cer_before, found.numbers["cer"])
        rows.append(("dev CER", f"{100 * cer[1]:.1f} % (before: {100 * cer[0]:.1f} %)"))
        rows.append(("dev WER", f"{100 * found.numbers['wer']:.1f} %"))
    rows += [("date", datetime.now(UTC).date().isoformat()), ("firstwords", __version__)]
    model.recipe = start.recipe.with_(name=to.resolve().name, post=None)
    with staged(to, last=(WEIGHTS,)) as new:
        save_model(
            new,
            model,
            start.tokenizer,
            card=step_card(to.resolve().name, rows, said),
            speech_gate=gate,
            storage=storage,
            input_scales=scales,
        )
        note_step(new, source, step, settings)
    shutil.rmtree(to / TUNING / "tuned" / RESUME, ignore_errors=True)
    result = StepResult(to, (start.model.num_parameters, model.num_parameters), cer, tuple(said))
    if start.recipe.post is not None and start.recipe.post.stages:
        result = replace(result, said=(*said, "Formatting is left out: its files lie with the model."))
    return result
