"""A corpus that has grown: who was held out before stays held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from firstwords.data.manifest import Utterance
from firstwords.data.split import TRAIN, Rule, SplitResult, mind_texts


def continue_split(
    utterances: Sequence[Utterance], before: Sequence[Utterance], *, rule: Rule, move_texts: bool = False
) -> SplitResult | None:
    """The split of an earlier import kept; what is new joins its voice, its recording, or else train.

    So a model that was trained before is never tested on what it was trained on. An utterance whose times
    were corrected has a new id: it goes where the speech went that stood there. None where too little of the
    old split is left to have a train and a held-out part.

    Args:
        before: what was imported then, with its splits; the same recordings have the same paths as now.
        rule: by which it was split.
    """
    known = {u.id: u.split for u in before if u.split}
    voices = {u.speaker: u.split for u in before if u.split and u.speaker} if "speaker" in rule else {}
    places: dict[Path, list[Utterance]] = {}
    for utterance in before:
        places.setdefault(utterance.audio, []).append(utterance)
    splits = {
        u.id: known.get(u.id) or voices.get(u.speaker or "") or _nearest(u, places.get(u.audio, ())) or TRAIN
        for u in utterances
    }
    names = set(splits.values())
    if TRAIN not in names or names == {TRAIN} < set(known.values()):
        return None
    new = Counter(splits[u.id] for u in utterances if u.id not in known)
    notes = ["The split is that of the import before (--resplit makes it anew)."]
    if new:
        where = ", ".join(f"{count} to {name}" for name, count in new.items())
        notes.append(f"{new.total()} utterances that were not there then: {where}.")
    splits, more = mind_texts(utterances, splits, move_texts)
    return SplitResult(splits, rule, (*notes, *more))


def _nearest(utterance: Utterance, others: Sequence[Utterance]) -> str | None:
    """The split of what shares most time with an utterance of the same recording, else of what is nearest."""

    def shared(other: Utterance) -> float:  # seconds; below 0: the gap between both
        ends = (u.start + u.duration for u in (utterance, other))
        return min(ends) - max(utterance.start, other.start)

    return max((u for u in others if u.split), key=shared).split if any(u.split for u in others) else None
