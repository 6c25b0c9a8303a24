"""An evaluation as one HTML page: figures, tables, confusions, the worst utterances with their audio."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from firstwords.audio.waveform import probe, read
from firstwords.data.manifest import Utterance
from firstwords.errors import AudioError
from firstwords.report.charts import bar_chart, histogram
from firstwords.report.evaluation import Confusion, Evaluation, Result, Row
from firstwords.report.evaluation_terminal import circumstances, comparison_lines, figures, percent
from firstwords.report.page import (
    Cell,
    Page,
    Section,
    aligned_diff,
    details,
    facts,
    items,
    note,
    paragraph,
    section,
    table,
    transcript,
)
from firstwords.report.page import (
    audio as player,
)

_CLIP_SECONDS = 20.0  # longest clip that is cut and put into the page
_TABLE_ROWS = 200


def evaluation_page(evaluation: Evaluation, *, folder: Path, audio: bool = True) -> Page:
    """Evaluation -> page to be saved in ``folder``; ``audio=False`` keeps voices out of it."""
    subtitle = " · ".join(part for part in (evaluation.model, evaluation.corpus, evaluation.split) if part)
    page = Page("Evaluation", subtitle)
    if evaluation.note:
        page.add(note(evaluation.note, "warning"))
    page.add(_summary(evaluation))
    if evaluation.comparison:
        page.add(section("Comparison", items(comparison_lines(evaluation.comparison))))
    for name, rows in evaluation.tables.items():
        page.add(_breakdown(name, rows))
    page.add(_confusions(evaluation))
    page.add(_worst(evaluation.worst(), folder, audio))
    if evaluation.skipped:
        rows = [[name, why] for name, why in evaluation.skipped.items()]
        page.add(section("Not scored", table(["utterance", "reason"], rows, caption="Skipped utterances")))
    return page


def _summary(evaluation: Evaluation) -> Section:
    rows: list[list[Cell]] = [
        [name, percent(rate), interval, of] for name, rate, interval, of in figures(evaluation)
    ]
    for b in evaluation.baselines:
        of = f"trivial baseline; CER {percent(b.graphemes.rate)}"
        rows.append([f"WER if it {b.name}", percent(b.words.rate), "", of])
    level = f"{100 * evaluation.word_interval.level:.0f} % interval"
    words = evaluation.words
    rates = [100 * r.words.rate for r in evaluation.results if r.words.reference_length]
    return section(
        "Error rates",
        table(["", "rate", level, "of"], rows, caption="Error rates", numeric=(1, 2)),
        items(circumstances(evaluation)),
        facts(
            {
                "Words substituted": words.substitutions,
                "Words lost": words.deletions,
                "Words put in": words.insertions,
                "Utterances without any error": sum(r.words.errors == 0 for r in evaluation.results),
            }
        ),
        histogram(
            rates,
            title="Word error rate of each utterance",
            x_label="WER, %",
            y_label="utterances",
            low=0,
            high=100,
        ),
    )


def _breakdown(name: str, rows: Sequence[Row]) -> Section:
    cells: list[list[Cell]] = [
        [
            row.value,
            row.utterances,
            row.seconds / 60,
            row.words.reference_length,
            100 * row.words.rate,
            100 * row.graphemes.rate,
        ]
        for row in rows[:_TABLE_ROWS]
    ]
    headers = [name, "utterances", "minutes", "words", "WER, %", "CER, %"]
    more = f"; the first {_TABLE_ROWS} of {len(rows)}, worst first" if len(rows) > _TABLE_ROWS else ""
    chart = bar_chart(
        {row.value: 100 * row.words.rate for row in rows if row.words.reference_length},
        title=f"Word error rate by {name}",
        unit="%",
        digits=1,
    )
    listing = table(headers, cells, caption=f"Error rates by {name}{more}", digits=1)
    return section(f"By {name}", chart, details("All values", listing) if len(rows) > 12 else listing)


def _confusions(evaluation: Evaluation) -> Section:
    return section(
        "Confusions",
        _confusion_table("words", evaluation.word_confusions),
        _confusion_table("letters", evaluation.grapheme_confusions),
    )


def _confusion_table(kind: str, confusions: Sequence[Confusion]) -> Markup:
    if not confusions:
        return paragraph(f"No {kind} were confused.")
    rows: list[list[Cell]] = [[_symbol(c.said), _symbol(c.written), c.count] for c in confusions]
    return table(
        ["said", "written", "times"], rows, caption=f"Most confused {kind}", numeric=(2,), row_headers=False
    )


def _symbol(symbol: str | None) -> Markup:
    """One word or letter; a lone space or mark would be invisible, so it is named by its code points."""
    if symbol is None:
        return Markup("<em>nothing</em>")
    if symbol.isspace():
        return Markup("<em>space</em>")
    points = " ".join(f"U+{ord(c):04X}" for c in symbol)
    return Markup('<span title="{0}">{1}</span>').format(
        points if len(symbol) <= 8 else "", transcript(symbol)
    )


def _worst(results: Sequence[Result], folder: Path, audio: bool) -> Section:
    if not results:
        return section("Worst utterances", "Every utterance is right.")
    blocks: list[Markup] = [
        paragraph("Highest character error rate first. Struck out: missed; underlined: put in.")
    ]
    for result in results:
        utterance = result.utterance
        label = f"{utterance.id}: {percent(result.graphemes.rate)} CER, {percent(result.words.rate)} WER"
        rows = {
            "Said": transcript(result.reference, utterance.language),
            "Written": transcript(result.hypothesis, utterance.language),
            "Compared": aligned_diff(
                result.scored_reference, result.scored_hypothesis, language=utterance.language
            ),
            "Speaker": utterance.speaker,
            "Seconds": utterance.duration,
        }
        blocks.append(paragraph(Markup("<strong>{0}</strong>").format(label)))
        blocks.append(facts(rows))
        if audio:
            blocks.append(_listen(utterance, folder))
    return section("Worst utterances", *blocks)


def _listen(utterance: Utterance, folder: Path) -> Markup:
    """A player of just this utterance: its file when it is a whole short one, else a cut as FLAC."""
    label = f"Audio of {utterance.id}"
    try:
        known = probe(utterance.audio)
        whole = utterance.start == 0 and abs(known.duration - utterance.duration) < 0.5
        if whole and known.container in ("wav", "flac", "ogg", "mp3"):
            return player(utterance.audio, label=label, beside=folder)
        return player(_cut(utterance), label=label)
    except AudioError as error:
        return paragraph(f"{label}: {error.what}")


def _cut(utterance: Utterance) -> bytes:
    import soundfile

    wave = read(utterance.audio, start=utterance.start, duration=min(utterance.duration, _CLIP_SECONDS))
    written = io.BytesIO()
    soundfile.write(written, wave.samples, wave.sample_rate, format="FLAC", subtype="PCM_16")
    return written.getvalue()
