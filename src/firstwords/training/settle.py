"""Before a run begins: its recipe, its tokenizer, the proof that a folder is still the same experiment."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch

from firstwords.audio.containers import open_source
from firstwords.config import override, parse_config
from firstwords.data.manifest import MANIFEST, Corpus, Utterance, require_recordings
from firstwords.errors import AudioError, TrainingError, UsageError, quoted
from firstwords.features.specaugment import SpecAugmentConfig
from firstwords.folders import MODEL, refuse_occupied
from firstwords.heads.ctc import CtcConfig
from firstwords.model.checkpoint import RECIPE, TOKENIZER, LoadedModel, bare_digest, recipe_digests
from firstwords.model.recipe import Recipe, read_recipe, write_recipe
from firstwords.model.structure import FILE as STRUCTURE
from firstwords.model.structure import UNCHANGED, write_structure
from firstwords.search.interface import check_internal_weight
from firstwords.text.graphemes import graphemes
from firstwords.text.load import train_tokenizer
from firstwords.text.normalize import normalizer, normalizers_for
from firstwords.training.choose import CORPUS_SETTINGS, Material, choose_recipe, nearest_size
from firstwords.training.crew import crew_size
from firstwords.training.distillation.begin import identity_of, load_teacher, taught_recipe
from firstwords.training.fine_tune import fitted_recipe, gentle
from firstwords.training.language_model import with_sizes
from firstwords.training.memory import free_bytes
from firstwords.training.plan import Plan
from firstwords.training.prepare import corpus_fingerprints, split_corpus, training_texts
from firstwords.training.progress import Progress
from firstwords.training.resume import IDENTITY, Checkpoints, check_identity

RESUME = "resume"
_FASTEST = 25 / 1.1  # encoded frames of a second of speech that is played back at speed 1.1
_PROBED = 50  # recordings whose sample rate is looked up
_EDGES = 0.07  # seconds that the convolutions of the front end use up


@dataclass(frozen=True)
class Wanted:
    """What the caller asked for."""

    recipe: Recipe | None
    size: str | None
    minutes: float | None
    overrides: tuple[str, ...]
    start: LoadedModel | None

    def applied_to(self, recipe: Recipe) -> Recipe:
        """A recipe with minutes and assignments."""
        values = recipe.model_dump(mode="json", exclude_none=True)
        if self.minutes is not None:
            values["training"]["minutes"] = self.minutes
        return parse_config(override(values, self.overrides), Recipe, name="recipe", source="--set")

    def names_below(self, table: str) -> set[str]:
        """Settings of a table that the assignments give; "" where one gives the whole table."""
        keys = (assignment.partition("=")[0].strip() for assignment in self.overrides)
        parts = (key.split(".") for key in keys)
        return {(path[1] if len(path) > 1 else "") for path in parts if path[0] == table}


def settle(corpus: Corpus, folder: Path, wanted: Wanted, device: str, progress: Progress) -> None:
    """Write recipe and tokenizer of a new run, or prove that an old one is the same experiment."""
    if (folder / MANIFEST).exists():
        raise UsageError(f"--to {folder}: this folder is a corpus.", mend="Give the run a folder of its own.")
    if wanted.start is not None and wanted.size is not None:
        raise UsageError(
            f"--size {wanted.size}: with --from the encoder is that of the model.", mend="Leave --size away."
        )
    stored = read_recipe(folder / RECIPE) if (folder / RECIPE).is_file() else None
    begun = bool(list((folder / RESUME).glob("step-*")))
    if stored is None:
        refuse_occupied(folder, (RESUME,), kind=MODEL)
    if stored is None and not begun:
        (folder / RESUME / IDENTITY).unlink(missing_ok=True)  # of a start that never came to a first step
    if stored is not None and not (folder / RESUME).is_dir():
        raise TrainingError(
            f"'{folder}' holds a finished model and nothing to resume from.",
            mend="Give another --to folder (with --from to start from this model).",
        )
    if stored is not None:
        asked = wanted.applied_to(wanted.recipe if wanted.recipe is not None else stored)
        if wanted.start is not None and wanted.recipe is not None:
            asked = fitted_recipe(asked, wanted.start)
        if wanted.recipe is not None and (teacher := load_teacher(asked)) is not None:
            asked = taught_recipe(asked, teacher, chosen=False)
        asked = with_sizes(asked, stored).with_(post=stored.post)  # formatting may change at any time
        if asked.training.processes == "auto":  # it was settled for this run when it began
            asked = asked.with_(training=asked.training.with_(processes=stored.training.processes))
        _refuse_other(stored, asked, wanted, folder)
        recipe = stored
        teacher = load_teacher(recipe)
    else:
        require_recordings(corpus)
        recipe = wanted.recipe or _chosen(corpus, folder, wanted, device, progress)
        if wanted.start is not None:
            recipe = fitted_recipe(recipe, wanted.start)
            if wanted.recipe is None:
                recipe = gentle(recipe, wanted.start)
        recipe = wanted.applied_to(recipe)
        check_internal_weight(recipe.search)
        if wanted.start is None or recipe.encoder != wanted.start.recipe.encoder:
            recipe.encoder.check_streams()
        if (teacher := load_teacher(recipe)) is not None:
            recipe = taught_recipe(recipe, teacher, chosen=wanted.recipe is None)
        recipe = _with_processes(with_sizes(recipe), device)
    digests = recipe_digests(folder / RECIPE, recipe) if stored is not None else (bare_digest(recipe),)
    identity: dict[str, str | tuple[str, ...]] = {"recipe": digests, "corpus": corpus_fingerprints(corpus)}
    if wanted.start is not None:
        identity["start model"] = str(wanted.start.tokenizer.piece_hash)
        if wanted.start.model.structure:
            identity["structure"] = wanted.start.model.structure.digest
    if teacher is not None:
        identity["teacher"] = identity_of(teacher)
    check_identity(folder / RESUME, identity, whole=not begun)  # later --from is in the checkpoints
    if stored is None:
        if teacher is not None:
            tokenizer = teacher.tokenizer
        else:
            tokenizer = train_tokenizer(recipe.tokenizer, training_texts(corpus, recipe))
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
        tokenizer.save(folder / TOKENIZER)
        (folder / STRUCTURE).unlink(missing_ok=True)
        write_structure(folder, UNCHANGED if wanted.start is None else wanted.start.model.structure)
        write_recipe(folder / RECIPE, recipe)  # last: its presence says that the folder is settled
        if (doubt := doubt_of_views(recipe)) is not None:
            progress.say(doubt)


def doubt_of_views(recipe: Recipe) -> str | None:
    """What a user should know who asks that two views agree (CR-CTC) and masks neither.

    No refusal: dropout makes views differ, too (R-Drop: Liang et al., 2021, arXiv:2106.14448), and a second
    view that is to come later than the end of a run never does.
    """
    head, masking = recipe.heads.get("ctc"), recipe.training.specaugment
    if not isinstance(head, CtcConfig) or not head.consistency or masking.masks:
        return None
    usual = SpecAugmentConfig()  # pyright: ignore[reportCallIssue]
    names = ("time_masks", "time_fraction") if masking.probability else ("probability",)
    masked = " and ".join(f"training.specaugment.{name} = {getattr(usual, name):g}" for name in names)
    return (
        f"Careful: heads.ctc.consistency = {head.consistency:g} (CR-CTC) asks that two views of an utterance "
        "agree, and nothing is masked (training.specaugment): they differ by dropout alone, and a step takes "
        f"twice as long. Set heads.ctc.consistency = 0, or {masked}."
    )


def _with_processes(recipe: Recipe, device: str) -> Recipe:
    """A number in place of "auto": a run must go on with as many processes as it began with."""
    if recipe.training.processes != "auto":
        return recipe
    free = free_bytes(torch.device("cpu"))
    count = crew_size(recipe, device=device, threads=torch.get_num_threads(), free_bytes=free)
    return recipe.with_(training=recipe.training.with_(processes=count))


def _refuse_other(stored: Recipe, asked: Recipe, wanted: Wanted, folder: Path) -> None:
    changed = list(differences(stored.model_dump(mode="json"), asked.model_dump(mode="json")))
    if wanted.size is not None and wanted.recipe is None:
        preset = choose_recipe(
            Material(hours=1), name="", language="", minutes=None, device="cpu", size=wanted.size
        ).recipe.encoder
        ours, theirs = stored.encoder.model_dump(), preset.model_dump()
        given = wanted.names_below("encoder")
        # What is chosen for the corpus or asked for beside the size is no contradiction.
        if not given & {"", "kind"}:
            own = {*CORPUS_SETTINGS, *given}
            ours, theirs = ({k: v for k, v in one.items() if k not in own} for one in (ours, theirs))
            changed += list(differences(ours, theirs, "encoder."))
    if changed:
        what = f"'{folder}' was begun with another recipe: {'; '.join(changed[:5])}."
        if (steps := _finished_steps(stored, folder / RESUME)) is not None:
            raise TrainingError(
                f"{what} Its {steps} steps are done, and more of them would be another run.",
                mend="Start afresh in another --to folder, or go on from the model there: add --from "
                f"{quoted(folder)} to a --to folder of its own.",
            )
        raise TrainingError(
            what, mend="Leave these settings away to go on with the run, or give another --to folder."
        )


def _finished_steps(recipe: Recipe, folder: Path) -> int | None:
    """The steps of a run that has nothing left to do; None while it has."""
    try:
        checkpoint = Checkpoints(folder).newest()
    except TrainingError:  # none can be read: whoever goes on says so
        return None
    if checkpoint is None:
        return None
    patience, counters = recipe.training.early_stop, checkpoint.state["counters"]
    stopped = patience is not None and counters["without_gain"] >= patience
    over = stopped or checkpoint.step >= Plan.from_record(checkpoint.state["plan"]).last_step
    return checkpoint.step if over else None


def differences(old: object, new: object, at: str = "") -> Iterator[str]:
    """Two nested tables -> "key was 1, now 2" for each setting in which they differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{at}{key}.")
    elif (list(old) if isinstance(old, tuple) else old) != (list(new) if isinstance(new, tuple) else new):
        yield f"{at.rstrip('.')} was {old}, now {new}"


def is_crowded(utterance: Utterance, text: str) -> bool:
    """True where letters and the blanks between equal ones fill more than 25 frames a second, played fast.

    Args:
        text: of the utterance, normalized.
    """
    letters = graphemes(text)
    needed = len(letters) + sum(a == b for a, b in pairwise(letters))
    return needed > _FASTEST * (utterance.duration - _EDGES)


def _names_folders(wanted: Wanted, key: str) -> bool:
    """True where the assignments name folders of noise or negatives; what is wrong in them is said later."""
    values = override({}, wanted.overrides)
    data = values.get("data")
    return isinstance(data, dict) and bool(cast("dict[str, object]", data).get(key))


def _names_encoder(wanted: Wanted) -> bool:
    """True where the assignments ask for another kind of encoder, or one that streams."""
    encoder = override({}, wanted.overrides).get("encoder")
    return isinstance(encoder, dict) and not {"kind", "causal"}.isdisjoint(cast("dict[str, object]", encoder))


def usual_language(utterances: Sequence[Utterance]) -> str:
    """The language of most utterances, of equally frequent ones the first; "und" where none is stated."""
    counts = Counter(u.language for u in utterances if u.language)
    return counts.most_common(1)[0][0] if counts else "und"


def usual_rate(utterances: Sequence[Utterance]) -> int | None:
    """Hertz that nine of ten recordings have at most, by the headers of some; None where none can be read."""
    paths = list(dict.fromkeys(u.audio for u in utterances))
    rates: list[int] = []
    for path in paths[:: max(1, len(paths) // _PROBED)]:
        with contextlib.suppress(AudioError, OSError):  # training names what cannot be read
            rates.append(open_source(path).sample_rate)
    return sorted(rates)[int(0.9 * len(rates))] if rates else None


def _chosen(corpus: Corpus, folder: Path, wanted: Wanted, device: str, progress: Progress) -> Recipe:
    train_part, _, _ = split_corpus(corpus, seed=1)
    language = usual_language(train_part)
    clean = normalizer(normalizers_for(language)[0])
    texts = [clean(u.text or "") for u in train_part]
    words = Counter(word for text in texts for word in text.split())
    material = Material(
        hours=sum(u.duration for u in train_part) / 3600,
        longest=max(u.duration for u in train_part),
        # With --from, features and encoder are those of the model.
        crowded=0.0
        if wanted.start is not None
        else sum(map(is_crowded, train_part, texts)) / len(train_part),
        words=len(words) if words else None,
        rarest=min(words.values(), default=0),
        noise=_names_folders(wanted, "noise_folders"),
        negatives=_names_folders(wanted, "negative_folders"),
        usual_encoder=not _names_encoder(wanted),
        sample_rate=None if wanted.start is not None else usual_rate(train_part),
        cores=torch.get_num_threads(),
        fine_tuned=wanted.start is not None,
    )
    start = wanted.start
    choice = choose_recipe(
        material,
        name=folder.name,
        language=language,
        minutes=wanted.minutes,
        device=device,
        size=wanted.size if start is None else nearest_size(start.model.num_parameters),
    )
    given, *reasons = choice.reasons
    if start is not None:
        given += f"; the encoder of the model, which has {start.model.num_parameters / 1e6:.2f} M parameters"
    progress.say(f"Recipe (written to {folder / RECIPE}): {'; '.join((given, *reasons))}.")
    return choice.recipe
