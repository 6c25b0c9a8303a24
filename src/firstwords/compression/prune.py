"""Pruning: a model folder and a corpus in, a smaller model folder out.

    TO/rounds/orders.json    what was asked for: the same call goes on where it was, another one is refused
    TO/rounds/1/cut/         the model after the first cut
    TO/rounds/1/tuned/       and after its fine-tuning; that of the round before is what the next one cuts
    TO/                      at the end the model, with its history (compression.json)

The model that is pruned is only read.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firstwords import __version__
from firstwords.compression.card import step_card, tuning_words
from firstwords.compression.families import groups_of
from firstwords.compression.groups import KINDS, Group, Kind, cut
from firstwords.compression.history import FILE as HISTORY
from firstwords.compression.history import note_step
from firstwords.compression.importance import NEEDS_SPEECH, By, importance, judged
from firstwords.compression.masks import sparse_storage, zero_weights
from firstwords.compression.material import Material
from firstwords.compression.order import kept_as_before, require_exit_last, require_zeros_last, scales_anew
from firstwords.compression.selection import (
    FLOOR,
    floors,
    macs_of,
    select,
    shares,
    smallest,
    units_by_kind,
)
from firstwords.compression.tuning import better_of
from firstwords.data.manifest import load_corpus
from firstwords.errors import CheckpointError, UsageError
from firstwords.files import staged, write_atomically
from firstwords.model.checkpoint import WEIGHTS, LoadedModel, load_model, save_model
from firstwords.model.cost import model_cost
from firstwords.model.speech_model import SpeechModel
from firstwords.model.storage import Storage
from firstwords.model.structure import Drop
from firstwords.search.speech_gate import SpeechGate
from firstwords.training.progress import Progress
from firstwords.training.settle import RESUME
from firstwords.training.tasks.task import Validation

ROUNDS, ORDERS = "rounds", "orders.json"
MOST_ROUNDS = 20


@dataclass(frozen=True)
class Orders:
    """What is asked for.

    Args:
        cut: share of the model's parameters that goes.
        by: criterion of importance.
        minutes: of fine-tuning, over all rounds; None: none.
        teacher: fine-tuning learns from the model before the cut, too (docs/distillation.md).
        kinds: of units that may go.
        per: what importance is divided by: "parameter" or "mac".
        floor: of each group's units that stay.
        unstructured: zeros among the encoder's weights instead of smaller tensors.
    """

    cut: float
    by: By = "taylor"
    rounds: int = 1
    minutes: float | None = None
    teacher: bool = True
    kinds: tuple[Kind, ...] = KINDS
    per: str = "parameter"
    floor: float = FLOOR
    unstructured: bool = False
    seed: int = 1


@dataclass(frozen=True)
class Standing:
    """A model, measured; ``zeros``: share of its weights that are 0."""

    parameters: int
    macs_per_second: float
    file_bytes: int
    cer: float
    wer: float
    zeros: float = 0.0


@dataclass(frozen=True)
class PruneResult:
    """What was written, and what it was made from."""

    folder: Path
    before: Standing
    after: Standing
    cut: Mapping[str, tuple[int, int]]  # kind of unit -> how many there were and are


def prune_model(
    source: Path,
    corpus_folder: Path,
    to: Path,
    orders: Orders,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> PruneResult:
    """Cut units, or weights, that matter least, fine-tune what is left, write it to ``to``."""
    progress = progress or Progress()
    _check(orders)
    start = load_model(source, device="cpu")
    require_exit_last(start, "prune")
    require_zeros_last(start, unstructured=orders.unstructured, tuned=orders.minutes is not None)
    wanted = _identity(source, orders, corpus_folder)
    _check_folder(to, source, wanted)
    groups = _groups(start.model, orders.kinds, source)
    least = floors(groups, orders.floor)
    total = start.model.num_parameters
    if not orders.unstructured:
        _check_reach(start.model, judged(groups, orders.by), least, orders, source)
    if start.recipe.post is not None and start.recipe.post.stages:
        progress.say("Formatting is left out: its files lie with the model that is pruned.")
    trial = Material(load_corpus(corpus_folder), start, device)
    for note in trial.notes:
        progress.say(note)
    _ = trial.spoken  # raises where there is none, before anything is written
    write_atomically(to / ROUNDS / ORDERS, json.dumps(wanted, indent=1) + "\n")
    before = _standing(start.model, trial.error(start.model), source)
    progress.say(f"Before: {said(before)}.")
    at = start
    for number, share in enumerate(shares(orders.cut, orders.rounds), start=1):
        place = to / ROUNDS / str(number)
        target = round(total * (1 - share))
        at = _round(place, at, trial, orders, number, target, least, progress)
        if orders.minutes is None:
            continue
        progress.say(f"Round {number} of {orders.rounds}: fine-tuning.")
        at = better_of(
            place / "tuned",
            at,
            trial,
            corpus_folder,
            minutes=orders.minutes / orders.rounds,
            teacher=source if orders.teacher else None,
            device=device,
            progress=progress,
        )
    model = at.model
    if orders.minutes is None and trial.renew(model):
        progress.say("The statistics of batch normalization were measured anew.")
    storage = sparse_storage(model) if orders.unstructured else kept_as_before(start, model.cpu())
    found, gate = trial.measure(model)
    after = _standing(model, found, None)
    scales = scales_anew(start, model, trial)
    counts = _counts(groups, start.model, model)
    model.recipe = start.recipe.with_(name=to.resolve().name, post=None)  # not that of the fine-tuning
    after = _write(to, source, model, start, gate, orders, (before, after), counts, (storage, scales))
    progress.say(f"After:  {said(after)}.")
    for folder in (to / ROUNDS).glob(f"*/tuned/{RESUME}"):
        shutil.rmtree(folder, ignore_errors=True)
    return PruneResult(to, before, after, counts)


def most_share(source: Path) -> tuple[float, str]:
    """The largest share of a model's parameters that can be cut; 0, and why, where nothing is known to go."""
    start = load_model(source, device="cpu")
    try:
        require_exit_last(start, "prune")
        groups = _groups(start.model, KINDS, source)
    except (UsageError, CheckpointError) as error:
        return 0.0, error.what
    return 1 - smallest(start.model, groups, floors(groups)) / start.model.num_parameters, ""


def said(standing: Standing) -> str:
    """A measured model in a line."""
    zeros = f", {100 * standing.zeros:.0f} % of the weights zero" if standing.zeros > 0.005 else ""
    return (
        f"{standing.parameters / 1e6:.3f} M parameters{zeros}, "
        f"{standing.macs_per_second / 1e6:.1f} M MACs per second of audio, "
        f"{standing.file_bytes / 1e6:.2f} MB, dev CER {100 * standing.cer:.2f} %, "
        f"WER {100 * standing.wer:.2f} %"
    )


def _check(orders: Orders) -> None:
    if not 0 < orders.cut < 1:
        raise UsageError(
            f"--cut {orders.cut:g}: expected a share of the parameters between 0 and 1.",
            mend="For example --cut 0.3.",
        )
    if not 1 <= orders.rounds <= MOST_ROUNDS:
        raise UsageError(f"--rounds {orders.rounds}: expected 1 to {MOST_ROUNDS}.", mend="Mostly 1 or 3.")
    if orders.minutes is not None and not orders.minutes > 0:
        raise UsageError(f"--minutes {orders.minutes:g}: expected more than 0.", mend="Or give --no-tuning.")
    if orders.unstructured and orders.minutes is not None:
        raise UsageError(
            "--unstructured is not tuned: training would fill the zeros again.", mend="Add --no-tuning."
        )
    if orders.unstructured and orders.by == "activation":
        raise UsageError(
            "--by activation tells units apart, not single weights.", mend="Use --by taylor or magnitude."
        )
    unknown = sorted(set(orders.kinds) - set(KINDS))
    if unknown or not orders.kinds:
        named = f"'{unknown[0]}'" if unknown else "nothing"
        raise UsageError(f"--parts names {named}.", mend=f"Known parts: {', '.join(KINDS)}.")


def _groups(model: SpeechModel, kinds: Sequence[Kind], source: Path) -> list[Group]:
    if other := sorted({c.kind for c in model.structure.changes} - {"cut", "drop"}):
        raise UsageError(
            f"'{source}' was changed by {' and '.join(other)}: its parts are not those that can be cut.",
            mend="Prune first, then do the other steps.",
        )
    groups = groups_of(model)
    if not groups:
        raise CheckpointError(
            f"'{source}': nothing is known of what can be cut from an encoder of kind "
            f"'{model.recipe.encoder.kind}', or it has nothing left to cut.",
            mend="Use a smaller size of it instead.",
        )
    chosen = [group for group in groups if group.kind in kinds]
    if not chosen:
        there = ", ".join(dict.fromkeys(group.kind for group in groups))
        raise UsageError(
            f"--parts {','.join(kinds)}: '{source}' has none of these.", mend=f"It has: {there}."
        )
    return chosen


def _check_reach(
    model: SpeechModel, groups: Sequence[Group], least: Mapping[str, int], orders: Orders, source: Path
) -> None:
    total, reached = model.num_parameters, smallest(model, groups, least)
    if reached > round(total * (1 - orders.cut)):
        most = 1 - reached / total
        less = f"--cut {most - 0.005:.2f} or less, " if most > 0.015 else ""
        other = "" if len(judged(groups_of(model), orders.by)) == len(groups_of(model)) else "another --by, "
        raise UsageError(
            f"--cut {orders.cut:g}: of the {total} parameters of '{source}' at most {100 * most:.1f} % "
            f"can go ({reached} are left).",
            mend=f"Use {less}{other}more --parts, or a smaller model.",
        )


def _identity(source: Path, orders: Orders, corpus: Path) -> dict[str, Any]:
    """What two calls must have in common for one to go on with the other's work."""
    with (source / WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    wanted: dict[str, Any] = asdict(orders) | {"model": digest, "corpus": str(corpus.resolve())}
    return wanted | {"kinds": list(orders.kinds)}


def _check_folder(to: Path, source: Path, wanted: Mapping[str, Any]) -> None:
    """A new folder, or one that was begun with these very orders."""
    path = to / ROUNDS / ORDERS
    if to.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"'{to}' lies in the model that is pruned, which is only read.", mend="Give --to another folder."
        )
    if not path.is_file():
        if to.exists() and (not to.is_dir() or any(p.name != ROUNDS for p in to.iterdir())):
            raise UsageError(f"'{to}' exists and is not empty.", mend="Give --to a new folder.")
        return
    try:
        known: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = None
    if known != wanted:
        differ = [n for n in wanted if not isinstance(known, dict) or known.get(n) != wanted[n]]  # pyright: ignore[reportUnknownMemberType]
        raise UsageError(
            f"'{to}' was begun with another {', '.join(differ)}.", mend="Give --to a new folder."
        )
    if (to / HISTORY).is_file():
        raise UsageError(f"'{to}' holds the finished model already.", mend="Give --to a new folder.")


def _round(
    place: Path,
    at: LoadedModel,
    trial: Material,
    orders: Orders,
    number: int,
    target: int,
    least: Mapping[str, int],
    progress: Progress,
) -> LoadedModel:
    """Cut the model ``at`` into ``place``/cut, unless it is there."""
    folder = place / "cut"
    if (folder / WEIGHTS).is_file():
        progress.say(f"Round {number} of {orders.rounds}: cut before.")
        return load_model(folder, device="cpu")
    model = copy.deepcopy(at.model)
    losses = trial.gradients(model, seed=orders.seed) if orders.by in NEEDS_SPEECH else []
    if orders.unstructured:
        share = shares(orders.cut, orders.rounds)[number - 1]
        zero_weights(model.eval(), orders.by, losses, share, seed=orders.seed)
    else:
        groups = [group for group in groups_of(model) if group.kind in orders.kinds]
        progress.say(
            f"Round {number} of {orders.rounds}: {sum(g.units for g in groups)} units in {len(groups)} "
            f"groups are judged by {orders.by}" + (f" on {len(losses)} batches." if losses else ".")
        )
        scores = importance(model, groups, orders.by, losses, seed=orders.seed)
        model.cpu()
        costs = macs_of(model, groups) if orders.per == "mac" else None
        chosen = select(model, groups, scores, target=target, least=least, costs=costs)
        if chosen.parameters > target:
            raise UsageError(
                f"--by {orders.by} judges too few units: {chosen.parameters} parameters are left, "
                f"{target} were wanted.",
                mend="Use another --by, more --parts, or a smaller --cut.",
            )
        cut(model, chosen.removed)
        progress.say(f"{model.num_parameters} parameters are left (wanted: {target}).")
    save_model(
        folder,
        model.cpu(),
        at.tokenizer,
        card=step_card(at.recipe.name, []),
        speech_gate=at.speech_gate,
        storage=sparse_storage(model) if orders.unstructured else None,
    )
    return load_model(folder, device="cpu")


def _standing(model: SpeechModel, found: Validation, folder: Path | None) -> Standing:
    """``folder`` whose file is measured; None: not yet written."""
    model.cpu()
    weights = [p for p in model.parameters() if p.dim() > 1]
    zeros = sum(int((p == 0).sum()) for p in weights) / max(1, sum(p.numel() for p in weights))
    size = (folder / WEIGHTS).stat().st_size if folder is not None else 0
    cost = model_cost(model)
    numbers = found.numbers
    return Standing(cost.parameters, cost.macs_per_second, size, numbers["cer"], numbers["wer"], zeros)


def _counts(groups: Sequence[Group], before: SpeechModel, after: SpeechModel) -> dict[str, tuple[int, int]]:
    """Units by kind; layers by what was left out, since the last one of a list is no group."""
    left = units_by_kind(groups_of(after))
    counts = {kind: (count, left.get(kind, 0)) for kind, count in units_by_kind(groups).items()}
    dropped = sum(isinstance(c, Drop) for c in after.structure.changes[len(before.structure.changes) :])
    if "layers" in counts:
        counts["layers"] = (counts["layers"][0], counts["layers"][0] - dropped)
    return {str(kind): pair for kind, pair in counts.items()}


def _write(
    to: Path,
    source: Path,
    model: SpeechModel,
    start: LoadedModel,
    gate: SpeechGate,
    orders: Orders,
    standings: tuple[Standing, Standing],
    counts: Mapping[str, tuple[int, int]],
    kept: tuple[Mapping[str, Storage], Mapping[str, float]],
) -> Standing:
    """The model, then its history: the presence of this says that all is done."""
    before, after = standings
    how = f"from {before.parameters / 1e6:.2f} M parameters"
    if orders.unstructured:
        how = f"{after.zeros:.0%} of the weights zero"
    rows = [
        ("language", start.recipe.language),
        ("model", f"{start.recipe.encoder.kind}, {after.parameters / 1e6:.2f} M parameters"),
        ("pruned", f"{how}, by {orders.by}"),
        ("fine-tuned", tuning_words(orders.minutes, start.recipe.name if orders.teacher else None)),
        ("dev CER", f"{100 * after.cer:.1f} % (before: {100 * before.cer:.1f} %)"),
        ("dev WER", f"{100 * after.wer:.1f} %"),
        *((f"{kind} cut", f"{b - a} of {b}") for kind, (b, a) in counts.items() if a != b),
        ("date", datetime.now(UTC).date().isoformat()),
        ("firstwords", __version__),
    ]
    with staged(to, last=(WEIGHTS, HISTORY)) as new:
        save_model(
            new,
            model,
            start.tokenizer,
            card=step_card(to.resolve().name, rows, ("The dev set chose among weights.",)),
            speech_gate=gate,
            storage=kept[0],
            input_scales=kept[1],
        )
        after = Standing(**asdict(after) | {"file_bytes": (new / WEIGHTS).stat().st_size})
        settings = asdict(orders) | {"kinds": list(orders.kinds)}
        note_step(new, source, "prune", settings | {"before": asdict(before), "after": asdict(after)})
    return after
