"""CheckResult -> the page a person reads before training: what was found, and what the corpus is made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from markupsafe import Markup

from firstwords.data.decisions import Decided
from firstwords.data.manifest import Utterance
from firstwords.data.rules import Finding
from firstwords.data.rules_corpus import LONGEST
from firstwords.data.rules_text import code_points
from firstwords.data.validate import CheckResult, Letter, too_long, usable_seconds
from firstwords.report.charts import bar_chart, histogram
from firstwords.report.page import (
    Block,
    Cell,
    Page,
    Section,
    audio,
    command,
    details,
    facts,
    note,
    paragraph,
    section,
    table,
    transcript,
)  # fmt: skip

_SHOWN = 40  # utterances listed under one rule; the files beside the page hold all
_PLAYED = 10  # of them with a player
_ALPHABET = 400  # rows of the alphabet table


def hours(seconds: float) -> str:
    """Seconds -> '2.31 h', '14 min' or '35 s'."""
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def expectation(
    training_seconds: float, *, closed_vocabulary: bool, speakers: int, languages: int = 1
) -> str:
    """What a recogniser trained on this much transcribed speech can be, said honestly."""
    amount = training_seconds / 3600 / max(1, languages)
    if closed_vocabulary:
        sentence = (
            "The same few sentences come back again and again: a recogniser for just these can be good from "
            "little data, and will not know any other word."
        )
    elif amount < 0.25:
        sentence = (
            "This is too little for open speech: expect a model that shows that everything works, and gets "
            "most words of new sentences wrong."
        )
    elif amount < 1:
        sentence = (
            "Expect most words of new sentences to be wrong when training from nothing; starting from a "
            "model trained on more speech (--from) helps most."
        )
    elif amount < 5:
        sentence = (
            "This gives rough drafts at best when training from nothing; starting from a model trained on "
            "more speech (--from) helps most, and every further hour counts."
        )
    elif amount < 20:
        sentence = "This gives drafts worth correcting, best for speech like that of the recordings."
    elif amount < 100:
        sentence = "This gives a useful recogniser for speech like that of the recordings."
    else:
        sentence = "This is enough for a good recogniser of speech like that of the recordings."
    if languages > 1:
        sentence += f" The hours are spread over {languages} languages, and each learns mostly from its own."
    if speakers == 1:
        sentence += " It is one voice: results say nothing about other voices."
    return sentence


def expect(result: CheckResult, quarantine: Mapping[str, str]) -> str:
    """The same sentence for a finished check."""
    return expectation(
        usable_seconds(result, quarantine)[0],
        closed_vocabulary=result.statistics.closed_vocabulary,
        speakers=training_speakers(result),
        languages=len(result.statistics.by_language),
    )


def lost_in_length(result: CheckResult, quarantine: Mapping[str, str]) -> str:
    """How much speech is of no use because one text belongs to too much of it; empty where none is."""
    count, seconds = too_long(result, quarantine)
    if not count:
        return ""
    return (
        f"Not usable as it is: {hours(seconds)} in {count:,} utterance{'s' if count > 1 else ''} longer "
        f"than {LONGEST:g} s. Training leaves these out (data.max_duration), for nobody tells it which words "
        "of a long text are said when. Split them into sentences or breath groups with times of their own, "
        "in ELAN or Praat or as subtitles, and import those files."
    )


def training_speakers(result: CheckResult) -> int:
    """Known speakers of the corpus; 0 where the manifest names none."""
    return len({u.speaker for u in result.utterances} - {None})


def build_page(result: CheckResult, decided: Decided, *, name: str, folder: Path, next_command: str) -> Page:
    """Result and decisions -> page to be saved in ``folder`` (players are linked relative to it)."""
    page = Page(f"Corpus check: {name}", "What 'firstwords check' found, and what the corpus is made of.")
    page.add(_summary(result, decided, next_command), _findings(result, decided))
    utterances = {u.id: u for u in result.utterances}
    groups: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in result.findings:
        groups[finding.rule].append(finding)
    if groups:
        page.add(_each_rule(result, groups, utterances, folder))
    page.add(_decisions(decided), _lengths(result), _people(result))
    if result.statistics.alphabet:
        page.add(_alphabet(result.statistics.alphabet))
    return page


def _summary(result: CheckResult, decided: Decided, next_command: str) -> Section:
    numbers = result.statistics
    training, everything = usable_seconds(result, decided.quarantine)
    values: dict[str, Cell] = {
        "Utterances": numbers.utterances,
        "with words": numbers.spoken,
        "Recordings": numbers.recordings,
        "Length": hours(numbers.seconds),
        "Usable for training": hours(training),
        "Usable in all splits": hours(everything),
        "Put aside": len(decided.quarantine),
        "Speakers": training_speakers(result) or "not said in the manifest",
    }
    blocks: list[Block] = [facts(values)]
    if not numbers.decoded:
        blocks.append(
            note(
                "Only file headers were looked at (--fast): clipping, silence, hum, offset and equal audio "
                "in different files were not looked for.",
                "warning",
            )
        )
    if lost := lost_in_length(result, decided.quarantine):
        blocks.append(note(lost, "warning"))
    if everything:
        blocks += [
            paragraph(expect(result, decided.quarantine)),
            paragraph("Next:"),
            command(next_command),
        ]
    else:
        blocks.append(note("No utterance with words is usable, so there is nothing to train on.", "warning"))
    return section("Summary", *blocks)


def _findings(result: CheckResult, decided: Decided) -> Section:
    rows: list[list[Cell]] = [
        [
            Markup("<code>{0}</code>").format(row.rule.id),
            row.rule.meaning,
            row.outcome,
            row.utterances,
            row.seconds / 3600,
            row.rule.mend,
        ]
        for row in result.by_rule(decided.quarantine)
    ]
    if not rows:
        return section("Findings", note("No rule found anything.", "good"))
    headers = ["rule", "what", "then", "utterances", "hours", "how to mend it"]
    return section("Findings", table(headers, rows, caption="By hours affected", digits=3))


def _each_rule(
    result: CheckResult,
    groups: Mapping[str, list[Finding]],
    utterances: Mapping[str, Utterance],
    folder: Path,
) -> Section:
    blocks: list[Block] = []
    for row in result.by_rule():
        found = groups[row.rule.id]
        rows = [
            _finding_row(f, utterances[f.utterance], folder if k < _PLAYED else None)
            for k, f in enumerate(found[:_SHOWN])
        ]
        caption = f"{row.rule.meaning}: {len(found)} utterances"
        if len(found) > _SHOWN:
            caption += f", the first {_SHOWN} are shown; findings.jsonl beside this page holds all"
        shown = table(["utterance", "found", "text", "audio"], rows, caption=caption)
        blocks.append(details(f"{row.rule.id} ({len(found)})", shown))
    return section("Utterances of each rule", *blocks)


def _finding_row(finding: Finding, utterance: Utterance, folder: Path | None) -> list[Cell]:
    text: Cell = transcript(utterance.text, utterance.language) if utterance.text else None
    player: Cell = utterance.audio.name
    if folder is not None and utterance.audio.is_file():
        span = (utterance.start, utterance.start + utterance.duration)
        player = audio(utterance.audio, label=utterance.id, beside=folder, limit=0, span=span)
    return [finding.utterance, finding.detail, text, player]


def _decisions(decided: Decided) -> Section:
    blocks: list[Block] = [
        paragraph(
            f"{len(decided.quarantine)} utterances are put aside in quarantine.jsonl: training leaves them "
            "out and counts them. Delete a line to let an utterance back in; its id is then kept in "
            "allow.txt and no later check puts it aside again. A line you add stays until you delete it."
        )
    ]
    for title, group in (
        ("Let back in by hand", decided.allowed),
        ("Put aside by hand", decided.by_hand),
    ):
        if group:
            rows: list[list[Cell]] = [[name, reason] for name, reason in list(group.items())[:_SHOWN]]
            blocks.append(
                details(
                    f"{title} ({len(group)})",
                    table(["utterance", "reason"], rows, caption=f"{title}, at most 40"),
                )
            )
    return section("Put aside", *blocks)


def _lengths(result: CheckResult) -> Section:
    numbers = result.statistics
    longest = max(numbers.durations, default=0.0)
    top = min(longest, 40.0)
    blocks: list[Block] = [
        histogram(
            numbers.durations,
            title="Durations",
            x_label="seconds",
            y_label="utterances",
            low=0,
            high=top if top > 0 else 1,
            note=f"Median {numbers.median_duration:.2f} s, longest {longest:.1f} s."
            + (" The last bar holds all longer ones." if longest > top else ""),
        )
    ]
    if numbers.letters_per_second:
        blocks.append(
            histogram(
                numbers.letters_per_second,
                title="Speaking rate",
                x_label="letters a second",
                y_label="utterances",
                low=0,
                note="Pairs far from the rest often have the wrong text.",
            )
        )
    return section("Lengths", *blocks)


def _people(result: CheckResult) -> Section:
    numbers = result.statistics
    splits: list[list[Cell]] = [
        [name, count, seconds / 3600, speakers or None]
        for name, (count, seconds, speakers) in numbers.by_split.items()
    ]
    languages: list[list[Cell]] = [
        [name, count, seconds / 3600] for name, (count, seconds) in numbers.by_language.items()
    ]
    rates: list[list[Cell]] = [[f"{rate} Hz", count] for rate, count in numbers.sample_rates.items()]
    blocks: list[Block] = [
        table(["split", "utterances", "hours", "speakers"], splits, caption="Splits"),
        table(["language", "utterances", "hours"], languages, caption="Languages"),
        table(["sample rate", "utterances"], rates, caption="Sample rates"),
    ]
    if training_speakers(result):
        by_speaker = {name: seconds / 60 for name, seconds in numbers.by_speaker.items()}
        blocks.append(bar_chart(by_speaker, title="Minutes of each speaker", unit="min"))
    return section("Splits and speakers", *blocks)


def _alphabet(letters: Iterable[Letter]) -> Section:
    kept = list(letters)
    shown = kept[:_ALPHABET] + [x for x in kept[_ALPHABET:] if _is_odd(x)][:_ALPHABET]
    rows: list[list[Cell]] = [
        [
            Markup('<span class="transcript" title="{0}" dir="auto">{1}</span>').format(
                code_points(letter.text), letter.text
            ),
            Markup('<span class="codes" dir="ltr">{0}</span>').format(
                " ".join(f"U+{ord(c):04X}" for c in letter.text)
            ),
            letter.count,
            letter.utterances,
            ", ".join(letter.flags) or None,
        ]
        for letter in shown
    ]
    caption = f"{len(kept)} characters as written, before any normalization"
    if len(shown) < len(kept):
        caption += f"; {len(shown)} are shown: the most frequent and the odd ones"
    headers = ["character", "code points", "times", "utterances", "take care"]
    return section(
        "Alphabet",
        paragraph("Hold the pointer over a character for its full name. White space is left out."),
        table(headers, rows, caption=caption),
    )


def _is_odd(letter: Letter) -> bool:
    return any(flag != "rare" for flag in letter.flags)
