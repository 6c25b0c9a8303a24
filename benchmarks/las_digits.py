"""Listen, Attend and Spell on connected digits: letter error rate, and whether attention moves forward.

    python benchmarks/las_digits.py DIGITS [--minutes 15] [--seed 1] [--set key=value ...] [--no-test]
                                    [--folder runs/las_digits]

DIGITS is the Free Spoken Digit Dataset as shared (ids DIGIT_SPEAKER_INDEX). Clips of one speaker are joined
with pauses into strings of three to six digits: training from indices 10 on, dev 5 to 9, test 0 to 4. Trains
recipes/las_small.toml on one thread; `--minutes` are those of the clock, and the processor's time is printed
beside them: user and system, loader processes included, of this call alone where a run goes on. A step of the
decoder counts as forward where it looks hardest at no earlier frame than the step before (reference text,
teacher forced).
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from firstwords.audio.waveform import read, write
from firstwords.data.manifest import Utterance, load_corpus, write_manifest
from firstwords.device import machine_name
from firstwords.heads.head import TokenHead
from firstwords.inference.recognizer import Recognizer
from firstwords.model.recipe import read_recipe
from firstwords.report.evaluate_model import evaluate_model
from firstwords.tensors import Padded
from firstwords.text.normalize import normalizer
from firstwords.training.run import train_corpus

RATE = 8000
STRINGS = {"train": 1500, "dev": 60, "test": 150}


def split_of(utterance: Utterance) -> str:
    index = int(utterance.id.rpartition("_")[2])
    return "test" if index < 5 else "dev" if index < 10 else "train"


def make_strings(digits: Path, folder: Path, seed: int) -> None:
    """Write strings of digits and a manifest."""
    clips: dict[tuple[str, str], list[tuple[str, np.ndarray]]] = defaultdict(list)
    for utterance in load_corpus(digits).utterances:
        samples = read(utterance.audio, sample_rate=RATE, channels="mix").samples
        clips[split_of(utterance), utterance.speaker or ""].append((utterance.text or "", samples))
    draw = np.random.default_rng(seed)
    rows: list[Utterance] = []
    for split, count in STRINGS.items():
        speakers = sorted(speaker for part, speaker in clips if part == split)
        for number in range(count):
            speaker = speakers[number % len(speakers)]
            own = clips[split, speaker]
            chosen = [own[int(draw.integers(len(own)))] for _ in range(int(draw.integers(3, 7)))]
            parts = [np.zeros(int(RATE * draw.uniform(0.05, 0.2)), np.float32)]
            for _, samples in chosen:
                parts += [samples, np.zeros(int(RATE * draw.uniform(0.05, 0.35)), np.float32)]
            joined = np.concatenate(parts)
            path = folder / "audio" / f"{split}-{number:04d}.flac"
            write(path, joined, RATE)
            text = " ".join(text for text, _ in chosen)
            rows.append(
                Utterance(
                    id=path.stem,
                    audio=path.absolute(),
                    duration=len(joined) / RATE,
                    text=text,
                    speaker=speaker,
                    split=split,
                )
            )
    write_manifest(folder / "manifest.jsonl", rows)


def processor_seconds() -> float:
    """User and system time of this process and of children that have ended; Windows leaves those out."""
    return sum(os.times()[:4])


def forward_share(model_folder: Path, utterances: tuple[Utterance, ...]) -> float:
    """Share of decoder steps that look no earlier than the one before."""
    recognizer = Recognizer.load(model_folder)
    model, clean = recognizer.model, normalizer(recognizer.recipe.text.normalizer)
    decoder = next(head for _, head in model.named_heads() if isinstance(head, TokenHead))
    forward = steps = 0
    for utterance in utterances:
        samples = read(utterance.audio, sample_rate=recognizer.sample_rate, channels="mix").samples
        ids = recognizer.tokenizer.encode(clean(utterance.text or ""))
        with torch.inference_mode():
            audio = Padded(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
            targets = Padded(torch.tensor([ids]), torch.tensor([len(ids)]))
            looks = decoder.attention(model.encode(audio), targets).values[0, : len(ids)].argmax(-1)
        forward += int((looks[1:] >= looks[:-1]).sum())
        steps += len(ids) - 1
    return forward / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("digits", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--no-test", action="store_true", help="tuning: leave the test strings alone")
    parser.add_argument("--folder", type=Path, default=Path("runs/las_digits"))
    options = parser.parse_args()
    print(machine_name())
    corpus = options.folder / "corpus"
    if not (corpus / "manifest.jsonl").exists():
        make_strings(options.digits, corpus, seed=7)
    recipe = read_recipe(
        Path(__file__).parents[1] / "recipes" / "las_small.toml",
        overrides=(
            f"data.sample_rate={RATE}",
            f"features.sample_rate={RATE}",
            f"seed={options.seed}",
            f"training.minutes={options.minutes}",
            "training.processes=1",
            *options.set,
        ),
    )
    model = options.folder / f"model-{options.seed}"
    began, busy = time.perf_counter(), processor_seconds()
    if not train_corpus(corpus, model, recipe=recipe, threads=1).finished:
        raise SystemExit("Interrupted, not scored. The same command goes on with it.")
    clock, busy = time.perf_counter() - began, processor_seconds() - busy
    print(f"training: {clock / 60:.1f} min on the clock, {busy / 60:.1f} min of a processor")
    for split in ("dev",) if options.no_test else ("dev", "test"):
        found = evaluate_model(model, load_corpus(corpus), split)
        low, high = found.grapheme_interval.low, found.grapheme_interval.high
        print(
            f"{split}: LER {found.graphemes.rate:.2%} ({low:.2%} to {high:.2%}), WER {found.words.rate:.2%}, "
            f"attention forward in {forward_share(model, load_corpus(corpus).split(split)):.1%} of the steps"
        )


if __name__ == "__main__":
    main()
