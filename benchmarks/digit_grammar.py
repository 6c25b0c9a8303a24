"""Connected digits of a voice that was never heard, in noise at 5 dB: what does knowing the numbers bring?

    python benchmarks/digit_grammar.py DIGITS NOISE [--minutes 12] [--order 7] [--seed 1] [--test]
                                       [--set key=value ...] [--folder runs/digit_grammar]

DIGITS is the Free Spoken Digit Dataset as shared (ids DIGIT_SPEAKER_INDEX), NOISE a corpus of noises with
splits fold1 to fold5. A telephone exchange has 300 subscribers with numbers of six digits, drawn by a seed;
dev and test are calls to subscribers, in one voice each that training does not hear. Training knows nothing
of the numbers: its strings of three to seven digits are random. Clips of one speaker are joined with pauses;
folds 1 to 3 are noise in training, 4 lies over dev and 5 over test, at exactly 5 dB.

The n-gram is estimated from the list of subscribers, each number once; with whole words as pieces (--set
'tokenizer={kind="subwords",model="bpe",vocabulary=80}') --order 7 holds a number and its end.
Weight and bonus are chosen on dev by word errors, greedy and with a beam of 10; with --test the test calls
are read with that setting, once.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from las_digits import RATE
from lm_fusion import WITHOUT, posteriors, rates

from firstwords.audio.effects import add_noise
from firstwords.audio.noise import FolderNoise, NoiseClip
from firstwords.audio.waveform import read, write
from firstwords.data.manifest import Utterance, load_corpus, write_manifest
from firstwords.device import machine_name
from firstwords.inference.heard import Frames, reader_of
from firstwords.inference.recognizer import Recognizer
from firstwords.lm.language_model import NgramHeader, NgramLanguageModel
from firstwords.lm.ngram_estimate import estimate_ngram
from firstwords.lm.ngram_scorer import NgramScorer
from firstwords.lm.ngram_text import Line, gather, splitter
from firstwords.search.fusion import Scorers
from firstwords.search.interface import CtcBeamConfig, GreedyConfig, SearchConfig
from firstwords.search.tuning import Reader, Setting, tune
from firstwords.text.normalize import normalizer
from firstwords.training.run import train_corpus

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STRINGS = {"train": 2000, "dev": 150, "test": 300}
FOLDS = {"dev": "fold4", "test": "fold5"}
SUBSCRIBERS, DIGITS, SNR = 300, 6, 5.0
Clips = dict[str, dict[str, list[np.ndarray]]]  # of each speaker, of each digit


def subscribers() -> list[str]:
    """The numbers of the exchange, spoken out."""
    drawn = np.random.default_rng(3).choice(10**DIGITS, SUBSCRIBERS, replace=False)
    return [" ".join(WORDS[int(digit)] for digit in f"{number:0{DIGITS}d}") for number in drawn]


def make_calls(digits: Path, noise: Path, folder: Path, voices: dict[str, str]) -> None:
    """Write the strings and their manifest; ``voices`` are the speakers of dev and test."""
    clips: Clips = defaultdict(lambda: defaultdict(list))
    for one in load_corpus(digits).utterances:
        samples = read(one.audio, sample_rate=RATE, channels="mix").samples
        clips[one.speaker or ""][one.text or ""].append(samples)
    heard = sorted(speaker for speaker in clips if speaker not in voices.values())
    draw, numbers = np.random.default_rng(7), subscribers()
    noises = load_corpus(noise)
    over = {
        split: FolderNoise([NoiseClip(u.audio, u.start, u.duration) for u in noises.split(fold)])
        for split, fold in FOLDS.items()
    }
    rows: list[Utterance] = []
    for split, count in STRINGS.items():
        for number in range(count):
            speaker = voices.get(split, heard[number % len(heard)])
            if split == "train":
                text = " ".join(WORDS[int(draw.integers(10))] for _ in range(int(draw.integers(3, 8))))
            else:
                text = numbers[int(draw.integers(SUBSCRIBERS))]
            parts = [np.zeros(int(RATE * draw.uniform(0.05, 0.2)), np.float32)]
            for word in text.split():
                said = clips[speaker][word]
                parts.append(said[int(draw.integers(len(said)))])
                parts.append(np.zeros(int(RATE * draw.uniform(0.02, 0.2)), np.float32))
            joined = np.concatenate(parts)
            if split in over:
                joined = add_noise(joined, over[split].draw(draw, len(joined), RATE), SNR, RATE)
                joined *= min(1.0, 0.99 / float(np.abs(joined).max()))
            path = folder / "audio" / f"{split}-{number:04d}.flac"
            write(path, joined, RATE)
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


def grammar(recognizer: Recognizer, order: int) -> NgramScorer:
    """The list of subscribers as an n-gram over the recogniser's pieces."""
    text = gather(
        (Line(number, "subscribers", at) for at, number in enumerate(subscribers(), 1)),
        split=splitter("piece", recognizer.tokenizer),
        normalize=normalizer(recognizer.recipe.text.normalizer),
    )
    header = NgramHeader(
        unit="piece",
        order=order,
        normalizer=recognizer.recipe.text.normalizer,
        pieces=recognizer.tokenizer.piece_hash,
    )
    model = estimate_ngram(text.tokens, text.words, order).model
    return NgramScorer(NgramLanguageModel(header, model, recognizer.tokenizer), recognizer.tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("digits", type=Path)
    parser.add_argument("noise", type=Path)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--order", type=int, default=DIGITS + 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("runs/digit_grammar"))
    options = parser.parse_args()
    print(machine_name())
    corpus = options.folder / "corpus"
    if not (corpus / "manifest.jsonl").exists():
        speakers = sorted({u.speaker or "" for u in load_corpus(options.digits).utterances})
        make_calls(options.digits, options.noise, corpus, {"dev": speakers[0], "test": speakers[1]})
    folder = options.noise.resolve().as_posix()
    done = train_corpus(
        corpus,
        options.folder / f"model-{options.seed}",
        size="nano",
        minutes=options.minutes,
        overrides=[
            f"seed={options.seed}",
            f'data.noise_folders=["{folder}"]',
            'data.noise_splits=["fold1", "fold2", "fold3"]',
            *options.set,
        ],
    )
    if not done.finished:
        raise SystemExit("Interrupted, not scored. The same command goes on with it.")
    recognizer = Recognizer.load(options.folder / f"model-{options.seed}", device="cpu")
    scorer = grammar(recognizer, options.order)
    score = normalizer(recognizer.recipe.text.scoring)

    searches: dict[str, SearchConfig] = {
        "greedy": GreedyConfig(),
        "beam 10": CtcBeamConfig(beam=10, n_best=1),
    }

    def prepared(split: str) -> tuple[list[str], dict[str, Reader]]:
        utterances: Sequence[Utterance] = load_corpus(corpus).split(split)
        frames = Frames(posteriors(recognizer, utterances), (), None)
        readers = {
            name: reader_of(
                frames, search, Scorers(scorer), lambda ids: score(recognizer.tokenizer.decode(ids))
            )
            for name, search in searches.items()
        }
        return [score(u.text or "") for u in utterances], readers

    references, readers = prepared("dev")
    chosen: dict[str, Setting] = {}
    for name, reader in readers.items():
        found = tune(reader, references, split="dev")
        chosen[name] = found.setting
        print(
            f"dev, {name}: WER {found.without.rate:.2%} without, {found.rate.rate:.2%} with "
            f"({1 - found.rate.rate / found.without.rate:.1%} fewer) at weight {found.setting.weight:g}, "
            f"bonus {found.setting.bonus:g}",
            flush=True,
        )
    if options.test:
        references, readers = prepared("test")
        for name, reader in readers.items():
            print(f"test, {name}, without: {rates(reader(WITHOUT), references)}")
            print(f"test, {name}, with:    {rates(reader(chosen[name]), references)}", flush=True)


if __name__ == "__main__":
    main()
