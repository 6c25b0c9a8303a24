"""Malformed corpora through 'firstwords import' and 'firstwords check': counted and named, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from robustness.commands import firstwords, import_record
from robustness.malformed_corpora import CASES, CorpusCase, Files

RATE = 8000


def lay_down(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case bytes():
                path.write_bytes(content)
            case str():
                path.write_text(content, encoding="utf-8", newline="")
            case _:
                time = np.arange(round(content * RATE)) / RATE
                soundfile.write(path, 0.3 * np.sin(400 * time) * np.sin(9 * time), RATE, format="WAV")
    return root


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_import_and_check(case: CorpusCase, tmp_path: Path) -> None:
    source = lay_down(tmp_path / "source", case.files())
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    corpus = tmp_path / "corpus"
    said = firstwords("import", source, "--to", corpus, *case.options)
    assert said.seconds < 10
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before
    if case.utterances is None:
        assert said.code == 1, said
        for words in case.says:
            assert words in said.err
        assert not (corpus / "manifest.jsonl").exists()
        return
    assert said.code == 0, said.err
    written = (corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(written) == case.utterances
    record = import_record(corpus)
    told = "\n".join([said.out, *(f"{s['where']}: {s['reason']}" for s in record["skipped"])])
    for words in case.says:
        assert words in told
    if record["skipped"]:
        assert f"Left out: {len(record['skipped'])}" in said.out
    for line in written:
        utterance = json.loads(line)
        assert utterance["duration"] > 0
        assert "\n" not in utterance["id"]
    checked = firstwords("check", corpus, "--workers", "1")
    assert checked.code in (0, 1)
    assert checked.seconds < 10
    assert (corpus / "check" / "report.html").is_file()


def test_no_command_of_a_corpus_was_run(tmp_path: Path) -> None:
    case = next(c for c in CASES if c.name == "kaldi with commands")
    source = lay_down(tmp_path / "source", case.files())
    firstwords("import", source, "--to", tmp_path / "corpus")
    assert not list(tmp_path.rglob("evil"))


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60


CORPUS_FAULTS = {
    "manifest.jsonl": [b"", b"\xff\xfe", b"{", b"[" * 100_000, b"\0" * 100, b'{"id": "a"}\n', b"null\n"],
    "quarantine.jsonl": [b"{", b"[]", b"\xff", b'{"id": 7}\n', b"[" * 100_000, b'{"id": [], "reason": {}}\n'],
    "allow.txt": [b"\xff\xfe\xfd", b"\0" * 10, b"nobody\n" * 1000],
    "check/quarantine.json": [b"{", b"[]", b"\xff", b"7", b"[" * 100_000, b'{"a": [1]}'],
    "import.json": [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"source": 7}'],
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", CORPUS_FAULTS)
def test_damaged_files_of_a_corpus_folder(name: str, tmp_path: Path) -> None:
    """Check, train, evaluate and a second import of a corpus folder whose own files are damaged."""
    source = lay_down(tmp_path / "source", {"a.wav": 1.5, "a.txt": "moja", "b.wav": 1.5, "b.txt": "mbili"})
    corpus = tmp_path / "corpus"
    for number, content in enumerate(CORPUS_FAULTS[name]):
        if corpus.exists():
            for path in sorted(corpus.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
        assert firstwords("import", source, "--to", corpus).code == 0
        firstwords("check", corpus, "--workers", "1")
        (corpus / name).parent.mkdir(exist_ok=True)
        (corpus / name).write_bytes(content)
        for said in (
            firstwords("check", corpus, "--workers", "1"),
            firstwords("train", corpus, "--to", tmp_path / f"run{number}", "--set", "training.nonsense=1"),
            firstwords("import", source, "--to", corpus),
        ):
            assert said.seconds < 10
            if said.code:
                assert str(corpus) in said.all or name in said.all or "nonsense" in said.all, said
