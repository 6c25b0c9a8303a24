"""What a language model adds to a CTC model: weight and bonus tuned on dev, for greedy and for beam search.

    python benchmarks/lm_fusion.py MODEL CORPUS LM [--beam 10] [--test]

MODEL is a folder that 'firstwords train' made, CORPUS one of 'firstwords import', LM one of 'firstwords lm
train' of any kind, or of 'firstwords lm mix'. Dev is encoded once, then read with one setting after the
other; the fewest character errors win. With --test the test split is read too, once without the language
model and once with the setting that dev chose. Greedy search is that of the product: the best path without a
language model, a beam as wide as the doubt with one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from firstwords.audio.waveform import read
from firstwords.data.manifest import Corpus, Utterance, load_corpus
from firstwords.device import machine_name
from firstwords.inference.heard import Frames, reader_of
from firstwords.inference.recognizer import Recognizer
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, word_errors
from firstwords.scoring.significance import bootstrap_interval
from firstwords.search.fusion import Scorers
from firstwords.search.interface import CtcBeamConfig, GreedyConfig, SearchConfig
from firstwords.search.language_models import Speaks, open_language_model
from firstwords.search.tuning import Reader, Setting, tune
from firstwords.tensors import Padded
from firstwords.text.normalize import normalizer

WITHOUT = Setting()


def posteriors(recognizer: Recognizer, utterances: Sequence[Utterance]) -> list[NDArray[np.float64]]:
    """(T, V) natural-log CTC probabilities of every utterance."""
    found: list[NDArray[np.float64]] = []
    for utterance in utterances:
        wave = read(
            utterance.audio,
            sample_rate=recognizer.sample_rate,
            start=utterance.start,
            duration=utterance.duration,
        )
        samples = torch.from_numpy(wave.samples)[None]
        with torch.inference_mode():
            log_probs = recognizer.model(Padded(samples, torch.tensor([samples.shape[1]])))
        found.append(log_probs.values[0, : int(log_probs.lengths[0])].double().numpy())
    return found


def rates(texts: Sequence[str], references: Sequence[str]) -> str:
    """CER and WER with 95 % intervals over utterances, in words."""
    pairs = list(zip(references, texts, strict=True))
    parts: list[str] = []
    for name, errors in (("CER", grapheme_errors), ("WER", word_errors)):
        each = [errors(reference, text) for reference, text in pairs]
        interval = bootstrap_interval(each)
        rate = ErrorRate.total(each).rate
        parts.append(f"{name} {100 * rate:.2f} % ({100 * interval.low:.2f}-{100 * interval.high:.2f})")
    strip = normalizer("strip_diacritics")
    bare = ErrorRate.total(grapheme_errors(strip(reference), strip(text)) for reference, text in pairs)
    return ", ".join((*parts, f"CER without diacritics {100 * bare.rate:.2f} %"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("lm", type=Path)
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    print(machine_name())
    recognizer = Recognizer.load(options.model, device="cpu")
    corpus: Corpus = load_corpus(options.corpus)
    speaks = Speaks(recognizer.tokenizer, recognizer.recipe.text.normalizer)
    scorer = open_language_model(options.lm, speaks)
    score = normalizer(recognizer.recipe.text.scoring)

    def prepared(split: str) -> tuple[list[str], Callable[[SearchConfig], Reader]]:
        utterances = [u for u in corpus.split(split) if u.text]
        frames = Frames(posteriors(recognizer, utterances), (), None)

        def reader(search: SearchConfig) -> Reader:
            return reader_of(
                frames, search, Scorers(scorer), lambda ids: score(recognizer.tokenizer.decode(ids))
            )

        return [score(u.text or "") for u in utterances], reader

    references, reader = prepared("dev")
    searches: dict[str, SearchConfig] = {
        "greedy": GreedyConfig(),
        f"beam {options.beam}": CtcBeamConfig(beam=options.beam, n_best=1),
    }
    chosen: dict[str, Setting] = {}
    for name, search in searches.items():
        started = time.monotonic()
        found = tune(reader(search), references, split="dev", errors=grapheme_errors)
        chosen[name] = found.setting
        without, best = found.without.rate, found.rate.rate
        print(
            f"dev, {name}: without {100 * without:.2f} %, with {100 * best:.2f} % CER "
            f"({100 * (1 - best / without):.1f} % fewer errors) at weight {found.setting.weight:g}, bonus "
            f"{found.setting.bonus:g}; {len(found.tried)} settings in {time.monotonic() - started:.0f} s",
            flush=True,
        )
    if options.test:
        references, reader = prepared("test")
        for name, search in searches.items():
            print(f"test, {name}, without: {rates(reader(search)(WITHOUT), references)}")
            print(f"test, {name}, with:    {rates(reader(search)(chosen[name]), references)}", flush=True)


if __name__ == "__main__":
    main()
