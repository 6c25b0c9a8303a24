"""Does a model keep silent when nobody speaks?

    python benchmarks/non_speech.py CORPUS NOISE [--minutes 6] [--runs-folder runs/non_speech]
    python benchmarks/non_speech.py CORPUS NOISE --unheard fold4 --never fold5      for choosing settings

Trains on CORPUS with the folds 1 to 4 of NOISE as noise and as negatives (empty transcripts), then
transcribes fold 5, which training never heard, and digital silence. Both should give empty text. The error
rate on the test split of CORPUS is printed beside it: a model that says nothing at all would pass too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from firstwords.data.corpora.importing import import_corpus
from firstwords.data.manifest import load_corpus
from firstwords.device import machine_name
from firstwords.inference.recognizer import Recognizer
from firstwords.report.evaluate_model import evaluate_model
from firstwords.training.run import train_corpus

FOLDS = ("fold1", "fold2", "fold3", "fold4", "fold5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("noise", type=Path)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--size", default="nano")
    parser.add_argument("--runs-folder", type=Path, default=Path("runs/non_speech"))
    parser.add_argument("--unheard", choices=FOLDS, default="fold5", help="what the model is asked about")
    parser.add_argument("--never", choices=FOLDS, help="one more fold that training does not hear")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    folder: Path = options.runs_folder
    if not (folder / "corpus").exists():
        import_corpus(options.corpus, folder / "corpus")
    unheard: str = options.unheard
    heard_folds = [fold for fold in FOLDS if fold not in (unheard, options.never)]
    noise = options.noise.resolve().as_posix()
    train_corpus(
        folder / "corpus",
        folder / "model",
        size=options.size,
        minutes=options.minutes,
        overrides=[
            f'data.noise_folders=["{noise}"]',
            f'data.negative_folders=["{noise}"]',
            f"data.noise_splits={heard_folds}",
            *options.set,
        ],
    )
    recognizer = Recognizer.load(folder / "model")
    clips = load_corpus(options.noise).split(unheard)
    heard = [(u, t.text) for u, t in zip(clips, recognizer.transcribe_many(clips), strict=True) if t.text]
    print(machine_name())
    print(f"{unheard}: {len(clips) - len(heard)} of {len(clips)} clips give empty text")
    for utterance, text in heard:
        print(f"  {utterance.id} ({utterance.labels.get('label', '')}): {text!r}")
    lengths = np.linspace(0.1, 20.0, 100)
    silent = sum(
        not recognizer.transcribe_samples(np.zeros(int(s * 16000), np.float32), 16000).text for s in lengths
    )
    print(f"digital silence: {silent} of {len(lengths)} lengths give empty text")
    test = evaluate_model(folder / "model", load_corpus(folder / "corpus"), "test")
    print(f"test: WER {100 * test.words.rate:.1f} %, CER {100 * test.graphemes.rate:.1f} %")


if __name__ == "__main__":
    main()
