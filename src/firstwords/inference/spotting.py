"""What a recogniser makes of phrases where nobody says them: numbers without which they cannot be spotted.

Means and deviations come from utterances of the training split in which a phrase is not said, the threshold
from dev: the least at which no more than so many phrases are found where nobody says them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstwords.data.manifest import Corpus, Utterance
from firstwords.errors import CorpusError, FirstwordsError, UsageError
from firstwords.inference.recognizer import Recognizer
from firstwords.search.phrase_rows import spelled_phrases
from firstwords.search.spotted import SpottedFile, SpottedPhrase, spotter_of
from firstwords.search.spotting import PhraseTable, background_of
from firstwords.search.words import WordBoundaries
from firstwords.text.normalize import Normalizer, normalizer

BACKGROUND = 400  # utterances of training
DECOYS = 150
SHARE = 0.5  # of the decoys (LOG.md, 2026-11-22)
LONGEST = 30.0  # seconds of an utterance that is used
_LEAST = 1.5  # z below which nothing is worth finding
_MOST = 99.0  # z that nothing reaches
_SHORTEST_DECOY = 3  # letters
_FEW = 20  # utterances: with fewer there is no deviation

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Calibrated:
    """The file to write, and what was seen on dev: phrases found where they are said, and where not."""

    file: SpottedFile
    hits: int
    said: int
    false_alarms: int
    words: int
    skipped: tuple[str, ...]  # utterances that could not be read, and why


def calibrate_phrases(
    recognizer: Recognizer,
    phrases: Sequence[str],
    corpus: Corpus,
    *,
    false_alarms: float = 0.01,
    split: str = "dev",
    progress: Progress | None = None,
) -> Calibrated:
    """Phrases (normalized as the recogniser's texts) -> what is needed to spot them.

    Args:
        corpus: with transcripts; its training split is the background.
        false_alarms: phrases found where nobody says them that are allowed, as a share of the words said.
        split: where they are counted; never test.
    """
    if recognizer.model.ctc is None:
        raise UsageError(
            f"'{recognizer.folder}' has no CTC head: phrases cannot be spotted in its frames.",
            mend="Use a model with [heads.ctc] in its recipe.",
        )
    normal = normalizer(recognizer.recipe.text.normalizer)
    near = _usable(corpus, "train")
    near = near[:: max(1, len(near) // BACKGROUND)][:BACKGROUND]
    far = _usable(corpus, split)
    recognizer.meet([*near, *far])
    for name, heard in (("train", near), (split, far)):
        if len(heard) < _FEW:
            raise CorpusError(
                f"'{corpus.folder}' has {len(heard)} usable utterances with text in '{name}'.",
                mend=f"Phrases are measured on {_FEW} or more, of {LONGEST:g} s at most.",
            )
    decoys = _decoys(near, phrases, normal)
    listed = (*phrases, *decoys)
    spelled = [spelled_phrases({text: 1.0}, recognizer.tokenizer)[0].tokens for text in listed]
    table = PhraseTable(spelled, WordBoundaries.of(recognizer.tokenizer.pieces))
    skipped: list[str] = []
    done = 0

    def frames(utterance: Utterance) -> NDArray[np.float64] | None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(near) + len(far))
        try:
            return _log_probs(recognizer, utterance)
        except FirstwordsError as error:
            skipped.append(f"{utterance.id}: {error}")
            return None

    scores: list[NDArray[np.float32]] = []
    said: list[list[bool]] = []
    for utterance in near:
        if (one := frames(utterance)) is not None:
            scores.append(table.scan(one).scores)
            said.append(_said(listed, normal(utterance.text or "")))
    background = background_of(np.array(scores), np.array(said))
    entries = [
        SpottedPhrase(text=text, mean=round(float(mean), 4), deviation=round(float(deviation), 4))
        for text, mean, deviation in zip(listed, background.means, background.deviations, strict=True)
    ]
    file = SpottedFile(
        model=recognizer.weights,
        threshold=_LEAST,
        share=SHARE if decoys else 0.0,
        false_alarms=false_alarms,
        corpus=corpus.folder.resolve().name,
        split=split,
        phrases=tuple(entries[: len(phrases)]),
        decoys=tuple(entries[len(phrases) :]),
    )
    spotter = spotter_of(file, recognizer.tokenizer)
    found: list[tuple[float, bool]] = []
    words = spoken = 0
    for utterance in far:
        if (one := frames(utterance)) is None:
            continue
        text = normal(utterance.text or "")
        there = _said(phrases, text)
        words += len(text.split())
        spoken += sum(there)
        found += [(spot.z, there[spot.phrase]) for spot in spotter.spots(one)]
    threshold, hits, wrong = _threshold(found, int(false_alarms * words))
    return Calibrated(file.with_(threshold=threshold), hits, spoken, wrong, words, tuple(skipped))


def _usable(corpus: Corpus, split: str) -> list[Utterance]:
    return [u for u in corpus.split(split) if u.text and u.duration <= LONGEST]


def _decoys(utterances: Sequence[Utterance], phrases: Sequence[str], normal: Normalizer) -> list[str]:
    """Words of these utterances, evenly over the alphabet, none of them a phrase."""
    words = {word for u in utterances for word in normal(u.text or "").split()}
    known = sorted(word for word in words - set(phrases) if len(word) >= _SHORTEST_DECOY)
    return known[:: max(1, -(-len(known) // DECOYS))]


def _said(phrases: Sequence[str], text: str) -> list[bool]:
    padded = f" {' '.join(text.split())} "
    return [f" {phrase} " in padded for phrase in phrases]


def _log_probs(recognizer: Recognizer, utterance: Utterance) -> NDArray[np.float64]:
    found = recognizer.log_probs(utterance.audio, start=utterance.start, duration=utterance.duration)
    return found.astype(np.float64)


def _threshold(found: Sequence[tuple[float, bool]], allowed: int) -> tuple[float, int, int]:
    """z of what was found and whether it was said -> the least threshold; hits and false alarms with it."""
    threshold, hits, wrong = float("inf"), 0, 0
    counted = (0, 0)
    for z, said in sorted(found, reverse=True):
        hits, wrong = hits + said, wrong + (not said)
        if wrong > allowed:
            break
        threshold, counted = z, (hits, wrong)
    return min(threshold, _MOST), counted[0], counted[1]
