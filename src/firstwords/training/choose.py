"""No recipe given: one is chosen from the hours of speech, the time and the machine, with reasons.

The figures behind it (audio-seconds per second of training, one process) are rough on purpose: they decide
between sizes that differ by factors of four to ten. What is really trained is planned from a measurement
(plan.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from firstwords.audio.augment import AugmentConfig, NoiseConfig, RoomConfig
from firstwords.cores import available_cores
from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.errors import UsageError
from firstwords.features.fbank import FbankConfig
from firstwords.features.specaugment import SpecAugmentConfig
from firstwords.heads.ctc import CtcConfig
from firstwords.model.recipe import Recipe
from firstwords.search.speech_gate import FEW_WORDS, OFTEN
from firstwords.text.characters import GraphemeConfig
from firstwords.text.normalize import normalizers_for
from firstwords.text.subwords import SubwordConfig
from firstwords.training.settings import DataConfig, TextConfig, TrainingConfig

Size = Literal["nano", "tiny", "S", "M", "L", "kws"]
SIZES: tuple[Size, ...] = ("nano", "tiny", "S", "M", "L", "kws")

# Audio-seconds per second and CPU core, and on a current GPU. Measured with native bfloat16: tiny 97 to 125,
# S 36 (LOG.md, 2026-11-21); nano is half of what two processes make in the quickstart. Others are guesses.
_CPU_SPEED: dict[Size, float] = {"nano": 130, "tiny": 100, "S": 12, "M": 5, "L": 2, "kws": 70}
_GPU_SPEED: dict[Size, float] = {"nano": 4000, "tiny": 3000, "S": 1500, "M": 800, "L": 400, "kws": 3000}
_PARAMETERS: dict[Size, float] = {"nano": 0.56e6, "tiny": 2.36e6, "S": 22e6, "M": 64e6, "L": 147e6}

# How often the rarest of few words must stand in the texts to be worth a piece of its own. Digits, WER on dev
# with whole words and with letters: 23.4 and 8.4 % from 30 clips of each, 0.9 and 4.9 % from 100 (LOG.md,
# 2026-11-22).
WHOLE_WORDS = 60
PIECES_A_WORD = 30  # asked of BPE, more than a word has merges: every word becomes whole
TELEPHONE = 8000  # hertz: recordings with no more hold nothing in the upper half of the usual 80 bands
TELEPHONE_MELS = 40
CORPUS_SETTINGS = ("dropout", "output_downsampling")  # of an encoder: not part of its size
# Of the utterances may be lost because their text does not fit into 25 frames a second. Digits, of which 7 %
# do not fit, were read no better at 50 in equal minutes, though ahead at equal updates (LOG.md, 2026-11-21).
MOST_CROWDED = 0.1
# Updates that a short run should have. Digits with noise in five minutes: 32 % CER on dev after 1500 updates
# of 32 s, 2.9 to 3.8 after 3700 to 4800 of 22 or 16 s, all of them 35 passes (LOG.md, 2026-11-21).
ENOUGH_STEPS = 4000
# Encoded passes (two views count twice) from which on CR-CTC is ahead of plain CTC (LOG.md, 2026-11-21).
CONSISTENCY_PASSES = 60.0
CONSISTENCY_BATCH = 40.0  # seconds; both views of it are encoded
# A model hears nearly whole features until it has found where the letters are, one view of them: reference
# batches until masks are as wide as set, and until there are two views (a third of a run is 20,000). Yoruba
# in 11 core-minutes: dev CER 20 instead of 86 %; english left 74 % only so (LOG.md, 2026-11-21).
MASK_WARMUP = {1: 60_000, 2: 20_000}  # by views
CONSISTENCY_START = 10_000
# Encoded passes; with fewer, nothing is masked. Dev CER after 12 passes without masks and with masks that
# widen, two seeds: yoruba 22.1, 23.2 and 26.3, 34.3 %; swahili 21.0, 25.4 and 24.4, 36.0; yoruba after 24
# passes, one seed, 18.9 and 19.7 (LOG.md, 2026-11-22 and 2026-11-23).
MASKED_PASSES = 24.0
# Encoded; with fewer, rooms and noise are thought to cost a small model more than they bring. A guess: all
# runs on yoruba were made without, and with them the quickstart's noisy corpus was learned badly.
ROBUST_PASSES = 300.0
LIGHT_DROPOUT = (0.15, 0.1)  # of models this small, against 0.3 to 0.1
# Digits: of 320 clips of noise 14 got a text and none a word; with 10 %, 61 to 77 (LOG.md, 2026-11-21).
NEGATIVE_SHARE = 0.25
CONSISTENCY = 0.2  # weight, as published
TAPPED_STACKS = (2, 3)  # the middle of a Zipformer: their predictions are fed back (heads/intermediate.py)
# Seconds of the longest utterance below which bfloat16 is slow on a CPU: digits, 2 s at most, took 0.50 s a
# step of 'tiny' and 0.08 in float32 (LOG.md, 2026-11-21). With nano it gains nothing at any length.
SHORT = 3.0
PASSES = 15.0  # over the data: fewer, and a smaller model learns more in the same time
GREATEST_BATCH = {"cpu": 60.0, "cuda": 600.0}
LEAST_BATCH = {"cpu": 15.0, "cuda": 60.0}
# Audio-seconds of a forward and backward pass on a CPU; larger batches are made of several. 80 s of S at once
# take 2.3 GB, in halves 1.62, in thirds 1.59 and 5 to 7 % more time, in quarters 1.19 and 13 to 17 % (LOG.md,
# 2026-11-22). M and L are a guess.
_AT_ONCE: dict[Size, float] = {"S": 40, "M": 27, "L": 27}


@dataclass(frozen=True)
class Choice:
    """A recipe, and why it looks as it does."""

    recipe: Recipe
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Material:
    """What a corpus offers, and where it will be learned.

    Args:
        hours: of training speech.
        longest: utterance in seconds.
        crowded: share of the utterances that have (almost) more letters than frames at 25 a second.
        words: distinct words of the training texts; None: not counted.
        rarest: how often the rarest of them stands there.
        noise: True where the user names recordings of noise: they are mixed in, however short the run.
        negatives: True where the user names recordings of non-speech.
        usual_encoder: False where the user names another kind, or one that streams.
        sample_rate: hertz that nearly all recordings have at most; None: not looked up.
        cores: of the processor that training may use.
        fine_tuned: training starts from a model, which knows where letters are.
    """

    hours: float
    longest: float = 20.0
    crowded: float = 0.0
    words: int | None = None
    rarest: int = 0
    noise: bool = False
    negatives: bool = False
    usual_encoder: bool = True
    sample_rate: int | None = None
    cores: int | None = None
    fine_tuned: bool = False

    @property
    def closed(self) -> bool:
        """True where there are few words and each is frequent."""
        return self.words is not None and self.words <= FEW_WORDS and self.rarest >= OFTEN

    @property
    def learned_whole(self) -> bool:
        """True where each word is heard often enough to be learned as one thing."""
        return self.closed and self.rarest >= WHOLE_WORDS


def choose_recipe(
    material: Material,
    *,
    name: str,
    language: str,
    minutes: float | None,
    device: str,
    size: str | None = None,
) -> Choice:
    """Material, time and machine -> recipe.

    Args:
        minutes: wall clock; None: an hour.
        device: "cpu" or "cuda".
        size: of the Zipformer, if the user names one.
    """
    if size is not None and size not in SIZES:
        raise UsageError(f"--size {size}: no such size.", mend=f"Sizes: {', '.join(SIZES)}.")
    budget = minutes if minutes is not None else 60.0
    gpu = device == "cuda"
    cores = material.cores or available_cores()
    place = "a GPU" if gpu else f"{cores} CPU cores"
    reasons = [f"{material.hours:.2f} h of speech, {budget:g} min on {place}"]
    chosen = _named(size) or _size(material.hours, budget, gpu, cores, reasons)
    speech = budget * 60 * _speed(chosen, gpu, cores)  # seconds that can be encoded
    passes = speech / max(material.hours * 3600, 1.0)
    views = _views(speech, passes, gpu)
    batch = _batch_seconds(material, chosen, speech, views, gpu, cores)
    reasons.append(
        f"batches of {batch:g} s: about {speech / batch / views:.0f} steps, "
        f"{passes / views:.0f} passes over the data"
    )
    if views == 2:
        reasons.append("time enough to hear everything in two masked views that must agree (CR-CTC)")
    augment = _augmentation(material, chosen, passes, reasons)
    tokenizer = _pieces(material, reasons)
    encoder = _encoder(material, chosen, tokenizer, reasons)
    parts = 1 if gpu else parts_of_batch(chosen, views * batch)
    if parts > 1:
        reasons.append(
            f"each batch in {parts} parts, for the sake of memory (training.accumulate; "
            "training.batch_seconds is that of a part)"
        )
    # Few words, each frequent, are found at once: what is known of those was measured with full masks.
    masked = passes >= MASKED_PASSES or material.fine_tuned
    light = masked and not material.learned_whole
    if not masked:
        reasons.append("too few passes for masks (SpecAugment)")
    elif light:
        reasons.append("masks that widen as it learns")
    training, scoring = normalizers_for(language)
    features, masks = _features(material, reasons)
    recipe = Recipe(
        name=name,
        language=language,
        text=TextConfig(normalizer=training, scoring=scoring),
        features=features,
        tokenizer=tokenizer,
        encoder=encoder,
        heads={"ctc": _ctc(views, plain=encoder.causal or not material.usual_encoder)},
        data=DataConfig(
            sample_rate=features.sample_rate, augment=augment, negative_share=_negatives(material, reasons)
        ),
        training=TrainingConfig(
            minutes=budget,
            batch_seconds=round(batch / parts, 1),
            accumulate=parts,
            sorted_first_epoch=False,
            specaugment=masks if masked else masks.with_(probability=0.0),
            mask_warmup=MASK_WARMUP[views] if light else 0,
            consistency_start=CONSISTENCY_START if light and views == 2 else 0,
            precision="fp32" if not gpu and (chosen == "nano" or material.longest < SHORT) else "auto",
        ),
    )
    return Choice(recipe, tuple(reasons))


def _negatives(material: Material, reasons: list[str]) -> float:
    """Of the utterances of an epoch; short ones (digits, commands) leave room for many."""
    usual = DataConfig().negative_share
    if not material.negatives or not material.closed:
        return usual
    reasons.append(f"few words, and non-speech is named: {NEGATIVE_SHARE:.0%} of the utterances are that")
    return NEGATIVE_SHARE


def _ctc(views: int, *, plain: bool) -> CtcConfig:
    if views == 1:
        return CtcConfig()
    if plain:  # predictions fed back prevent streams, and an encoder that the user names may have no stacks
        return CtcConfig(consistency=CONSISTENCY)
    # Yoruba, dev CER: 16.1 % after 82 encoded passes with these taps, 16.8 % after 164 without; one run each
    # (LOG.md, 2026-11-21).
    return CtcConfig(consistency=CONSISTENCY, intermediate=TAPPED_STACKS, self_conditioned=True)


def _views(speech: float, passes: float, gpu: bool) -> int:
    """Two (CR-CTC) where there is time for enough passes, and for enough steps although each costs twice."""
    steps = speech / (2 * LEAST_BATCH["cuda" if gpu else "cpu"])
    return 2 if passes >= CONSISTENCY_PASSES and steps >= ENOUGH_STEPS else 1


def _batch_seconds(material: Material, size: Size, speech: float, views: int, gpu: bool, cores: int) -> float:
    place = "cuda" if gpu else "cpu"
    batch = min(max(speech / views / ENOUGH_STEPS, LEAST_BATCH[place]), GREATEST_BATCH[place])
    if views == 2:
        batch = min(batch, GREATEST_BATCH["cuda"] / 2 if gpu else CONSISTENCY_BATCH)
    # Two processes share a batch of a small model (crew.py): with less than this, half a batch is one
    # utterance, as long as it happens to be, and bfloat16 is slow for every new length (data/shapes.py).
    shares = 1.5 * min(cores, 2) if size in ("nano", "tiny") and not gpu and cores > 1 else 1.0
    return float(round(max(batch, shares * min(material.longest, 20.0), min(material.longest, 30.0))))


def _augmentation(material: Material, size: Size, passes: float, reasons: list[str]) -> AugmentConfig:
    if size not in ("nano", "tiny") or passes >= ROBUST_PASSES or material.noise:
        return AugmentConfig()
    reasons.append("too short for rooms and noise: none are added (data.augment)")
    return AugmentConfig(room=RoomConfig(probability=0.0), noise=NoiseConfig(probability=0.0))


def _features(material: Material, reasons: list[str]) -> tuple[FbankConfig, SpecAugmentConfig]:
    """Features as fine as the recordings are, and masks as wide as they are in proportion to them."""
    masks = SpecAugmentConfig()  # pyright: ignore[reportCallIssue]
    if material.sample_rate is None or material.sample_rate > TELEPHONE:
        return FbankConfig(), masks
    reasons.append(f"features of the band that recordings of {material.sample_rate} Hz have")
    width = round(masks.frequency_width * TELEPHONE_MELS / FbankConfig().mels)
    return (
        FbankConfig(sample_rate=TELEPHONE, mels=TELEPHONE_MELS),
        masks.model_copy(update={"frequency_width": width}),
    )


def _pieces(material: Material, reasons: list[str]) -> GraphemeConfig | SubwordConfig:
    words = material.words
    # A whole word is one decision: sneezes are read as digits with all confidence (LOG.md, 2026-11-21: 72 of
    # 80 clips of noise silent, with letters 80). Who names noise wants silence more than the last percent.
    if words is not None and material.learned_whole and not material.noise:
        reasons.append(
            f"only {words} different words, each at least {material.rarest} times: "
            "whole words as pieces (letters remain for others)"
        )
        return SubwordConfig(model="bpe", vocabulary=PIECES_A_WORD * words)
    why = (
        "whole words would answer noise"
        if material.learned_whole and material.noise
        else "with little text, longer ones are too rare"
    )
    reasons.append(f"graphemes as pieces: {why}")
    return GraphemeConfig()


def _encoder(
    material: Material, size: Size, tokenizer: GraphemeConfig | SubwordConfig, reasons: list[str]
) -> ZipformerConfig:
    encoder = ZipformerConfig.preset(size)
    if size in ("nano", "tiny"):
        encoder = encoder.with_(dropout=LIGHT_DROPOUT)
    if material.crowded > MOST_CROWDED and isinstance(tokenizer, GraphemeConfig):
        encoder = encoder.with_(output_downsampling=1)
        reasons.append(
            "50 frames a second instead of 25: letters follow so fast that "
            f"{100 * material.crowded:.1f} % of the utterances would not fit"
        )
    return encoder


def parts_of_batch(size: Size, seconds: float) -> int:
    """Passes into which a batch is divided on a CPU, so that its activations fit a laptop's memory."""
    return math.ceil(seconds / _AT_ONCE.get(size, seconds))


def nearest_size(parameters: int) -> Size:
    """The Zipformer that is as large as a model: batches, time and number format are chosen as for it."""
    return min(_PARAMETERS, key=lambda size: abs(math.log(max(parameters, 1) / _PARAMETERS[size])))


def _named(size: str | None) -> Size | None:
    return next((known for known in SIZES if known == size), None)


def _size(hours: float, minutes: float, gpu: bool, cores: int, reasons: list[str]) -> Size:
    """The largest size that the data can feed and the time lets pass over the data often enough."""
    fed: list[Size] = ["nano"]
    if hours >= 0.5:
        fed.append("tiny")
    if hours >= 5:
        fed.append("S")
    if hours >= 100:
        fed.append("M")
    if hours >= 500:
        fed.append("L")
    for size in reversed(fed):
        passes = minutes * 60 * _speed(size, gpu, cores) / max(hours * 3600, 1.0)
        if passes >= PASSES or size == fed[0]:
            why = (
                "as large as so much speech can feed" if size == fed[-1] else "a larger one would be too slow"
            )
            reasons.append(f"Zipformer '{size}': {why}")
            return size
    return "nano"


def _speed(size: Size, gpu: bool, cores: int) -> float:
    # Two cores give about 1.6 times one; beyond eight little is gained at these sizes.
    return _GPU_SPEED[size] if gpu else _CPU_SPEED[size] * min(cores, 8) ** 0.7
