"""Corpus -> check, report and quarantine on disk; what 'firstwords check' and the quickstart both call."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firstwords.data.decisions import WRITE_LAST, Decided, decide, read_allowed, record
from firstwords.data.manifest import QUARANTINE, Corpus, read_quarantine, require_recordings
from firstwords.data.validate import HEARD, CheckResult, check, usable_seconds
from firstwords.errors import CorpusError, WriteError, quoted
from firstwords.files import claimed, staged, unwritable, write_atomically
from firstwords.report.check import build_page

_REPORT, _FINDINGS = "report.html", "findings.jsonl"


@dataclass(frozen=True)
class Written:
    """A finished check and where it lies."""

    result: CheckResult
    decided: Decided
    report: Path
    findings: Path
    quarantine: Path
    usable_seconds: float  # with words, outside the quarantine, of all splits
    next_command: str


def check_and_write(
    corpus: Corpus,
    *,
    name: str,
    fast: bool = False,
    out: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Run all rules and write report.html, findings.jsonl and quarantine.jsonl.

    Args:
        name: the corpus as the user called it, for the title and the next command.
        out: folder for everything; None writes into the corpus (reports into its folder 'check').
    """
    home = corpus.folder if out is None else out
    reports = home / "check" if out is None else out
    require_recordings(corpus)  # else all would be put aside
    with claimed(home):
        try:
            reports.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(home, unwritable(reports, error)) from None
        read_allowed(home)  # a fault in what the user wrote is said now, not after an hour of listening
        read_quarantine(home)
        result = check(corpus, fast=fast, workers=workers, progress=progress)
        decided = decide(home, result.quarantine, keep=HEARD if fast else ())
        next_command = f"firstwords train {quoted(name)} --to MODEL"
        try:
            with staged(home, last=WRITE_LAST) as new:
                record(home, new, decided)
                inside = new / reports.relative_to(home)
                lines = [
                    {"utterance": f.utterance, "rule": f.rule, "severity": f.severity, "found": f.detail}
                    for f in result.findings
                ]
                text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                write_atomically(inside / _FINDINGS, text)
                page = build_page(result, decided, name=name, folder=reports, next_command=next_command)
                page.save(inside / _REPORT)
        except WriteError as error:
            raise _unwritable(home, error) from None
        _, everything = usable_seconds(result, decided.quarantine)
        return Written(
            result,
            decided,
            reports / _REPORT,
            reports / _FINDINGS,
            home / QUARANTINE,
            everything,
            next_command,
        )


def _unwritable(folder: Path, error: WriteError) -> CorpusError:
    return CorpusError(
        f"'{folder}': the check cannot be written there: {error.what}",
        mend=f"{error.mend} Or give another folder with --out.",
    )
