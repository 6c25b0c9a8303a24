"""A corpus of speech-like sound in which no rule finds anything, to plant defects in."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import soundfile

from firstwords.data.manifest import Corpus, Utterance, write_manifest
from firstwords.data.validate import CheckResult

RATE = 8000
COUNT = 45
VOCABULARY = (
    "maji nyumba kitabu safari chakula rafiki ng'ombe barabara jioni asubuhi mwalimu mtoto samaki wimbo "
    "daktari shamba ndege mvua moto jua mwezi nyota mti ua zawadi habari vizuri pole haraka fedha gari "
    "farasi tembo simba paka mbwa kuku yai chumvi sukari kahawa pilipili xela qaro"
)
WORDS = VOCABULARY.split()


def voice(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """Sound that moves like speech: syllables of a buzz with pauses, and a little hiss."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = draw.uniform(90, 220)
    buzz = sum(np.sin(2 * np.pi * pitch * k * t + draw.uniform(0, 6)) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * draw.uniform(1.5, 2.5) * t + draw.uniform(0, 6)), 0, None) ** 2
    return (0.1 * buzz * syllables + 1e-3 * draw.standard_normal(len(t))).astype(np.float32)


def save(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> None:
    soundfile.write(str(path), samples, rate, subtype=subtype, format=path.suffix[1:].upper())


def make_clean_corpus(folder: Path) -> Path:
    """45 sentences by 9 speakers, speaker-disjoint, nothing wrong."""
    choose = random.Random(7)
    utterances: list[Utterance] = []
    used: set[str] = set()
    for number in range(COUNT):
        while (text := " ".join(choose.sample(WORDS, 4))) in used:
            pass
        if number < 3:  # every letter often enough
            text += " xela qaro ng'ombe"
        used.add(text)
        seconds = round(len(text) / choose.uniform(9, 13), 2)
        path = folder / f"u{number:02}.wav"
        save(path, voice(seconds, number))
        speaker = number % 9
        utterances.append(
            Utterance(
                id=f"u{number:02}",
                audio=path,
                duration=seconds,
                text=text,
                language="sw",
                speaker=f"s{speaker}",
                split="test" if speaker == 0 else "dev" if speaker == 1 else "train",
            )
        )
    write_manifest(folder / "manifest.jsonl", utterances)
    return folder


def with_changed(corpus: Corpus, *changed: Utterance) -> Corpus:
    by_id = {u.id: u for u in changed}
    kept = [by_id.pop(u.id, u) for u in corpus.utterances]
    return Corpus(corpus.folder, (*kept, *by_id.values()), {})


def found(result: CheckResult, rule: str) -> set[str]:
    return {f.utterance for f in result.findings if f.rule == rule}
