"""Evaluation <-> JSON: the figures for programs, and hypotheses read back for a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from firstwords.errors import CorpusError
from firstwords.report.evaluation import Confusion, Evaluation, Formatting, Quality, Result, Row
from firstwords.scoring.error_rate import ErrorRate
from firstwords.scoring.significance import Difference, Interval


def counts(rate: ErrorRate, interval: Interval | None = None) -> dict[str, Any]:
    """Error counts -> JSON object; a rate that is infinite (errors, but no reference) is null."""
    record: dict[str, Any] = {
        "rate": rate.rate if rate.rate != float("inf") else None,
        "errors": rate.errors,
        "substitutions": rate.substitutions,
        "deletions": rate.deletions,
        "insertions": rate.insertions,
        "reference_length": rate.reference_length,
    }
    if interval is None:
        return record
    low, high = interval.bounds(rate)
    return record | {"interval": _interval(replace(interval, low=low, high=high))}


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "low": interval.low,
        "high": interval.high,
        "level": interval.level,
        "drawn_by": interval.unit,
        "groups": interval.groups,
        "replicates": interval.replicates,
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "difference": difference.difference,
        "interval": _interval(difference.interval),
        "p_value": difference.p_value,
        "significant": difference.significant,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "value": row.value,
        "utterances": row.utterances,
        "seconds": round(row.seconds, 3),
        "words": counts(row.words),
        "graphemes": counts(row.graphemes),
    }


def _confusions(confusions: Sequence[Confusion]) -> list[dict[str, Any]]:
    return [{"said": c.said, "written": c.written, "count": c.count} for c in confusions]


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Every figure of an evaluation as one JSON object; rates are fractions."""
    quiet, non_speech = evaluation.silent
    factor = evaluation.real_time_factor
    record: dict[str, Any] = {
        "format": 1,
        "model": evaluation.model,
        "corpus": evaluation.corpus,
        "split": evaluation.split,
        "made_from": dict(evaluation.made_from),
        "note": evaluation.note,
        "utterances": len(evaluation.results),
        "skipped": dict(evaluation.skipped),
        "audio_seconds": round(evaluation.audio_seconds, 3),
        "words": evaluation.words.reference_length,
        "normalizer": evaluation.normalizer,
        "hardware": evaluation.hardware,
        "seconds": None if evaluation.seconds is None else round(evaluation.seconds, 3),
        "real_time_factor": None if factor is None else round(factor, 6),
        "word_error_rate": counts(evaluation.words, evaluation.word_interval),
        "character_error_rate": counts(evaluation.graphemes, evaluation.grapheme_interval),
        "character_error_rate_without_diacritics": counts(evaluation.total("bare_graphemes")),
        "raw_word_error_rate": counts(evaluation.total("raw_words")),
        "raw_character_error_rate": counts(evaluation.total("raw_graphemes")),
        "label_error_rate": {"labels": evaluation.label_kind, **counts(evaluation.total("labels"))},
        "match_error_rate": evaluation.words.match_error_rate,
        "non_speech": {"utterances": non_speech, "empty": quiet},
        "baselines": [
            {"name": b.name, "text": b.text, "words": counts(b.words), "graphemes": counts(b.graphemes)}
            for b in evaluation.baselines
        ],
        "tables": {name: [_row(row) for row in rows] for name, rows in evaluation.tables.items()},
        "confusions": {
            "words": _confusions(evaluation.word_confusions),
            "graphemes": _confusions(evaluation.grapheme_confusions),
        },
    }
    if evaluation.formatting is not None:
        record["formatting"] = _formatting(evaluation.formatting)
    if evaluation.quality is not None:
        record["quality"] = _quality(evaluation.quality)
    if evaluation.comparison:
        found = evaluation.comparison
        record["comparison"] = {
            "against": found.first,
            "utterances": found.utterances,
            "words": _difference(found.words),
            "graphemes": _difference(found.graphemes),
            "matched_pairs_p": found.matched_pairs_p,
        }
    return record


def _quality(found: Quality) -> dict[str, Any]:
    return {
        "utterances": len(found.scores),
        "with_errors": found.wrong,
        "area_under_curve": {
            name: {"value": area.value, "interval": _interval(area.interval)}
            for name, area in found.areas.items()
        },
    }


def _formatting(found: Formatting) -> dict[str, Any]:
    record: dict[str, Any] = {
        "stages": list(found.stages),
        "word_error_rate": counts(found.words),
        "character_error_rate": counts(found.graphemes),
        "normalized_word_error_rate": counts(found.scored_words),
        "rewrites": dict(found.changes),
    }
    if found.phrases is not None:
        record["hotwords"] = {
            when: {"hits": c.hits, "misses": c.misses, "false_alarms": c.false_alarms}
            for when, c in zip(("before", "after"), found.phrases, strict=True)
        }
    return record


def result_record(
    result: Result, formatting: Formatting | None = None, quality: Quality | None = None
) -> dict[str, Any]:
    """One line of hypotheses.jsonl."""
    utterance = result.utterance
    record: dict[str, Any] = {
        "id": utterance.id,
        "reference": result.reference,
        "hypothesis": result.hypothesis,
    }
    if formatting is not None and utterance.id in formatting.texts:
        record["formatted"] = formatting.texts[utterance.id]
    if quality is not None and utterance.id in quality.scores:
        record["quality"] = round(quality.scores[utterance.id], 6)
        record["confidence"] = round(quality.confidences[utterance.id], 6)
    if utterance.speaker is not None:
        record["speaker"] = utterance.speaker
    return record | {
        "duration": round(utterance.duration, 6),
        "scored_reference": result.scored_reference,
        "scored_hypothesis": result.scored_hypothesis,
        "words": counts(result.words),
        "graphemes": counts(result.graphemes),
    }


def read_hypotheses(path: Path) -> dict[str, str]:
    """hypotheses.jsonl (ours, or any JSON lines with 'id' and 'hypothesis') -> id -> text."""
    found: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"'{path}' cannot be read: {error}.", mend="Check the path.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(
                f"line {number} of '{path}' is not JSON: {error}.", mend="Mend the line."
            ) from None
        fields = cast("dict[str, Any]", record) if isinstance(record, dict) else {}
        name, text = fields.get("id"), fields.get("hypothesis")
        if not isinstance(name, str) or not isinstance(text, str):
            raise CorpusError(
                f"line {number} of '{path}' has no text 'id' and 'hypothesis'.",
                mend='Each line reads {"id": "...", "hypothesis": "..."}.',
            )
        if name in found:
            raise CorpusError(f"'{name}' stands twice in '{path}' (line {number}).", mend="Keep one of them.")
        found[name] = text
    if not found:
        raise CorpusError(f"'{path}' holds no hypotheses.", mend="Choose a file 'firstwords evaluate' wrote.")
    return found
