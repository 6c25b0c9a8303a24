"""Writers of evaluations, transcripts, pages."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from firstwords.cli.transcribe_files import Job, write_results
from firstwords.data.manifest import load_corpus
from firstwords.inference.made import RECORD, made_in
from firstwords.inference.transcript import Segment, Transcript, Word
from firstwords.quickstart.page import build_page
from firstwords.report.evaluate import evaluate, save_evaluation
from robustness.writer import Writer, nothing, old
from robustness.writers_corpora import a_corpus


def an_evaluation(folder: Path) -> Any:
    corpus = load_corpus(a_corpus(folder))
    heard = [Transcript(u.text or "", (), "und", u.duration, "") for u in corpus.utterances]
    return evaluate(list(corpus.utterances), heard, replicates=20, model="m", corpus="c", split="test")


def evaluated_before(home: Path, _: Any) -> None:
    for name in ("evaluation.json", "hypotheses.jsonl", "report.html"):
        (home / name).write_text("old " + name, encoding="utf-8")


def is_evaluated(home: Path, _: Any) -> None:
    assert json.loads((home / "evaluation.json").read_text(encoding="utf-8"))["word_error_rate"]["rate"] == 0
    assert (home / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert len((home / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()) == 5


FORMATS = ["txt", "json", "srt", "vtt", "ctm", "textgrid", "eaf"]


WORDS = (Word("samaki", 0.0, 0.4, 0.9), Word("wali", 0.5, 0.9, 0.8))


def a_transcript(folder: Path) -> tuple[Path, Transcript]:
    """A recording with a linguist's own .eaf beside it, which gets one more tier."""
    audio = folder / "one.wav"
    soundfile.write(audio, 0.1 * np.sin(np.arange(8000) / 5), 8000)
    audio.with_suffix(".eaf").write_text(
        '<ANNOTATION_DOCUMENT><HEADER/><TIME_ORDER></TIME_ORDER><TIER LINGUISTIC_TYPE_REF="t" '
        'TIER_ID="mine"/><LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="t" TIME_ALIGNABLE="true"/>'
        "</ANNOTATION_DOCUMENT>",
        encoding="utf-8",
    )
    segments = (Segment(0.0, 0.9, "samaki wali", WORDS, 0.85),)
    return audio, Transcript("samaki wali", segments, "sw", 1.0, "one.wav")


def transcribed_before(home: Path, made: tuple[Path, Transcript]) -> None:
    for suffix in ("txt", "json", "eaf"):
        (home / f"one.{suffix}").write_text("old", encoding="utf-8")


def transcribes(home: Path, made: tuple[Path, Transcript]) -> None:
    audio, transcript = made
    write_results(Job(audio, 1.0, home / "one"), transcript, "m", FORMATS, {"model": "m"})


def is_the_record(path: Path, _: object) -> bool:
    """Written before the transcripts: then they are known to be ours, whenever a kill comes."""
    return path.name == RECORD


def is_transcribed(home: Path, made: tuple[Path, Transcript]) -> None:
    names = [f"one.{'TextGrid' if f == 'textgrid' else f}" for f in FORMATS]
    assert sorted(p.name for p in home.iterdir()) == sorted([*names, RECORD])
    known = made_in(home)
    assert all(known[name].is_in(home / name) for name in names)
    record = json.loads((home / "one.json").read_text(encoding="utf-8"))
    assert Transcript.from_record(record) == made[1]
    eaf = (home / "one.eaf").read_text(encoding="utf-8")
    assert 'TIER_ID="mine"' in eaf
    assert eaf.endswith("</ANNOTATION_DOCUMENT>")


def writes_page(home: Path, evaluation: Any) -> None:
    page = build_page(
        title="A first recogniser",
        warning="",
        evaluation=evaluation,
        metrics=home / "none.jsonl",
        stages={"all": 1.0},
        reports={},
        commands=("firstwords import X --to corpus",),
        folder=home,
    )
    page.save(home / "report.html")


def is_page(home: Path, _: Any) -> None:
    assert (home / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")


def writes_bundle(home: Path, _: None) -> None:
    from firstwords.cli.doctor import run
    from firstwords.report import doctor

    real, doctor.examine = doctor.examine, lambda _folder: [doctor.Part("disk", "ok", "fine")]
    try:
        with redirect_stdout(io.StringIO()):
            run(Path(), home / "bundle.txt")
    finally:
        doctor.examine = real


def is_bundle(home: Path, _: None) -> None:
    assert "packages:" in (home / "bundle.txt").read_text(encoding="utf-8")


RESULTS = [
    Writer("evaluation", an_evaluation, lambda home, e: save_evaluation(e, home) and None, is_evaluated),
    Writer(
        "evaluation over another",
        an_evaluation,
        lambda home, e: save_evaluation(e, home) and None,
        is_evaluated,
        evaluated_before,
    ),
    Writer("transcripts", a_transcript, transcribes, is_transcribed, may_stay=is_the_record),
    Writer(
        "transcripts over others",
        a_transcript,
        transcribes,
        is_transcribed,
        transcribed_before,
        may_stay=is_the_record,
    ),
    Writer("page of the quickstart", an_evaluation, writes_page, is_page, old("report.html")),
    Writer("bundle of the doctor", nothing, writes_bundle, is_bundle, old("bundle.txt")),
]
