"""An evaluation as lines and a table in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from firstwords.report.evaluation import Comparison, Evaluation, Formatting, Quality
from firstwords.scoring.error_rate import ErrorRate
from firstwords.scoring.significance import Difference, Interval

FEW_GROUPS = 10  # below, the bootstrap gives intervals that are clearly too narrow


def percent(value: float) -> str:
    """0.1234 -> '12.3 %'; an infinite rate (errors without a reference) is a dash."""
    return "–" if value in (float("inf"), float("-inf")) else f"{100 * value:.1f} %"


def interval_words(interval: Interval, rate: ErrorRate) -> str:
    """'10.1–14.8 %', as ``Interval.bounds`` has it."""
    low, high = interval.bounds(rate)
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def figures(evaluation: Evaluation) -> list[tuple[str, float, str, str]]:
    """(name, rate, interval in words, what it counts) of every headline figure."""
    words, letters = evaluation.words, evaluation.graphemes
    labels = evaluation.total("labels")
    word_interval = interval_words(evaluation.word_interval, words)
    letter_interval = interval_words(evaluation.grapheme_interval, letters)
    rows = [
        ("WER", words.rate, word_interval, f"{words.errors:,} errors in {words.reference_length:,} words"),
        ("CER", letters.rate, letter_interval, f"{letters.reference_length:,} letters and spaces"),
        (
            "CER without diacritics",
            evaluation.total("bare_graphemes").rate,
            "",
            "accents and tone marks removed",
        ),
        ("WER, raw", evaluation.total("raw_words").rate, "", "as written: case and punctuation count"),
        ("CER, raw", evaluation.total("raw_graphemes").rate, "", "as written"),
        (
            "LER",
            labels.rate,
            "",
            f"label error rate over {labels.reference_length:,} {evaluation.label_kind}",
        ),
        ("MER", words.match_error_rate, "", "match error rate: share of aligned words that are wrong"),
    ]
    found = evaluation.formatting
    if found is not None:
        rows += [
            ("WER, formatted", found.words.rate, "", f"after {', '.join(found.stages)}; as written"),
            ("CER, formatted", found.graphemes.rate, "", "the same in letters, marks and spaces"),
            (
                "WER after stages",
                found.scored_words.rate,
                "",
                f"the same, normalizer {evaluation.normalizer}",
            ),
        ]
    return rows


def circumstances(evaluation: Evaluation) -> list[str]:
    """What must stand beside any error rate, one sentence each."""
    results = evaluation.results
    speakers = len({r.utterance.speaker for r in results if r.utterance.speaker is not None})
    voices = f"{speakers} speaker{'s' * (speakers != 1)}" if speakers else "speakers not named"
    interval = evaluation.word_interval
    lines = [
        f"{len(results):,} utterances, {evaluation.audio_seconds / 60:.1f} minutes, {voices}, "
        f"{evaluation.words.reference_length:,} words; normalizer {evaluation.normalizer}.",
        f"{100 * interval.level:.0f} % interval: bootstrap over {interval.groups:,} {interval.unit}s"
        + (
            "."
            if interval.unit == "speaker"
            else "; fewer than 10 speakers, so it says nothing about other voices."
        ),
    ]
    if interval.groups < FEW_GROUPS:
        lines.append(
            f"Only {interval.groups} {interval.unit}{'s' * (interval.groups != 1)} to draw from: the true "
            "interval is wider than the one given."
        )
    if not evaluation.words.errors:
        lines.append("No error was seen: the upper ends are the rule of three (3 / number of symbols).")
    if evaluation.real_time_factor is not None:
        speed = f"Real-time factor {evaluation.real_time_factor:.3f}"
        lines.append(f"{speed} on {evaluation.hardware}." if evaluation.hardware else f"{speed}.")
    quiet, non_speech = evaluation.silent
    if non_speech:
        lines.append(f"Non-speech: {quiet} of {non_speech} gave empty text.")
    if evaluation.formatting is not None:
        lines.append(formatting_words(evaluation.formatting))
    if evaluation.quality is not None:
        lines.append(quality_words(evaluation.quality))
    if evaluation.skipped:
        first = ", ".join(f"{k} ({v})" for k, v in list(evaluation.skipped.items())[:3])
        lines.append(f"Not scored: {len(evaluation.skipped)} utterances, first {first}.")
    return lines


def quality_words(found: Quality) -> str:
    """How well transcripts with an error are known without a reference."""
    count = f"{found.wrong:,} of {len(found.scores):,} utterances with text have an error"
    if not found.areas:
        return f"Quality without reference: {count}, so nothing can be told apart."
    names = {"text": "the language model", "confidence": "the recogniser's confidence", "both": "both"}
    areas = ", ".join(
        f"{area.value:.2f} ({area.interval.low:.2f}–{area.interval.high:.2f}) by {names[name]}"
        for name, area in found.areas.items()
    )
    interval = next(iter(found.areas.values())).interval
    return (
        f"Quality without reference: {count}; area under the curve {areas}; 0.5 is chance "
        f"({100 * interval.level:.0f} % intervals: bootstrap over {interval.groups:,} {interval.unit}s)."
    )


def formatting_words(found: Formatting) -> str:
    """How much stages rewrote, and what it did to the phrases of a list."""
    changes = ", ".join(f"{stage} {count:,}" for stage, count in found.changes.items())
    words = f"Stages of formatting, rewrites of each: {changes}."
    if found.phrases is not None:
        before, after = found.phrases
        words += (
            f" Hot words found {after.hits:,} of {after.hits + after.misses:,} (before: {before.hits:,}), "
            f"false alarms {after.false_alarms:,} (before: {before.false_alarms:,})."
        )
    return words


def p_words(value: float) -> str:
    """0.0312 -> 'p = 0.0312'; what four digits cannot show is 'p < 0.0001'."""
    return f"p = {value:.4f}" if value >= 0.0001 else "p < 0.0001"


def comparison_words(name: str, difference: Difference) -> str:
    """'WER -3.1 points (-4.9 to -1.2), p = 0.001: significantly better'."""
    found, interval = difference.difference, difference.interval
    if difference.significant:
        verdict = "significantly better" if found < 0 else "significantly worse"
    else:
        verdict = "no significant difference"
    return (
        f"{name} {100 * found:+.2f} points ({100 * interval.low:+.2f} to {100 * interval.high:+.2f}), "
        f"{p_words(difference.p_value)}: {verdict}"
    )


def comparison_lines(comparison: Comparison) -> list[str]:
    """The comparison of two systems in sentences."""
    unit, groups = comparison.words.interval.unit, comparison.words.interval.groups
    return [
        f"{comparison.second} against {comparison.first}, {comparison.utterances:,} utterances:",
        comparison_words("WER", comparison.words),
        comparison_words("CER", comparison.graphemes),
        f"paired bootstrap over {groups:,} {unit}s; matched pairs of word segments (MAPSSWE): "
        f"{p_words(comparison.matched_pairs_p)}",
    ]


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Table of rates, what they rest on, baselines and comparison."""
    title = " · ".join(part for part in (evaluation.model, evaluation.corpus, evaluation.split) if part)
    table = Table(title=escape(title) or None, title_justify="left")
    table.add_column("")
    table.add_column("rate", justify="right")
    table.add_column(f"{100 * evaluation.word_interval.level:.0f} % interval", justify="right")
    table.add_column("of", style="dim")
    for name, rate, interval, of in figures(evaluation):
        table.add_row(name, percent(rate), interval, escape(of))
    for baseline in evaluation.baselines:
        of = f"trivial baseline: CER {percent(baseline.graphemes.rate)}"
        table.add_row(f"WER if it {baseline.name}", percent(baseline.words.rate), "", of, style="dim")
    console.print(table)
    lines = [*([evaluation.note] if evaluation.note else []), *circumstances(evaluation)]
    if evaluation.comparison:
        lines += comparison_lines(evaluation.comparison)
    for line in lines:
        console.print(escape(line), highlight=False)
