"""A corpus and a recipe -> what is trained on and what is validated on; all that is left out has a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from firstwords.audio.augment import ColoredNoise, FolderNoise, NoiseClip, NoiseSource
from firstwords.data.manifest import (
    MANIFEST,
    QUARANTINE,
    Corpus,
    Utterance,
    load_corpus,
    read_quarantine,
)
from firstwords.data.places import LONGEST, NOTHING, Between, Item, joined_places, negative_places
from firstwords.data.voices import voice_of
from firstwords.errors import CorpusError
from firstwords.heads.ctc import CtcConfig
from firstwords.heads.head import TokenHead
from firstwords.heads.transducer.head import TransducerConfig
from firstwords.model.kinds import HeadSettings
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.search.speech_gate import closed_vocabulary
from firstwords.text.normalize import normalizer, writes_spaces
from firstwords.text.tokenizer import Tokenizer, fewest_frames
from firstwords.training.resume import fingerprint
from firstwords.training.settings import DataConfig

DEV_NAMES = ("dev", "validation", "valid")
HELD_OUT = 0.1  # of the training utterances, where the corpus has no dev split
HELD_OUT_SECONDS = 900.0


@dataclass
class Prepared:
    """Items to train on and to validate on."""

    train: list[Item]
    dev: list[Item]
    negatives: list[Utterance] = field(default_factory=list[Utterance])
    noises: NoiseSource = field(default_factory=ColoredNoise)
    between: Between = NOTHING
    words: frozenset[str] = frozenset()  # of a closed vocabulary
    left_out: dict[str, str] = field(default_factory=dict[str, str])  # id -> reason
    notes: list[str] = field(default_factory=list[str])

    @property
    def seconds(self) -> float:
        """Speech to train on, each utterance once."""
        return sum(item.duration for item in self.train if item.audio is not None)

    @property
    def epoch_seconds(self) -> float:
        """Audio of one epoch, places included."""
        return sum(item.duration for item in self.train)


def split_corpus(corpus: Corpus, seed: int) -> tuple[list[Utterance], list[Utterance], list[str]]:
    """Corpus -> training utterances, dev utterances, and what to tell the user about them."""
    train = list(corpus.split("train"))
    if not train:
        if aside := [u.id for u in corpus.utterances if u.split == "train"]:
            raise CorpusError(
                f"'{corpus.folder}': all {len(aside)} utterances of the split 'train' are in quarantine, "
                f"'{aside[0]}' for one: {corpus.quarantine[aside[0]]}.",
                mend=f"Mend the cause, then run 'firstwords check' again, or delete lines of {QUARANTINE}.",
            )
        found = ", ".join(f"'{name}'" for name in corpus.splits) or "none"
        raise CorpusError(
            f"'{corpus.folder}' has no usable utterance in the split 'train' (splits found: {found}).",
            mend="Run 'firstwords import' on the source: it makes splits where there are none.",
        )
    notes = (
        [f"{len(corpus.quarantine)} utterances are in quarantine and not used."] if corpus.quarantine else []
    )
    notes += [corpus.broken_note] if corpus.broken else []
    for name in DEV_NAMES:
        if dev := list(corpus.split(name)):
            return train, dev, notes
    train, dev, how = _hold_out(train, seed)
    notes.append(f"The corpus has no split 'dev': {len(dev)} training utterances are held out ({how}).")
    return train, dev, notes


def _hold_out(train: list[Utterance], seed: int) -> tuple[list[Utterance], list[Utterance], str]:
    if len(train) < 2:
        raise CorpusError(
            "One training utterance and no dev split: nothing can be held out.", mend="Add recordings."
        )
    draw = np.random.default_rng([seed, 6])
    limit = min(HELD_OUT * sum(u.duration for u in train), HELD_OUT_SECONDS)
    speakers = sorted({u.speaker for u in train if u.speaker is not None})
    by_speaker = len(speakers) >= 10 and all(u.speaker is not None for u in train)
    groups = [[u for u in train if u.speaker == s] for s in speakers] if by_speaker else [[u] for u in train]
    taken: set[str] = set()
    seconds = 0.0
    for place in draw.permutation(len(groups))[: len(groups) - 1]:
        if seconds >= limit:
            break
        taken.update(u.id for u in groups[place])
        seconds += sum(u.duration for u in groups[place])
    how = "of speakers of their own" if by_speaker else "of the same speakers: dev errors look too good"
    return [u for u in train if u.id not in taken], [u for u in train if u.id in taken], how


def training_texts(corpus: Corpus, recipe: Recipe) -> list[str]:
    """Normalized transcripts that a tokenizer may be made from: of the training split alone."""
    train, _, _ = split_corpus(corpus, recipe.seed)
    normalize = normalizer(recipe.text.normalizer)
    texts = [normalize(u.text) for u in train if u.text]
    if not any(texts):
        raise CorpusError(
            f"No training utterance of '{corpus.folder}' has a transcript.",
            mend="Check the column or files that 'firstwords import' took the text from.",
        )
    return texts


def prepare(
    corpus: Corpus,
    recipe: Recipe,
    tokenizer: Tokenizer,
    model: SpeechModel,
    *,
    batch_share: float = 1.0,
) -> Prepared:
    """Choose, tokenize and check every utterance of a corpus.

    Args:
        batch_share: of ``batch_seconds``, that one process takes.
    """
    train, dev, notes = split_corpus(corpus, recipe.seed)
    left_out: dict[str, str] = {}
    take = _Taker(recipe, tokenizer, model, left_out)
    items = take.items(train, taught=True)
    if not items:
        reasons = Counter(left_out.values()).most_common(3)
        raise CorpusError(
            f"None of {len(train)} training utterances can be used: "
            + "; ".join(f"{reason} ({count})" for reason, count in reasons),
            mend="Run 'firstwords check' on the corpus.",
        )
    validation = take.items(dev, taught=False)
    validation = within(validation, recipe.training.max_validation_seconds, recipe.seed)
    if not validation:
        raise CorpusError(
            f"None of {len(dev)} dev utterances can be used, for example: {next(iter(left_out.items()), '')}",
            mend="Run 'firstwords check' on the corpus.",
        )
    if not any(item.text for item in validation):
        raise CorpusError(
            f"No dev utterance has a word in it ({len(validation)} are usable): the best weights could not "
            "be told from others.",
            mend="Give speech the split 'dev', or rename that split: some of 'train' is then held out.",
        )
    prepared = Prepared(items, validation, left_out=left_out, notes=notes)
    prepared.negatives = recordings(recipe.data.negative_folders, recipe)
    if recipe.data.noise_folders:
        prepared.noises = FolderNoise(_noise_clips(recipe))
    batch = min(recipe.data.speeds) * batch_share * recipe.training.batch_seconds
    prepared.train = items + _places(items, recipe, min(batch, take.readable(taught=True)))
    prepared.between = _between(items, tokenizer)
    if recipe.text.closed and prepared.between.text:  # else joined words would be none of them
        prepared.words = closed_vocabulary(item.text for item in items if item.text)
    for reason, number in Counter(left_out.values()).most_common():
        ids = [name for name, why in left_out.items() if why == reason]
        shown = ", ".join(ids[:5]) + (", ..." if number > 5 else "")
        prepared.notes.append(f"Left out: {number} utterances, {reason}: {shown}")
    return prepared


def _before_changes(data: DataConfig, heard: float) -> float:
    """Seconds that an utterance may last if augmentation shall make no more than ``heard`` of them."""
    augment = data.augment
    for change in (augment.stretch, augment.speed):
        if change.probability:
            heard *= min(1.0, change.factor[0])
    if augment.edges.probability:
        heard -= 2 * max(0.0, augment.edges.seconds[1])
    return heard * min(1.0, *data.speeds)


def _places(items: Sequence[Item], recipe: Recipe, most: float) -> list[Item]:
    """Places of an epoch; none longer than ``most`` seconds or the longest utterance allowed."""
    data = recipe.data
    longest = min(LONGEST, data.max_duration, most)
    durations = [item.duration for item in items]
    negatives = negative_places(data.negative_share, durations, longest=longest, seed=recipe.seed)
    if not any(item.text for item in items):
        return negatives
    return negatives + joined_places(data.joined_share, durations, longest=longest, seed=recipe.seed)


def _between(items: Sequence[Item], tokenizer: Tokenizer) -> Between:
    """A space where the language writes any: also where all utterances are single words."""
    if not writes_spaces(item.text for item in items):
        return NOTHING
    both = [item.text for item in items if item.text][:1] * 2
    alone, joined = tokenizer.encode(both[0]), tokenizer.encode(" ".join(both))
    return Between(" ", tuple(joined[len(alone) : len(joined) - len(alone)]))


class _Taker:
    """Utterance -> Item, or a reason in ``left_out``."""

    def __init__(
        self, recipe: Recipe, tokenizer: Tokenizer, model: SpeechModel, left_out: dict[str, str]
    ) -> None:
        self.data = recipe.data
        self.normalize = normalizer(recipe.text.normalizer)
        self.tokenizer = tokenizer
        self.frames: Callable[[float], int] = lambda seconds: encoded_frames(model, seconds)
        self.heads = recipe.heads
        lengths = [head.longest for _, head in model.named_heads() if isinstance(head, TokenHead)]
        self.longest = min((n for n in lengths if n is not None), default=None)
        self.longest_seconds = model.longest_seconds
        self.left_out = left_out

    def items(self, utterances: Sequence[Utterance], *, taught: bool) -> list[Item]:
        """Those that can be used.

        Args:
            taught: False: text may be too long for a head. Dev is only read, and to leave out what a model
                cannot get right would make its error rate look better than it is.
        """
        return [item for u in utterances if (item := self._item(u, taught=taught)) is not None]

    def _item(self, utterance: Utterance, *, taught: bool) -> Item | None:
        reason = None
        text, tokens = "", ()
        if utterance.text is None:
            reason = "without transcript"
        elif utterance.duration < self.data.min_duration:
            reason = f"shorter than {self.data.min_duration:g} s (data.min_duration)"
        elif utterance.duration > self.data.max_duration:
            reason = f"longer than {self.data.max_duration:g} s (data.max_duration)"
        elif utterance.duration > (most := self.readable(taught=taught)):
            reason = f"longer than {most:.3g} s, more than the encoder has positions (encoder.max_frames)"
        else:
            text = self.normalize(utterance.text)
            tokens = tuple(self.tokenizer.encode(text))
            if taught:
                reason = self._too_long(tokens, utterance.duration)
        if reason is not None:
            self.left_out[utterance.id] = reason
            return None
        place = (utterance.id, utterance.audio, utterance.start, utterance.duration)
        return Item(*place, text, tokens, voice=voice_of(utterance))

    def readable(self, *, taught: bool) -> float:
        """Seconds of the longest utterance that the encoder can read, as slowly as it may be heard."""
        return _before_changes(self.data, self.longest_seconds) if taught else self.longest_seconds

    def _too_long(self, tokens: Sequence[int], seconds: float) -> str | None:
        """Why no head, or not every head, can write so many tokens."""
        needed = _frames_needed(self.heads, tokens)
        if needed and needed > self.frames(seconds):
            return "with more text than fits into the audio (no alignment exists)"
        if self.longest is not None and len(tokens) > self.longest:
            return f"with more than {self.longest} tokens and the end (heads.attention.most_tokens)"
        return None


def _frames_needed(heads: Mapping[str, HeadSettings], tokens: Sequence[int]) -> int:
    """Fewest encoded frames in which every head can write the tokens; 0 where none needs any.

    CTC needs a frame for each and one between equal neighbours, a transducer whose tokens take frames one
    for each, and one for the last blank where its durations are above 0.
    """
    needed = 0
    for head in heads.values():
        if isinstance(head, CtcConfig):
            needed = max(needed, fewest_frames(tokens))
        elif isinstance(head, TransducerConfig) and head.topology != "regular":
            needed = max(needed, len(tokens))
        elif isinstance(head, TransducerConfig) and head.durations is not None and 0 not in head.durations:
            needed = max(needed, len(tokens) + 1)
    return needed


def encoded_frames(model: SpeechModel, seconds: float) -> int:
    """Frames that the head sees of so many seconds of audio."""
    frames = torch.tensor([int(seconds / model.frontend.frame_shift)])
    return int(model.encoder.output_lengths(frames))


def within(items: list[Item], seconds: float, seed: int) -> list[Item]:
    """A seeded choice of at most ``seconds`` of audio, in the order given."""
    order = np.random.default_rng([seed, 7]).permutation(len(items))
    kept: set[int] = set()
    total = 0.0
    for place in order.tolist():
        if not kept or total + items[place].duration <= seconds:
            kept.add(place)
            total += items[place].duration
    return [item for place, item in enumerate(items) if place in kept]


def recordings(folders: Sequence[str], recipe: Recipe) -> list[Utterance]:
    """Utterances of corpora of noise or non-speech."""
    splits = set(recipe.data.noise_splits)
    found: list[Utterance] = []
    for folder in folders:
        here = [u for u in load_corpus(Path(folder)).usable if not splits or u.split in splits]
        if not here:
            raise CorpusError(
                f"'{folder}' has no recording in the splits {sorted(splits)}.",
                mend="Change data.noise_splits in the recipe.",
            )
        found += here
    return found


def _noise_clips(recipe: Recipe) -> list[Path | str | NoiseClip]:
    """Recordings of noise: those of a corpus, or all files of a folder that is none."""
    clips: list[Path | str | NoiseClip] = []
    for folder in recipe.data.noise_folders:
        if (Path(folder) / MANIFEST).is_file():
            found = recordings([folder], recipe)
            clips += [NoiseClip(u.audio, start=u.start, duration=u.duration) for u in found]
        else:
            clips.append(Path(folder))
    return clips


def corpus_fingerprints(corpus: Corpus) -> tuple[str, str]:
    """Changes when an utterance is added, removed, edited or put into quarantine, whatever the reason.

    The second is that of earlier versions, for which reasons counted, too.
    """
    manifest = (corpus.folder / MANIFEST).read_text(encoding="utf-8")
    file = corpus.folder / QUARANTINE
    aside = file.read_text(encoding="utf-8") if file.is_file() else ""
    return fingerprint("\0".join((manifest, *sorted(corpus.quarantine)))), fingerprint(f"{manifest}\0{aside}")


def as_it_was(corpus: Corpus, run: Path) -> tuple[Corpus, str]:
    """A corpus with what was in quarantine when the run in this folder began, and what to tell of it.

    'firstwords check' may put more aside while a run is interrupted, and other utterances would make another
    run of it. What cannot be read is left out by the run itself.
    """
    if not (run / QUARANTINE).is_file():
        return corpus, ""
    then = replace(corpus, quarantine=read_quarantine(run))
    now, before = set(corpus.quarantine), set(then.quarantine)
    if now == before:
        return then, ""
    return then, (
        f"The quarantine of the corpus has changed since this run began ({len(now - before)} utterances put "
        f"aside, {len(before - now)} taken back): it goes on with those it began with. A run in another --to "
        "folder begins with the others."
    )
