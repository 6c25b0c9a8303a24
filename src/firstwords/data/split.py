"""Train, dev and test: who goes where, and what the reader must know about it.

A test of a recogniser means something only for voices it never heard, so a split holds whole speakers out
wherever the data allow it. Where they do not (one speaker, or too few), whole recordings are held out, then
stretches of time, and the notes say which. Sizes are counted in seconds of speech. A split depends on the
seed and on names alone: not on the order of the utterances, the machine or the Python version.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from firstwords.data.manifest import Utterance
from firstwords.errors import UsageError

TRAIN, DEV, TEST = "train", "dev", "test"
Rule = Literal["source", "speaker", "speaker and recording", "recording", "time", "none"]
_SYNONYMS = {
    TRAIN: ("train", "training", "trn"),
    DEV: ("dev", "devel", "development", "valid", "validation", "val"),
    TEST: ("test", "testing", "tst"),
}
_CANONICAL = {word: name for name, words in _SYNONYMS.items() for word in words}
# Train must keep at least this share of what dev and test do not ask for, else the next rule is tried.
_TRAIN_KEEPS = 0.7
# A held-out part smaller than this share of what was asked for is no test: the next rule is tried.
_AT_LEAST = 0.4
# With so many texts shared, and repeated, a corpus is a list of words or commands, not a leak.
_FIXED_TEXTS = 0.9
_BLOCKS = 20  # stretches into which a time split cuts the whole corpus


@dataclass(frozen=True)
class SplitResult:
    """id -> split, the rule that made it, and sentences for the user."""

    splits: Mapping[str, str]
    rule: Rule
    notes: tuple[str, ...]


def canonical_split(name: str) -> str:
    """'Validation' -> 'dev', 'training' -> 'train'; a name of no known meaning stays as it is."""
    return _CANONICAL.get(name.strip().lower(), name.strip())


def split_in_name(name: str) -> str | None:
    """'train-clean-100' or 'my_dev_manifest' -> the split it names; None if it names none or several."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {_CANONICAL[word] for word in words if word in _CANONICAL}
    return found.pop() if len(found) == 1 else None


def split_corpus(
    utterances: Sequence[Utterance],
    *,
    dev: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    move_texts: bool = False,
    resplit: bool = False,
) -> SplitResult:
    """The splits of a source kept and completed, or (none there, or ``resplit``) made anew."""
    if resplit or not any(u.split for u in utterances):
        bare = [replace(u, split=None) for u in utterances]
        return split_speakers(bare, dev=dev, test=test, seed=seed, move_texts=move_texts)
    return _complete(utterances, dev=dev, test=test, seed=seed, move_texts=move_texts)


def split_speakers(
    utterances: Sequence[Utterance], *, dev: float, test: float, seed: int, move_texts: bool = False
) -> SplitResult:
    """Seeded split with ``dev`` and ``test`` as shares of the duration; no voice in two splits if possible.

    Args:
        move_texts: put dev and test utterances whose text also stands in train into train.
    """
    check_shares(dev, test)
    splits, rule, notes = _divide(utterances, dev=dev, test=test, seed=seed)
    splits, more = mind_texts(utterances, splits, move_texts)
    return SplitResult(splits, rule, (*notes, *more))


def text_overlap(
    utterances: Sequence[Utterance], splits: Mapping[str, str]
) -> dict[tuple[str, str], list[Utterance]]:
    """(held-out split, other split) -> utterances of the first whose text also stands in the second.

    Case, punctuation and spacing do not count; texts that are empty are left out. Of each pair the smaller
    part is looked at: dev and test against train, test against dev, any other split against train.
    """
    texts: dict[str, set[str]] = {}
    for utterance in utterances:
        if key := _text_key(utterance.text):
            texts.setdefault(splits[utterance.id], set()).add(key)
    found: dict[tuple[str, str], list[Utterance]] = {}
    for utterance in utterances:
        name, key = splits[utterance.id], _text_key(utterance.text)
        for other in (TRAIN, DEV):
            if not key or name in (other, TRAIN) or (other == DEV and name != TEST):
                continue
            if key in texts.get(other, ()):
                found.setdefault((name, other), []).append(utterance)
    return found


def check_shares(dev: float, test: float) -> None:
    """Refuse shares that are none, or leave no train."""
    if not (0 <= dev < 1 and 0 <= test < 1 and dev + test <= 0.9):
        raise UsageError(
            f"--dev {dev} --test {test}: shares of the whole, together at most 0.9, were expected.",
            mend="For example --dev 0.1 --test 0.1",
        )


Divided = tuple[dict[str, str], Rule, list[str]]


def _divide(utterances: Sequence[Utterance], *, dev: float, test: float, seed: int) -> Divided:
    wanted = {name: share for name, share in ((TEST, test), (DEV, dev)) if share > 0}
    if not wanted:
        return dict.fromkeys((u.id for u in utterances), TRAIN), "none", ["Everything was put into train."]
    if len(utterances) <= len(wanted):
        few = f"{_count(len(utterances), 'utterance')} cannot be split: everything was put into train."
        return dict.fromkeys((u.id for u in utterances), TRAIN), "none", [few]
    names = _recording_names(utterances)
    by_speaker = _divide_by_speaker(utterances, names, wanted, seed)
    if not isinstance(by_speaker, str):
        return by_speaker
    files = len(names)
    chosen = _choose(utterances, lambda u: names[u.audio], wanted, seed)
    if chosen is not None:
        note = f"{by_speaker} The split is by recording ({files} files): the error rate will speak for "
        return chosen, "recording", [note + "the voices of train, not for new ones."]
    blocks = _time_blocks(utterances, names)
    chosen = _choose(utterances, lambda u: blocks[u.id], wanted, seed, anyhow=True)
    if chosen is None:  # one utterance is longer than all others together
        chosen = _choose(utterances, lambda u: u.id, wanted, seed, anyhow=True)
    note = (
        f"{by_speaker} {_count(files, 'recording')} cannot be divided either, so the split is by stretches "
    )
    note += "of time: the error rate will speak for these voices and recordings alone."
    return chosen or dict.fromkeys((u.id for u in utterances), TRAIN), "time", [note]


def _recording_names(utterances: Sequence[Utterance]) -> dict[Path, str]:
    """Recording -> its path below the folder that holds all of them: the same wherever that folder lies."""
    recordings = {u.audio for u in utterances}
    try:
        common = Path(os.path.commonpath([audio.parent for audio in recordings]))
    except ValueError:  # on several drives, so they have no folder in common
        common = Path()
    return {
        audio: unicodedata.normalize(
            "NFC", (audio.relative_to(common) if audio.is_relative_to(common) else audio).as_posix()
        )
        for audio in recordings
    }


def _divide_by_speaker(
    utterances: Sequence[Utterance], names: Mapping[Path, str], wanted: Mapping[str, float], seed: int
) -> Divided | str:
    """Whole speakers held out, or the sentence that says why that cannot be."""
    known = [u for u in utterances if u.speaker]
    speakers = {u.speaker for u in known}
    if not known:
        return "The source names no speakers."
    if len(speakers) == 1:
        return f"There is only one speaker ('{known[0].speaker}')."
    total = sum(u.duration for u in utterances)
    if sum(u.duration for u in known) < total / 2:
        return "Less than half of the speech has a speaker's name."
    notes: list[str] = []
    if len(known) < len(utterances):
        notes.append(
            f"{len(utterances) - len(known)} utterances without a speaker were put into train, since they "
            "may be of any voice."
        )
    train = dict.fromkeys((u.id for u in utterances), TRAIN)

    def speaker(utterance: Utterance) -> Hashable:
        return utterance.speaker

    chosen = _choose(known, speaker, wanted, seed)
    if chosen is not None:
        said = f"The split holds speakers apart: {_voices(known, chosen)}."
        return train | chosen, "speaker", [said, *notes]
    if len(wanted) == 2 and (tested := _choose(known, speaker, {TEST: wanted[TEST]}, seed)) is not None:
        rest = [u for u in utterances if tested.get(u.id) != TEST]
        share = wanted[DEV] * total / sum(u.duration for u in rest)
        inner = _choose(rest, lambda u: names[u.audio], {DEV: share}, seed)
        if inner is not None:
            said = f"Too few speakers ({len(speakers)}) to hold some out for both dev and test: test has "
            said += "voices of its own, dev has other recordings of the voices of train."
            held = inner | {k: v for k, v in tested.items() if v == TEST}
            return train | held, "speaker and recording", [said, *notes]
    return f"There are too few speakers ({len(speakers)}), or one speaks nearly everything."


def _choose(
    utterances: Sequence[Utterance],
    group_of: Callable[[Utterance], Hashable],
    wanted: Mapping[str, float],
    seed: int,
    *,
    anyhow: bool = False,
) -> dict[str, str] | None:
    """Whole groups -> splits of about the wanted shares of the duration; None if that cannot be.

    Several seeded orders of the groups are tried and the one that comes nearest is taken. In each, the
    wanted splits are filled one after the other with every group that brings them nearer to their size.
    """
    sizes: dict[str, float] = {}
    for utterance in utterances:
        key = str(group_of(utterance))
        sizes[key] = sizes.get(key, 0.0) + max(utterance.duration, 1e-6)
    if len(sizes) <= len(wanted):
        return None
    total = sum(sizes.values())
    targets = {name: share * total for name, share in wanted.items()}
    trials = 64 if len(sizes) <= 1000 else 4  # many small groups fill any size in any order
    placed, cost = {}, float("inf")
    for trial in range(trials):
        held = _fill(sorted(sizes, key=lambda g: _rank(seed, trial, g)), sizes, targets)
        filled = {name: sum(sizes[g] for g, s in held.items() if s == name) for name in targets}
        away = sum(abs(filled[name] - target) / target for name, target in targets.items())
        if away < cost - 1e-9:
            placed, cost = held, away
    filled = {name: sum(sizes[g] for g, s in placed.items() if s == name) for name in targets}
    left = total - sum(filled.values())
    fits = left >= _TRAIN_KEEPS * (total - sum(targets.values()))
    fits = fits and all(filled[name] >= _AT_LEAST * target for name, target in targets.items())
    if not fits and not anyhow:
        return None
    return {u.id: placed.get(str(group_of(u)), TRAIN) for u in utterances}


def _fill(order: list[str], sizes: Mapping[str, float], targets: Mapping[str, float]) -> dict[str, str]:
    held: dict[str, str] = {}
    for position, (name, target) in enumerate(targets.items()):
        still_needed = len(targets) - position  # one group for each later split and one for train
        filled, count = 0.0, 0
        for group in order:
            if group in held or len(sizes) - len(held) <= still_needed:
                continue
            if filled + sizes[group] / 2 <= target:
                held[group] = name
                filled, count = filled + sizes[group], count + 1
        if not count:  # every group is larger than twice the size: the smallest does least harm
            smallest = min((g for g in order if g not in held), key=lambda g: sizes[g])
            held[smallest] = name
    return held


def _rank(seed: int, trial: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}/{trial}/{group}".encode("utf-8", "surrogatepass")).digest()


def _time_blocks(utterances: Sequence[Utterance], names: Mapping[Path, str]) -> dict[str, str]:
    """id -> stretch of time. Neighbours share one, so that no talk is torn sentence by sentence."""
    ordered = sorted(utterances, key=lambda u: (names[u.audio], u.start, u.id))
    size = sum(u.duration for u in ordered) / min(_BLOCKS, len(ordered))
    blocks: dict[str, str] = {}
    passed = 0.0
    for utterance in ordered:
        blocks[utterance.id] = f"block {int((passed + utterance.duration / 2) / size) if size else 0}"
        passed += utterance.duration
    return blocks


def _voices(utterances: Sequence[Utterance], splits: Mapping[str, str]) -> str:
    voices = {name: {u.speaker for u in utterances if splits[u.id] == name} for name in (TRAIN, DEV, TEST)}
    return ", ".join(f"{len(who)} in {name}" for name, who in voices.items() if who)


def _complete(
    utterances: Sequence[Utterance], *, dev: float, test: float, seed: int, move_texts: bool
) -> SplitResult:
    """Splits of the source under our names; a missing dev or test is taken from its train."""
    check_shares(dev, test)
    splits, notes = _own_names(utterances)
    present = Counter(splits.values())
    if TRAIN not in present:
        notes.append(
            f"The source's splits ({', '.join(present)}) were kept; none is train: "
            "--resplit makes train, dev and test instead."
        )
        return SplitResult(splits, "source", tuple(notes))
    held_out = [u for u in utterances if splits[u.id] in (DEV, TEST)]
    for_train = [u for u in utterances if splits[u.id] == TRAIN]
    voices = {u.speaker for u in for_train if u.speaker}
    shared = bool(voices & {u.speaker for u in held_out})
    wanted = {name: share for name, share in ((TEST, test), (DEV, dev)) if share and name not in present}
    if wanted:
        # A dev split should foretell the test: where the source tests on the voices of train, so does dev.
        within = [replace(u, speaker=None) for u in for_train] if shared else for_train
        taken, rule, said = _divide(within, dev=wanted.get(DEV, 0.0), test=wanted.get(TEST, 0.0), seed=seed)
        splits |= taken
        how = {"recording": "by recording", "time": "by stretches of time"}.get(rule, "by speaker")
        if shared:
            said = [f"The split is {how}, as the source's own held-out part has the voices of train too."]
        counts = Counter(taken.values())
        got = " and ".join(f"{counts[name]} utterances for {name}" for name in wanted)
        notes.append(f"The source has no {' and no '.join(wanted)} split: {got} were taken from train.")
        notes += said
    notes += _shared_voices(utterances, splits)
    splits, more = mind_texts(utterances, splits, move_texts)
    return SplitResult(splits, "source", (*notes, *more))


def _own_names(utterances: Sequence[Utterance]) -> tuple[dict[str, str], list[str]]:
    given = {u.id: canonical_split(u.split) for u in utterances if u.split}
    notes: list[str] = []
    present = set(given.values())
    # 'eval' means test beside a dev split and dev beside a test split; alone, nobody can tell, so it stays
    for word in ("eval", "evaluation"):
        if word in present and (DEV in present) != (TEST in present):
            meant = TEST if DEV in present else DEV
            given = {k: meant if v == word else v for k, v in given.items()}
            notes.append(f"The source's split '{word}' was taken as {meant}.")
            present = set(given.values())
    renamed = {u.split: given[u.id] for u in utterances if u.split and u.split != given[u.id]}
    plain = [f"'{a}' as {b}" for a, b in renamed.items() if not a.startswith("eval")]
    if plain:
        notes.append(f"Splits of the source: {', '.join(plain)}.")
    if len(given) < len(utterances):
        notes.append(f"{len(utterances) - len(given)} utterances without a split were put into train.")
    return {u.id: given.get(u.id, TRAIN) for u in utterances}, notes


def _shared_voices(utterances: Sequence[Utterance], splits: Mapping[str, str]) -> list[str]:
    voices: dict[str, set[str]] = {}
    for utterance in utterances:
        if utterance.speaker:
            voices.setdefault(splits[utterance.id], set()).add(utterance.speaker)
    shared = {n: voices[n] & voices.get(TRAIN, set()) for n in (DEV, TEST) if n in voices}
    said = [f"{len(who)} of {len(voices[n])} speakers of {n}" for n, who in shared.items() if who]
    if not said:
        return []
    verb = "speak" if sum(map(len, shared.values())) > 1 else "speaks"
    return [f"{' and '.join(said)} {verb} in train too: the error rate says little about new voices."]


def mind_texts(
    utterances: Sequence[Utterance], splits: dict[str, str], move: bool
) -> tuple[dict[str, str], list[str]]:
    overlap = text_overlap(utterances, splits)
    notes: list[str] = []
    if move:
        moved = {u.id: TRAIN for (_, other), those in overlap.items() if other == TRAIN for u in those}
        if moved:
            before = _shared_voices(utterances, splits)
            splits = splits | moved
            notes.append(
                f"{len(moved)} utterances of dev and test were moved to train: their texts stood there."
            )
            after = _shared_voices(utterances, splits)
            notes += after if after != before else []
            overlap = text_overlap(utterances, splits)
    sizes = Counter(splits[u.id] for u in utterances if _text_key(u.text))
    shares = {pair: len(those) / sizes[pair[0]] for pair, those in overlap.items()}
    of_train = [pair for pair in overlap if pair[1] == TRAIN]
    distinct = len({_text_key(u.text) for u in utterances})
    repeats = distinct <= len(utterances) / 2
    if of_train and repeats and all(shares[pair] >= _FIXED_TEXTS for pair in of_train):
        names = " and ".join(name for name, _ in of_train)
        example = (overlap[of_train[0]][0].text or "")[:60]
        notes.append(
            f"Nearly all texts of {names} also stand in train (for example '{example}'), as in lists of "
            "words or commands: the error rate will speak for these texts."
        )
        return splits, notes
    for (name, other), those in overlap.items():
        notes.append(
            f"{len(those)} of {sizes[name]} texts of {name} ({100 * shares[name, other]:.0f} %) also stand "
            f"in {other}, for example '{(those[0].text or '')[:60]}'."
        )
    return splits, notes


def _text_key(text: str | None) -> str:
    letters = "".join(
        " " if unicodedata.category(c)[0] in "PZ" else c
        for c in unicodedata.normalize("NFC", text or "").casefold()
    )
    return " ".join(letters.split())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
