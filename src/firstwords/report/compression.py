"""Several variants of a model on one page: what each weighs, computes, takes and gets wrong.

    compression.json    every number
    report.html         table and Pareto plots

Speed is measured in processes of their own, one thread, one utterance at a time, on speech of the split cut
to 5 and 15 seconds, in rounds over all variants: times of separate processes differ more than those of one.
MACs are those of the encoder and frame-wise heads (model/cost.py), and say little of speed by themselves
(arXiv:2211.09949).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from firstwords.audio.waveform import read
from firstwords.compression.history import read_history
from firstwords.data.manifest import Corpus
from firstwords.device import machine_name
from firstwords.errors import CorpusError, FirstwordsError, UsageError
from firstwords.files import staged, write_atomically
from firstwords.model.checkpoint import RECIPE, TOKENIZER, WEIGHTS, load_model
from firstwords.model.cost import model_cost
from firstwords.model.structure import FILE as STRUCTURE
from firstwords.report.charts import scatter_chart
from firstwords.report.compression_probe import Probe, probe
from firstwords.report.evaluate_model import evaluate_model, utterances_of
from firstwords.report.page import Cell, Page, note, section, table
from firstwords.scoring.error_rate import ErrorRate
from firstwords.scoring.significance import Interval

JSON, HTML = "compression.json", "report.html"
LENGTHS = (5.0, 15.0)  # seconds
ROUNDS = 3
MINUTES = ("minutes", "tune")  # settings of a step that say how long its training took
Say = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """One model folder, measured.

    Args:
        steps: of its compression, in order.
        weight_bytes: of model.safetensors; ``bytes`` of all that transcribing needs.
        macs_per_second: of audio.
        seconds: length of the audio -> median wall clock.
        peak_bytes: resident memory of the whole process.
        model_bytes: what of it came with the model: its weights, and what it computes with at a time.
        minutes: of training that its compression took.
    """

    name: str
    folder: Path
    steps: tuple[str, ...]
    parameters: int
    weight_bytes: int
    bytes: int
    macs_per_second: float
    seconds: dict[float, float]
    peak_bytes: int | None
    model_bytes: int | None
    words: ErrorRate
    word_interval: Interval
    letters: ErrorRate
    letter_interval: Interval
    minutes: float

    @property
    def real_time_factors(self) -> dict[float, float]:
        """Seconds of computing per second of audio."""
        return {length: seconds / length for length, seconds in self.seconds.items()}


@dataclass(frozen=True)
class Comparison:
    """Variants on one split of a corpus."""

    variants: tuple[Variant, ...]
    corpus: str
    split: str
    normalizer: str
    utterances: int
    machine: str

    def front(self, axis: Callable[[Variant], float]) -> tuple[str, ...]:
        """Names of the variants that no other one beats: in ``axis`` (less is better) and in CER."""
        points = {v.name: (axis(v), v.letters.rate) for v in self.variants}
        return tuple(name for name, at in points.items() if not any(_beats(o, at) for o in points.values()))


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def compare_variants(
    folders: Sequence[Path],
    corpus: Corpus,
    split: str,
    *,
    rounds: int = ROUNDS,
    lengths: Sequence[float] = LENGTHS,
    say: Say = lambda _: None,
) -> Comparison:
    """Model folders and one split -> everything measured.

    All are scored with the normalizer of the first.
    """
    names = _names(folders)
    utterances_of(corpus, split)  # refuses a split that is not there before anything is loaded
    models = [load_model(folder, device="cpu") for folder in folders]
    scoring = models[0].recipe.text.scoring
    facts = [
        (one.model.num_parameters, model_cost(one.model).macs_per_second, one.recipe.data.sample_rate)
        for one in models
    ]
    del models
    probes: list[list[Probe]] = [[] for _ in folders]
    speech = {rate: speech_of(corpus, split, rate, max(lengths)) for _, _, rate in facts}
    for number in range(rounds):
        say(f"Measuring speed and memory, round {number + 1} of {rounds}.")
        for place, folder in enumerate(folders):
            rate = facts[place][2]
            probes[place].append(probe(folder, speech[rate], rate, lengths))
    variants: list[Variant] = []
    counted = 0
    for name, folder, (parameters, macs, _), measured in zip(names, folders, facts, probes, strict=True):
        say(f"Transcribing '{split}' with {name}.")
        found = evaluate_model(folder, corpus, split, device="cpu", scoring=scoring)
        counted = len(found.results)
        history = read_history(folder)
        peaks = [p.peak_bytes for p in measured if p.peak_bytes is not None]
        grown = [
            p.peak_bytes - p.before_bytes
            for p in measured
            if p.peak_bytes is not None and p.before_bytes is not None
        ]
        variants.append(
            Variant(
                name=name,
                folder=folder,
                steps=tuple(step.step for step in history.steps),
                parameters=parameters,
                weight_bytes=(folder / WEIGHTS).stat().st_size,
                bytes=needed_bytes(folder),
                macs_per_second=macs,
                seconds={
                    length: median(t for p in measured for t in p.seconds[length]) for length in lengths
                },
                peak_bytes=max(peaks, default=None),
                model_bytes=max(grown, default=None),
                words=found.words,
                word_interval=found.word_interval,
                letters=found.graphemes,
                letter_interval=found.grapheme_interval,
                minutes=sum(_minutes(step.settings) for step in history.steps),
            )
        )
    name = corpus.folder.resolve().name
    return Comparison(tuple(variants), name, split, scoring, counted, machine_name())


def joined(parts: Sequence[Comparison]) -> Comparison:
    """Comparisons of one split with the same normalizer, made one by one -> all variants side by side."""
    variants = [variant for part in parts for variant in part.variants]
    names = _names([variant.folder for variant in variants])
    renamed = tuple(replace(one, name=name) for one, name in zip(variants, names, strict=True))
    return replace(parts[0], variants=renamed)


def _minutes(settings: dict[str, Any]) -> float:
    """Of training: 'minutes' of prune, low-rank and distil, 'tune' of quantize."""
    found = (settings.get(name) for name in MINUTES)
    return sum(float(value) for value in found if isinstance(value, int | float))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with their parents' where two are the same."""
    if not folders:
        raise UsageError("No model to report on.", mend="firstwords compress report MODEL... --corpus CORPUS")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError("A model is named twice.", mend="Name each model folder once.")
    return names


def needed_bytes(folder: Path) -> int:
    """Size of the files that transcribing needs."""
    files = [folder / name for name in (RECIPE, WEIGHTS, STRUCTURE)]
    files += [path for path in (folder / TOKENIZER).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files if path.is_file())


def speech_of(corpus: Corpus, split: str, sample_rate: int, seconds: float) -> npt.NDArray[np.float32]:
    """Utterances of a split one after the other, repeated where they are too few -> (S,) samples."""
    wanted = round(seconds * sample_rate)
    parts: list[npt.NDArray[np.float32]] = []
    have = 0
    for utterance in utterances_of(corpus, split):
        if have >= wanted:
            break
        try:
            heard = read(
                utterance.audio,
                sample_rate=sample_rate,
                channels="mix",
                start=utterance.start,
                duration=utterance.duration,
            ).samples.astype(np.float32)
        except (FirstwordsError, OSError):
            continue  # named by the evaluation
        parts.append(heard)
        have += len(heard)
    if not have:
        raise CorpusError(
            f"No recording of split '{split}' can be read.", mend="Run 'firstwords check' on the corpus."
        )
    whole = np.concatenate(parts)
    return np.resize(whole, wanted)


def record(comparison: Comparison) -> dict[str, Any]:
    """Comparison -> plain values; rates as fractions, sizes in bytes, times in seconds."""

    def rate(value: ErrorRate, interval: Interval) -> dict[str, Any]:
        low, high = interval.bounds(value)
        counts = {"errors": value.errors, "of": value.reference_length}
        return {"rate": value.rate, "low": low, "high": high} | counts

    fronts = {
        "bytes": comparison.front(lambda v: v.weight_bytes),
        "seconds": comparison.front(_longest_seconds),
    }
    return {
        "format": 1,
        "corpus": comparison.corpus,
        "split": comparison.split,
        "normalizer": comparison.normalizer,
        "utterances": comparison.utterances,
        "machine": comparison.machine,
        "front": {name: list(found) for name, found in fronts.items()},
        "variants": [
            {
                "name": v.name,
                "steps": list(v.steps),
                "parameters": v.parameters,
                "weight_bytes": v.weight_bytes,
                "bytes": v.bytes,
                "macs_per_second": v.macs_per_second,
                "seconds": {f"{length:g}": seconds for length, seconds in v.seconds.items()},
                "rtf": {f"{length:g}": factor for length, factor in v.real_time_factors.items()},
                "peak_bytes": v.peak_bytes,
                "model_bytes": v.model_bytes,
                "wer": rate(v.words, v.word_interval),
                "cer": rate(v.letters, v.letter_interval),
                "minutes": v.minutes,
            }
            for v in comparison.variants
        ],
    }


def _longest_seconds(variant: Variant) -> float:
    return variant.seconds[max(variant.seconds)]


def headers(comparison: Comparison) -> list[str]:
    """Of the table."""
    lengths = [f"RTF, {length:g} s" for length in comparison.variants[0].seconds]
    return [
        "model",
        "steps",
        "parameters",
        "weights, MB",
        "all files, MB",
        "MACs/s, M",
        "peak memory, MB",
        "of it the model's, MB",
        *lengths,
        "WER, %",
        "CER, %",
        "training, min",
    ]


def rows(comparison: Comparison) -> list[list[Cell]]:
    """A row for each variant, in the order of ``headers``."""
    return [
        [
            v.name,
            ", ".join(v.steps) or "–",
            v.parameters,
            f"{v.weight_bytes / 1e6:.2f}",
            f"{v.bytes / 1e6:.2f}",
            f"{v.macs_per_second / 1e6:.1f}",
            "–" if v.peak_bytes is None else f"{v.peak_bytes / 1e6:.0f}",
            "–" if v.model_bytes is None else f"{v.model_bytes / 1e6:.0f}",
            *(f"{factor:.4f}" for factor in v.real_time_factors.values()),
            _with_interval(v.words, v.word_interval),
            _with_interval(v.letters, v.letter_interval),
            f"{v.minutes:.1f}",
        ]
        for v in comparison.variants
    ]


def _with_interval(rate: ErrorRate, interval: Interval) -> str:
    low, high = interval.bounds(rate)
    return f"{100 * rate.rate:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def circumstances(comparison: Comparison) -> str:
    """What the figures hold for, in one sentence."""
    return (
        f"{comparison.utterances} utterances of '{comparison.split}' of {comparison.corpus}, normalizer "
        f"'{comparison.normalizer}', 95 % bootstrap intervals; speed: float32, one thread, one utterance "
        f"at a time, median, on {comparison.machine}."
    )


def page_of(comparison: Comparison, course: Sequence[str] = ()) -> Page:
    """Comparison -> the page; ``course``: how a search among them went, in sentences."""
    longest = max(comparison.variants[0].seconds)
    plots = [
        scatter_chart(
            [(v.name, v.weight_bytes / 1e6, 100 * v.letters.rate) for v in comparison.variants],
            comparison.front(lambda v: v.weight_bytes),
            title="Size and errors",
            x_label="weights, MB",
            y_label="CER, %",
            note="Joined: variants that no other one beats in both (Pareto front).",
        ),
        scatter_chart(
            [(v.name, _longest_seconds(v) / longest, 100 * v.letters.rate) for v in comparison.variants],
            comparison.front(_longest_seconds),
            title="Speed and errors",
            x_label=f"real-time factor, {longest:g} s",
            y_label="CER, %",
            note="Joined: variants that no other one beats in both.",
            digits=4,
        ),
    ]
    page = Page("Compression", f"{len(comparison.variants)} models on {comparison.corpus}")
    numeric = range(2, len(headers(comparison)))
    page.add(
        section(
            "All variants",
            circumstances(comparison),
            table(headers(comparison), rows(comparison), caption="Variants", numeric=numeric),
            note("MACs are those of the encoder and of heads that score every frame."),
        ),
        section("Which one to take", *plots),
    )
    if course:
        page.add(section("How the search went", *course))
    return page


def save_comparison(comparison: Comparison, folder: Path, course: Sequence[str] = ()) -> Path:
    """Write numbers, page and the course of a search, all or nothing -> the page's path."""
    values = record(comparison) | ({"course": list(course)} if course else {})
    with staged(folder, last=(HTML,)) as new:
        write_atomically(new / JSON, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        page_of(comparison, course).save(new / HTML)
    return folder / HTML
