"""Do rare words come through when a user names them? Recall and false alarms with and without phrases.

    python benchmarks/hot_words.py MODEL CORPUS [--beam 10] [--seen 1] [--spot] [--test]

The phrases are the words of a split that occur at most --seen times in the transcripts of training: for dev
those of dev, for test those of test, as somebody who knows what will be talked about would name them. Their
weight (nats for each token but two, ``boost_by_length``; 1 in the product) is chosen on dev: the highest
recall at no more than one point more false alarms, each false alarm a phrase that was read and not said, in
points of the words said. With --test the test split is read with that weight, once.

With --spot the phrases are not boosted but spotted, as 'firstwords phrases' has it: how each scores where
nobody says it comes from training, the threshold from dev, for those of test too: their audio decides none.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lm_fusion import posteriors, rates
from numpy.typing import NDArray

from firstwords.data.manifest import load_corpus
from firstwords.device import machine_name
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.spotting import calibrate_phrases
from firstwords.scoring.detection import Detections
from firstwords.scoring.phrases import count_phrases
from firstwords.search.biasing import phrase_scorer
from firstwords.search.ctc_beam import prefix_readings
from firstwords.search.fusion import Scorers, weigh
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.spotted import spotter_of
from firstwords.search.spotting import PhraseSpotter
from firstwords.text.normalize import normalizer
from firstwords.text.tokenizer import Tokenizer

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
ALLOWED = 0.01  # more false alarms, as a share of the words said


class Split(NamedTuple):
    """A split as the search sees it: log-probabilities, what was said, and what a user would name."""

    frames: list[NDArray[np.float64]]
    references: list[str]
    phrases: list[str]
    words: int


class Reading(NamedTuple):
    """What came of a weight."""

    counts: Detections
    false_alarms: float  # as a share of the words said
    texts: list[str]

    def __str__(self) -> str:
        spoken = self.counts.hits + self.counts.misses
        return (
            f"recall {100 * self.counts.recall:.1f} % of {spoken}, {self.counts.false_alarms} false alarms "
            f"({100 * self.false_alarms:.2f} points)"
        )


def read_with(split: Split, weight: float, tokenizer: Tokenizer, beam: int, scored: str) -> Reading:
    score, config = normalizer(scored), CtcBeamConfig(beam=beam, n_best=1)
    phrases = phrase_scorer(dict.fromkeys(split.phrases), tokenizer, scale=weight) if weight else None
    scorers = Scorers(phrases=phrases)
    texts: list[str] = []
    for frames in split.frames:
        weighed = weigh(scorers, config.language_model, frames.shape[1])
        texts.append(score(tokenizer.decode(prefix_readings(frames, config, weighed)[0].tokens)))
    counts, _ = count_phrases(split.phrases, zip(split.references, texts, strict=True))
    return Reading(counts, counts.false_alarms / split.words, texts)


def read_spotted(
    split: Split, spotter: PhraseSpotter, tokenizer: Tokenizer, beam: int, scored: str
) -> Reading:
    written = split._replace(frames=[spotter(frames) for frames in split.frames])
    return read_with(written, 0.0, tokenizer, beam, scored)


def rare_words(said: Sequence[str], trained: Counter[str], seen: int) -> list[str]:
    return sorted({word for text in said for word in text.split() if trained[word] <= seen})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--seen", type=int, default=1, help="most occurrences of a rare word in training")
    parser.add_argument("--spot", action="store_true", help="spot the phrases in place of boosting them")
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    print(machine_name())
    recognizer = Recognizer.load(options.model, device="cpu")
    tokenizer, scored = recognizer.tokenizer, recognizer.recipe.text.scoring
    corpus, score = load_corpus(options.corpus), normalizer(recognizer.recipe.text.scoring)
    trained = Counter(word for u in corpus.split("train") for word in score(u.text or "").split())

    def prepare(name: str) -> Split:
        utterances = [u for u in corpus.split(name) if u.text]
        references = [score(u.text or "") for u in utterances]
        phrases = rare_words(references, trained, options.seen)
        print(f"{name}: {len(utterances)} utterances, {len(phrases)} rare words named", flush=True)
        return Split(
            posteriors(recognizer, utterances), references, phrases, sum(len(r.split()) for r in references)
        )

    def show(name: str, split: Split, weight: float) -> Reading:
        found = read_with(split, weight, tokenizer, options.beam, scored)
        print(f"{name}, weight {weight:g}: {found}; {rates(found.texts, split.references)}", flush=True)
        return found

    def spot(name: str) -> None:
        split = prepare(name)
        show(name, split, 0.0)
        started = time.monotonic()
        made = calibrate_phrases(recognizer, split.phrases, corpus, false_alarms=ALLOWED)
        found = read_spotted(split, spotter_of(made.file, tokenizer), tokenizer, options.beam, scored)
        print(
            f"{name}, spotted, z of {made.file.threshold:.2f} from dev: {found}; "
            f"{rates(found.texts, split.references)}; {time.monotonic() - started:.0f} s with calibration",
            flush=True,
        )

    if options.spot:
        for name in ("dev", "test") if options.test else ("dev",):
            spot(name)
        return
    dev = prepare("dev")
    found = {weight: show("dev", dev, weight) for weight in WEIGHTS}
    most = found[0.0].false_alarms + ALLOWED
    allowed = [weight for weight in WEIGHTS if found[weight].false_alarms <= most]
    chosen = max(allowed, key=lambda weight: (found[weight].counts.recall, -weight))
    print(f"chosen on dev: weight {chosen:g}")
    if options.test:
        test = prepare("test")
        for weight in (0.0, chosen):
            show("test", test, weight)


if __name__ == "__main__":
    main()
