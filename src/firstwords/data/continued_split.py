"""A corpus that has grown: who was held out before stays held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from firstwords.data.manifest import Utterance
from firstwords.data.split import TRAIN, Rule, SplitResult, mind_texts


def continue_split(
    utterances: Sequence[Utterance], before: Sequence[Utterance], *, rule: Rule, move_texts: bool = False
) -> SplitResult | None:
    """The split of an earlier import kept; what is new joins its voice, its recording, or else train.

    So a model that was trained before is never tested on what it was trained on. None where too little of
    the old split is left to have a train and a held-out part.

    Args:
        before: what was imported then, with its splits.
        rule: by which it was split.
    """
    known = {u.id: u.split for u in before if u.split}
    voices = {u.speaker: u.split for u in before if u.split and u.speaker} if "speaker" in rule else {}
    places = {u.audio: u.split for u in before if u.split}
    splits = {
        u.id: known.get(u.id) or voices.get(u.speaker or "") or places.get(u.audio) or TRAIN
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
