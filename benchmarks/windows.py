"""Do windows of 20 and 30 seconds read the same from a long recording?

    python benchmarks/windows.py MODEL CORPUS [--split test] [--minutes 10]

Joins utterances of CORPUS with short pauses into one recording, transcribes it with both window lengths, and
prints the word error rate of one against the other and of each against what was said. Real cuts fall into
speech as well as into pauses.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from firstwords.audio.waveform import read, write
from firstwords.data.manifest import load_corpus
from firstwords.inference.recognizer import Recognizer
from firstwords.scoring.error_rate import word_errors
from firstwords.text.normalize import normalizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    said: list[str] = []
    seconds = 0.0
    utterances = [u for u in load_corpus(options.corpus).split(options.split) if u.text]
    while seconds < 60 * options.minutes:
        utterance = utterances[int(generator.integers(len(utterances)))]
        samples = read(utterance.audio, start=utterance.start, duration=utterance.duration).samples
        pause = np.zeros(int(generator.uniform(0.1, 0.6) * 16000), np.float32)
        parts += [samples, pause]
        seconds += (len(samples) + len(pause)) / 16000
        said.append(utterance.text or "")
    recognizer = Recognizer.load(options.model)
    clean = normalizer("score_default")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        write(path, np.concatenate(parts), 16000)
        texts = {w: clean(recognizer.transcribe(path, window=w).text) for w in (20.0, 30.0)}
    reference = clean(" ".join(said))
    between = word_errors(texts[30.0], texts[20.0])
    print(f"{seconds / 60:.1f} min, {between.reference_length} words")
    print(f"20 s against 30 s: {100 * between.rate:.2f} % of words differ")
    for window, text in texts.items():
        print(f"{window:.0f} s against what was said: WER {100 * word_errors(reference, text).rate:.2f} %")


if __name__ == "__main__":
    main()
