"""A corpus in which each letter is a tone: small enough to learn in seconds, hard enough to fail at.

Used by the training tests; no speech, no downloads, the same bytes every time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from firstwords.data.manifest import Utterance, write_manifest
from firstwords.model.recipe import Recipe

RATE = 16000
LETTERS = "aeiou"
TONES = dict(zip(LETTERS, (300.0, 550.0, 1000.0, 1800.0, 3300.0), strict=True))
LETTER_SECONDS = 0.12


def sing(text: str, generator: np.random.Generator, sample_rate: int = RATE) -> np.ndarray:
    """Text -> tones with gaps, soft edges, a little noise; a space is a longer gap."""
    pieces = [np.zeros(int(0.1 * sample_rate))]
    for letter in text:
        count = int(LETTER_SECONDS * sample_rate * generator.uniform(0.9, 1.1))
        time = np.arange(count) / sample_rate
        if letter == " ":
            pieces.append(np.zeros(count))
            continue
        pitch = TONES[letter] * generator.uniform(0.97, 1.03)
        pieces += [
            np.sin(2 * np.pi * pitch * time) * np.hanning(count) * 0.3,
            np.zeros(int(0.04 * sample_rate)),
        ]
    samples = np.concatenate(pieces)
    return (samples + 0.003 * generator.standard_normal(len(samples))).astype(np.float32)


def random_text(generator: np.random.Generator, words: int = 2) -> str:
    """Words of two to four letters."""
    return " ".join(
        "".join(generator.choice(list(LETTERS), size=generator.integers(2, 5))) for _ in range(words)
    )


def make_tone_corpus(folder: Path, *, train: int = 48, dev: int = 8, test: int = 8, seed: int = 0) -> Path:
    """Write wav files and a manifest -> the folder."""
    (folder / "audio").mkdir(parents=True)
    generator = np.random.default_rng(seed)
    utterances: list[Utterance] = []
    for split, count in (("train", train), ("dev", dev), ("test", test)):
        for number in range(count):
            text = random_text(generator, int(generator.integers(1, 4)))
            samples = sing(text, generator)
            path = folder / "audio" / f"{split}-{number:03d}.wav"
            soundfile.write(path, samples, RATE, subtype="PCM_16")
            utterances.append(
                Utterance(
                    id=path.stem,
                    audio=path.absolute(),
                    duration=len(samples) / RATE,
                    text=text,
                    speaker=f"{split}-{number % 3}",
                    language="und",
                    split=split,
                )
            )
    write_manifest(folder / "manifest.jsonl", utterances)
    return folder


# A steadier rate than the Zipformer's own: tones are learned in two to four hundred steps.
LEARN = {"optimizer": "adamw", "schedule": {"kind": "cosine", "lr": 0.003}}


def tone_recipe(**training: object) -> Recipe:
    """A recipe with a Zipformer of about 50 thousand parameters that learns tones in half a minute."""
    settings: dict[str, object] = {
        "steps": 200,
        "batch_seconds": 25,
        "precision": "fp32",
        "validate_every": 50,
        "specaugment": {"probability": 0.0},
    }
    return Recipe.model_validate(
        {
            "name": "tones",
            "encoder": {
                "dims": [48, 48],
                "downsampling": [1, 2],
                "layers": 1,
                "feedforward": 64,
                "heads": 2,
                "query_head_dim": 8,
                "value_head_dim": 8,
                "kernels": 7,
                "unmasked_dims": 48,
                "position_dim": 16,
                "embed_channels": [4, 4, 8],
                "dropout": [0.0, 0.0],
            },
            "heads": {"ctc": {"dropout": 0.0}},
            "data": {"augment": {"room": {"probability": 0.0}}},
            "training": settings | training,
        }
    )
