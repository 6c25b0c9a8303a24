"""What a recogniser got right and wrong: (utterances, transcripts) -> Evaluation -> files.

    evaluation.json     every number, rates as fractions (0.25 = 25 %)
    hypotheses.jsonl    one line an utterance: reference, hypothesis, errors; input of a later --against
    report.html         the same for people, the worst utterances with their audio

Words and graphemes are scored after the scoring normalizer (its name stands beside every figure) and as
written ("raw"). The diacritics-removed CER tells whether letters or only their marks are wrong. A rate never
stands alone: counts, interval, and what a program would get that always says the same.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from firstwords.data.manifest import Utterance
from firstwords.errors import CorpusError, WriteError
from firstwords.files import staged, write_atomically
from firstwords.report.evaluation import Baseline, Comparison, Confusion, Evaluation, Result, Row
from firstwords.report.evaluation_json import result_record, to_json
from firstwords.report.evaluation_page import evaluation_page
from firstwords.scoring.alignment import align
from firstwords.scoring.error_rate import ErrorRate, grapheme_errors, sequence_errors, word_errors
from firstwords.scoring.significance import (
    bootstrap_interval,
    error_segments,
    matched_pairs,
    paired_difference,
)
from firstwords.text.graphemes import graphemes
from firstwords.text.normalize import normalizer

Labels = Callable[[str], Sequence[Hashable]]

DURATIONS = (2.0, 5.0, 10.0, 20.0)  # edges of the duration table, seconds
_MOST_VALUES = 40  # a label with more values than this (an id, a sentence) makes no table
JSON, JSONL, HTML = "evaluation.json", "hypotheses.jsonl", "report.html"


class HasText(Protocol):
    """A transcript, as far as scoring cares."""

    @property
    def text(self) -> str: ...


def evaluate(
    utterances: Iterable[Utterance],
    transcripts: Iterable[HasText | str | None],
    *,
    model: str = "",
    corpus: str = "",
    split: str = "",
    scoring: str = "score_default",
    labels: Labels | None = None,
    label_kind: str = "",
    training_texts: Iterable[str] = (),
    hardware: str = "",
    seconds: float | None = None,
    failures: Mapping[str, str] | None = None,
    replicates: int = 10_000,
    seed: int = 0,
    note: str = "",
) -> Evaluation:
    """Utterances and what was recognised in each (same order; None = it failed) -> every figure.

    Utterances without a reference, and those that failed, are skipped, counted and named. An empty reference
    is a reference: non-speech that should give empty text.

    Args:
        labels: text as written -> what LER counts; by default the letters of the scored text, no spaces.
        training_texts: for the baseline that always says the commonest training transcript.
        failures: id -> reason, for transcripts that are None.
    """
    normalize, bare = normalizer(scoring), normalizer("strip_diacritics")
    results: list[Result] = []
    skipped: dict[str, str] = {}
    for utterance, transcript in zip(utterances, transcripts, strict=True):
        if utterance.text is None:
            skipped[utterance.id] = "no reference text"
        elif transcript is None:
            skipped[utterance.id] = (failures or {}).get(utterance.id, "could not be transcribed")
        else:
            heard = transcript if isinstance(transcript, str) else transcript.text
            results.append(_score(utterance, utterance.text, heard, normalize, bare, labels))
    if not results:
        example = next((f" For example '{name}': {why}" for name, why in skipped.items()), "")
        raise CorpusError(
            f"nothing to score: {len(skipped)} utterances, none with both a reference and a "
            f"transcript.{example}",
            mend="Choose a split that has transcripts: 'firstwords check CORPUS' lists them.",
        )
    speakers = [r.utterance.speaker for r in results]
    words, letters = [r.words for r in results], [r.graphemes for r in results]
    return Evaluation(
        model=model,
        corpus=corpus,
        split=split,
        normalizer=scoring,
        label_kind=label_kind or ("letters" if labels is None else "labels"),
        hardware=hardware,
        seconds=seconds,
        results=tuple(results),
        skipped=skipped,
        word_interval=bootstrap_interval(words, speakers, replicates=replicates, seed=seed),
        grapheme_interval=bootstrap_interval(letters, speakers, replicates=replicates, seed=seed),
        baselines=_baselines(results, [normalize(t) for t in training_texts]),
        tables=_tables(results),
        word_confusions=_confusions(results, str.split),
        grapheme_confusions=_confusions(results, graphemes),
        note=note,
    )


def _letters(text: str) -> list[str]:
    return [c for c in graphemes(text) if not c.isspace()]


def _score(
    utterance: Utterance,
    reference: str,
    hypothesis: str,
    normalize: Callable[[str], str],
    bare: Callable[[str], str],
    labels: Labels | None,
) -> Result:
    expected, got = normalize(reference), normalize(hypothesis)
    if labels is None:
        counted = sequence_errors(_letters(expected), _letters(got))
    else:
        counted = sequence_errors(labels(reference), labels(hypothesis))
    return Result(
        utterance=utterance,
        reference=reference,
        hypothesis=hypothesis,
        scored_reference=expected,
        scored_hypothesis=got,
        words=word_errors(expected, got),
        graphemes=grapheme_errors(expected, got),
        raw_words=word_errors(reference, hypothesis),
        raw_graphemes=grapheme_errors(reference, hypothesis),
        bare_graphemes=grapheme_errors(bare(expected), bare(got)),
        labels=counted,
    )


def _baselines(results: Sequence[Result], training: Sequence[str]) -> tuple[Baseline, ...]:
    """Always nothing, and always the commonest transcript: what any model has to beat."""
    source = "training" if training else "test"
    spoken = Counter(t for t in (training or [r.scored_reference for r in results]) if t)
    commonest = min(spoken, key=lambda t: (-spoken[t], t)) if spoken else ""
    constant = [("says nothing", "")]
    if commonest:
        constant.append((f"always says the commonest {source} transcript", commonest))
    return tuple(
        Baseline(
            name,
            text,
            ErrorRate.total(word_errors(r.scored_reference, text) for r in results),
            ErrorRate.total(grapheme_errors(r.scored_reference, text) for r in results),
        )
        for name, text in constant
    )


def _tables(results: Sequence[Result]) -> dict[str, tuple[Row, ...]]:
    """Column name -> rows; only columns that tell utterances apart."""
    keys = dict.fromkeys(key for r in results for key in r.utterance.labels)
    columns: dict[str, list[str]] = {
        "speaker": [r.utterance.speaker or "" for r in results],
        "language": [r.utterance.language or "" for r in results],
        **{key: [r.utterance.labels.get(key, "") for r in results] for key in keys},
    }
    tables: dict[str, tuple[Row, ...]] = {"duration": _duration_rows(results)}
    for name, values in columns.items():
        distinct = set(values)
        if len(distinct) < 2 or (name != "speaker" and len(distinct) > _MOST_VALUES):
            continue
        rows = [
            _row(v or "(not stated)", [r for r, x in zip(results, values, strict=True) if x == v])
            for v in distinct
        ]
        tables[name] = tuple(sorted(rows, key=lambda row: (-row.words.rate, row.value)))
    return tables


def _duration_rows(results: Sequence[Result]) -> tuple[Row, ...]:
    rows: list[Row] = []
    for low, high in zip((0.0, *DURATIONS), (*DURATIONS, math.inf), strict=True):
        inside = [r for r in results if low <= r.utterance.duration < high]
        name = f"{low:g}–{high:g} s" if high < math.inf else f"{low:g} s and more"
        if inside:
            rows.append(_row(name, inside))
    return tuple(rows)


def _row(value: str, results: Sequence[Result]) -> Row:
    return Row(
        value,
        len(results),
        sum(r.utterance.duration for r in results),
        ErrorRate.total(r.words for r in results),
        ErrorRate.total(r.graphemes for r in results),
    )


def _confusions(
    results: Sequence[Result], split: Callable[[str], list[str]], most: int = 50
) -> tuple[Confusion, ...]:
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for result in results:
        if result.scored_reference != result.scored_hypothesis:
            pairs = align(split(result.scored_reference), split(result.scored_hypothesis))
            counts.update(pair for pair in pairs if pair[0] != pair[1])
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))
    return tuple(Confusion(said, written, count) for (said, written), count in order[:most])


def compare(first: Evaluation, second: Evaluation, *, replicates: int = 10_000, seed: int = 0) -> Evaluation:
    """The second evaluation, with its comparison to the first on the utterances both scored."""
    if first.normalizer != second.normalizer:
        raise ValueError(f"scored with {first.normalizer} and {second.normalizer}: rates do not compare")
    known = {r.utterance.id: r for r in first.results}
    pairs = [(known[r.utterance.id], r) for r in second.results if r.utterance.id in known]
    different = [b.utterance.id for a, b in pairs if a.scored_reference != b.scored_reference]
    if different or not pairs:
        what = f"'{different[0]}' has two different references" if different else "no utterance in common"
        raise CorpusError(f"the two systems cannot be compared: {what}.", mend="Score both on one corpus.")
    speakers = [b.utterance.speaker for _, b in pairs]
    words = paired_difference(
        [a.words for a, _ in pairs], [b.words for _, b in pairs], speakers, replicates=replicates, seed=seed
    )
    letters = paired_difference(
        [a.graphemes for a, _ in pairs],
        [b.graphemes for _, b in pairs],
        speakers,
        replicates=replicates,
        seed=seed,
    )
    segments = [
        segment
        for a, b in pairs
        for segment in error_segments(
            b.scored_reference.split(), a.scored_hypothesis.split(), b.scored_hypothesis.split()
        )
    ]
    found = Comparison(first.model, second.model, len(pairs), words, letters, matched_pairs(segments))
    return replace(second, comparison=found)


def folder_for(evaluation: Evaluation, home: Path, *, ending: str = "") -> Path:
    """Where below ``home`` its report belongs: MODEL-CORPUS-SPLIT, unless another's report has that name.

    Two models may both lie in folders called 'model'. Then the name of the folder above stands before it, and
    last a number behind it. The report of the same model and corpus is replaced.
    """
    name = f"{evaluation.model}-{evaluation.corpus}-{evaluation.split}{ending}"
    above = Path(evaluation.made_from.get("model", "")).parent.name
    longer = f"{above}-{name}" if above else name
    names = [name, longer, *(f"{longer}-{number}" for number in range(2, 1000))]
    return next((home / n for n in names if _is_ours(home / n, evaluation)), home / name)


def _is_ours(folder: Path, evaluation: Evaluation) -> bool:
    """True where nothing is there, or an evaluation of the same model and corpus; of unknown ones: False."""
    try:
        record = json.loads((folder / JSON).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # the second: whoever writes there says what is wrong
        return True
    except (OSError, ValueError, RecursionError):
        return False
    known: object = cast("dict[str, object]", record).get("made_from") if isinstance(record, dict) else None
    return bool(known) and known == dict(evaluation.made_from)


def save_evaluation(evaluation: Evaluation, folder: Path, *, audio: bool = True) -> Path:
    """Write evaluation.json, hypotheses.jsonl and report.html; returns the path of the page.

    ``audio=False`` keeps the voices of the worst utterances out of the page.
    """
    figures = json.dumps(to_json(evaluation), ensure_ascii=False, indent=1) + "\n"
    lines = (
        json.dumps(result_record(r, evaluation.formatting, evaluation.quality), ensure_ascii=False) + "\n"
        for r in evaluation.results
    )
    page = evaluation_page(evaluation, folder=folder, audio=audio)
    try:
        with staged(folder) as new:
            write_atomically(new / JSON, figures)
            write_atomically(new / JSONL, "".join(lines))
            page.save(new / HTML)
    except WriteError as error:
        raise WriteError(
            f"the report cannot be written to '{folder}': {error.what}",
            mend=f"{error.mend} Or give another folder with --out.",
        ) from None
    return folder / HTML
