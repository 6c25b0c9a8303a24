"""The make-up of the synthetic corpus: settings, and the plan of what each voice says.

Everything is drawn from one seed; the plan of an utterance depends on nothing but (seed, split, index).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from firstwords.config import Config, dump_config, parse_config
from firstwords.quickstart.voices import DrawnVoice, draw_voices

SplitName = Literal["train", "dev", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NON_SPEECH = "non-speech"  # the value of the label 'kind' of an utterance without words


class Voice(Config):
    """One espeak-ng voice and the only split it may speak in."""

    name: str
    split: SplitName
    rate: int = Field(ge=80, le=400)  # words a minute
    pitch: int = Field(ge=0, le=99)

    @property
    def timbre(self) -> str:
        """What makes the voice sound like itself: the variant, or the accent where there is none."""
        accent, _, variant = self.name.partition("+")
        return variant or accent


class Utterances(Config):
    """How many utterances with words each split gets."""

    train: int = Field(gt=0)
    dev: int = Field(gt=0)
    test: int = Field(gt=0)


class MakeUp(Config):
    """Everything that decides the synthetic corpus."""

    name: str
    language: str
    seed: int
    sample_rate: int
    snr_db: tuple[float, float]
    babble_snr_db: tuple[float, float]
    room_share: float = Field(ge=0, le=1)
    room_t60: tuple[float, float]
    non_speech_share: float = Field(ge=0, le=0.5)
    digits: tuple[int, int]
    digit_share: float = Field(ge=0, le=1)
    two_phrase_share: float = Field(ge=0, le=1)
    commands: tuple[str, ...]
    utterances: Utterances
    voices: tuple[Voice, ...]
    # Made up for training, see voices.py; espeak-ng knows at most 349 voices and comes with some 200.
    drawn_voices: int = Field(ge=0, le=150)

    @model_validator(mode="after")
    def voices_are_enough_and_disjoint(self) -> Self:
        splits: dict[str, str] = {}
        for voice in self.voices:
            if splits.setdefault(voice.timbre, voice.split) != voice.split:
                raise ValueError(f"voice '{voice.timbre}' speaks in {splits[voice.timbre]} and {voice.split}")
        held_out = [v for v in self.voices if v.split == "test"]
        if len(self.voices) < 12 or len(held_out) < 3 or not any(v.split == "dev" for v in self.voices):
            raise ValueError("at least 12 voices are needed, 3 of them only in test and one only in dev")
        return self

    @property
    def digest(self) -> str:
        return hashlib.sha256(dump_config(self).encode()).hexdigest()


@dataclass(frozen=True)
class Planned:
    """One utterance to be made: phrases with pauses between them, none for noise alone.

    ``seed`` decides its room and noise.
    """

    id: str
    split: SplitName
    voice: Voice | DrawnVoice | None
    phrases: tuple[str, ...]
    rate: int
    pitch: int
    seed: int

    @property
    def text(self) -> str:
        """The transcript."""
        return " ".join(self.phrases)


def read_makeup() -> MakeUp:
    """The committed make-up, ``corpus.toml`` beside this file."""
    import tomllib

    source = resources.files("firstwords.quickstart").joinpath("corpus.toml")
    return parse_config(
        tomllib.loads(source.read_text(encoding="utf-8")), MakeUp, name="corpus", source="corpus.toml"
    )


def plan(makeup: MakeUp) -> list[Planned]:
    """Every utterance of every split, in order."""
    planned: list[Planned] = []
    for number, split in enumerate(SPLITS):
        voices: list[Voice | DrawnVoice] = [v for v in makeup.voices if v.split == split]
        if split == "train":
            voices += draw_voices(makeup.seed, makeup.drawn_voices)
        count: int = getattr(makeup.utterances, split)
        for index in range(count):
            generator = np.random.default_rng((makeup.seed, number, index))
            voice = voices[index % len(voices)]
            planned.append(
                Planned(
                    id=f"{split}_{index:04d}_{voice.name.replace('+', '_')}",
                    split=split,
                    voice=voice,
                    phrases=draw_phrases(makeup, generator),
                    rate=round(voice.rate * generator.uniform(0.85, 1.2)),
                    pitch=int(np.clip(voice.pitch + generator.integers(-8, 9), 0, 99)),
                    seed=int(generator.integers(2**31)),
                )
            )
        if split != "test":
            for index in range(round(count * makeup.non_speech_share)):
                generator = np.random.default_rng((makeup.seed, number, index, 1))
                seed = int(generator.integers(2**31))
                planned.append(Planned(f"{split}_noise_{index:04d}", split, None, (), 0, 0, seed))
    return planned


def draw_phrases(makeup: MakeUp, generator: np.random.Generator) -> tuple[str, ...]:
    """One phrase or two: a model that never heard two learns that digits and commands exclude each other."""
    count = 2 if generator.random() < makeup.two_phrase_share else 1
    return tuple(draw_phrase(makeup, generator) for _ in range(count))


def draw_phrase(makeup: MakeUp, generator: np.random.Generator) -> str:
    """A digit string or a command."""
    if generator.random() < makeup.digit_share:
        low, high = makeup.digits
        return " ".join(_DIGITS[d] for d in generator.integers(0, 10, size=generator.integers(low, high + 1)))
    template = makeup.commands[generator.integers(len(makeup.commands))]

    def choose(match: re.Match[str]) -> str:
        words = match[1].split("|")
        return words[generator.integers(len(words))]

    return re.sub(r"\{([^}]*)\}", choose, template)
