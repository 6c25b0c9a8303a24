"""The page of a quickstart: what was made from what, how well it hears, and where the details stand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from firstwords.report.charts import line_chart
from firstwords.report.evaluation import Evaluation
from firstwords.report.evaluation_terminal import circumstances, figures
from firstwords.report.page import Page, aligned_diff, audio, command, facts, note, paragraph, section, table
from firstwords.training.log import read_log

_LARGEST = 1e15  # no step and no loss is larger; NaN compares with nothing
_LINK = Markup('<a href="{}">{}</a>')


def build_page(
    *,
    title: str,
    warning: str,
    evaluation: Evaluation,
    metrics: Path,
    stages: Mapping[str, float],
    reports: Mapping[str, str],
    commands: tuple[str, ...],
    folder: Path,
) -> Page:
    """Everything a quickstart made -> Page.

    Args:
        warning: what a reader must know before any number; empty if nothing.
        metrics: the run's log.jsonl.
        stages: name -> seconds it took.
        reports: name -> address of another page, relative to ``folder``.
        folder: where the page will lie.
    """
    page = Page(title, f"{evaluation.model}, measured on {evaluation.corpus} / {evaluation.split}")
    if warning:
        page.add(note(warning, "warning"))
    rows = [
        [name, f"{100 * value:.1f} %", interval, counts]
        for name, value, interval, counts in figures(evaluation)
    ]
    page.add(
        section(
            "How well it hears",
            table(
                ["", "rate", "95 % interval", "errors"],
                rows,
                caption="Error rates on utterances never trained on",
            ),
            *(paragraph(line) for line in circumstances(evaluation)),
        )
    )
    records = read_log(metrics) if metrics.is_file() else []
    curves = training_curves(records)
    if curves:
        page.add(section("How it learned", *curves))
    examples = [r for r in evaluation.results if r.reference][:5]
    shown: list[Any] = []
    for result in examples:
        shown.append(paragraph(aligned_diff(result.scored_reference, result.scored_hypothesis)))
        if result.utterance.start == 0:
            shown.append(paragraph(audio(result.utterance.audio, label=result.utterance.id, beside=folder)))
    if shown:
        page.add(section("Some of what it heard", *shown))
    page.add(
        section(
            "How it was made",
            facts({name: f"{seconds:.0f} s" for name, seconds in stages.items()}),
            *(paragraph(_LINK.format(address, name)) for name, address in reports.items()),
        ),
        section("Your own language", *(command(c) for c in commands)),
    )
    return page


def training_curves(records: list[dict[str, Any]]) -> list[Any]:
    """Loss per step and dev error rates per validation, as charts."""
    losses = _curve(records, "train", "loss")
    dev = [(step, 100 * rate) for step, rate in _curve(records, "dev", "cer")]
    charts: list[Any] = []
    if len(losses) > 1:
        charts.append(line_chart({"loss": losses}, title="Loss per step", x_label="step", y_label="loss"))
    if len(dev) > 1:
        charts.append(
            line_chart({"dev": dev}, title="Character error rate on dev", x_label="step", y_label="CER in %")
        )
    return charts


def _curve(records: list[dict[str, Any]], kind: str, name: str) -> list[tuple[float, float]]:
    """(step, value) of the lines that have a finite number there; a log may have been edited or damaged."""
    curve: list[tuple[float, float]] = []
    for record in records:
        step, value = _number(record.get("step")), _number(record.get(name))
        if record.get("kind") == kind and step is not None and value is not None:
            curve.append((step, value))
    return curve


def _number(value: Any) -> float | None:
    small = isinstance(value, int | float) and -_LARGEST < value < _LARGEST
    return float(value) if small else None
