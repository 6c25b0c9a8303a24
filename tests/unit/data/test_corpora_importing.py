"""From source to corpus folder: detection, import.json, copies, the shared corpora."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firstwords.audio.waveform import probe
from firstwords.data.corpora import LAYOUTS, Options, detect_layout, layout_named
from firstwords.data.corpora.importing import Plan, import_corpus
from firstwords.data.manifest import load_corpus, read_manifest
from firstwords.errors import AudioError, CorpusError, UsageError
from small_sources import people, record_of, state

Tree = Callable[..., Path]


def test_a_folder_becomes_a_corpus_and_the_originals_stay_as_they_were(tree: Tree, tmp_path: Path) -> None:
    root = tree(people(10, 3) | {"s0/alone.wav": 1})
    before = state(root)
    report = import_corpus(root, tmp_path / "corpus", Plan(options=Options(language="sw")))
    assert state(root) == before
    corpus = load_corpus(tmp_path / "corpus")
    assert report.corpus == corpus
    assert len(corpus.utterances) == 30
    assert set(corpus.splits) == {"train", "dev", "test"}
    assert {u.language for u in corpus.utterances} == {"sw"}
    assert all(u.audio.is_file() and u.audio.is_relative_to(root) for u in corpus.utterances)
    record = record_of(tmp_path / "corpus")
    assert record["source"] == root.as_posix()
    assert (record["layout"], record["split_rule"], record["finished"]) == ("folder", "speaker", True)
    assert record["skipped"] == [{"where": "s0/alone.wav", "reason": "no text file of the same name"}]
    assert record["counts"]["utterances"] == 30
    assert record["counts"]["splits"]["train"]["speakers"] == 8
    assert record["notes"] == list(report.notes)


def test_a_copy_is_complete_relative_and_movable(tree: Tree, tmp_path: Path) -> None:
    root = tree(people(3, 2) | {"s0/9.txt": "far", "t.csv": "", "audio/x.wav": 1, "audio/x.txt": "x"})
    (root / "t.csv").unlink()
    import_corpus(root, tmp_path / "corpus", Plan(copy=True))
    shutil.move(tmp_path / "corpus", tmp_path / "moved")
    shutil.rmtree(root)
    utterances = tuple(read_manifest(tmp_path / "moved/manifest.jsonl"))
    assert len(utterances) == 7
    assert all(u.audio.is_file() for u in utterances)
    names = {u.audio.relative_to(tmp_path / "moved").as_posix() for u in utterances}
    assert {"audio/s0/0.wav", "audio/x.wav"} <= names


def test_a_source_named_from_elsewhere_gives_the_same_corpus(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree({"clips/a.wav": 1, "clips/b.wav": 1, "clips/c.wav": 1})
    (root / "t.csv").write_text("file,text\na.wav,x\nb.wav,y\nc.wav,z\n")
    expected = import_corpus(root, tmp_path / "one").corpus.utterances
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert import_corpus(Path("../source"), Path("../two")).corpus.utterances == expected
    monkeypatch.chdir(root)
    assert import_corpus(Path(), Path("corpus")).corpus.utterances == expected
    import_corpus(Path("../source"), Path("../copied"), Plan(copy=True))
    copied = [json.loads(line) for line in (tmp_path / "copied/manifest.jsonl").read_text().splitlines()]
    assert [r["audio"] for r in copied] == [f"audio/clips/{n}.wav" for n in "abc"]


def test_an_interrupt_while_looking_at_recordings_stops_at_once(tree: Tree, tmp_path: Path) -> None:
    root = tree(people(10, 10))
    seen: list[int] = []

    def progress(done: int, _: int) -> None:
        seen.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_corpus(root, tmp_path / "corpus", Plan(options=Options(progress=progress)))
    assert seen == [1]
    assert not (tmp_path / "corpus").exists()


def test_copies_of_recordings_outside_the_source_do_not_collide(tree: Tree, tmp_path: Path) -> None:
    root = tree({"a/x.wav": 1.0, "b/x.wav": 2.0, "in/t.csv": ""})
    table = f"file,text\n../a/x.wav,one\n{(root / 'b/x.wav').as_posix()},two\n"
    (root / "in/t.csv").write_text(table)
    import_corpus(root / "in", tmp_path / "corpus", Plan(copy=True))
    utterances = tuple(read_manifest(tmp_path / "corpus/manifest.jsonl"))
    assert {u.text: u.duration for u in utterances} == {"one": 1.0, "two": 2.0}
    assert len({u.audio for u in utterances}) == 2
    assert all(u.audio.parent == tmp_path / "corpus/audio" for u in utterances)


def test_the_corpus_may_lie_inside_the_source_and_is_not_imported_again(tree: Tree) -> None:
    root = tree(people(3, 2))
    for _ in range(2):
        report = import_corpus(root, root / "corpus", Plan(copy=True))
        assert len(report.corpus.utterances) == 6
        assert report.layout == "folder"


def test_a_full_disk_ends_in_our_error(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("firstwords.data.corpora.copies.shutil.copy2", full)
    with pytest.raises(CorpusError, match="No space left") as caught:
        import_corpus(tree(people(3, 2)), tmp_path / "corpus", Plan(copy=True))
    assert "--copy" in caught.value.mend


def test_targets_that_are_not_ours_are_refused(tree: Tree, tmp_path: Path) -> None:
    root = tree(people(3, 2))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.doc").write_text("years of work")
    with pytest.raises(CorpusError, match=r"not empty(.|\n)*thesis\.doc"):
        import_corpus(root, tmp_path / "other")
    with pytest.raises(CorpusError, match="is the source itself"):
        import_corpus(root, root)
    with pytest.raises(CorpusError, match="is a file"):
        import_corpus(root, tmp_path / "other/thesis.doc")
    import_corpus(root, tmp_path / "corpus")
    with pytest.raises(CorpusError, match="was imported from"):
        import_corpus(root / "s0", tmp_path / "corpus")
    assert (tmp_path / "other/thesis.doc").read_text() == "years of work"


def test_a_corpus_folder_can_be_imported_in_turn(tree: Tree, tmp_path: Path) -> None:
    import_corpus(tree(people(10, 3)), tmp_path / "one")
    report = import_corpus(tmp_path / "one", tmp_path / "two")
    assert report.layout == "manifest"
    assert report.corpus.utterances == load_corpus(tmp_path / "one").utterances


def test_the_same_seed_gives_the_same_manifest(tree: Tree, tmp_path: Path) -> None:
    root = tree(people(12, 2))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        import_corpus(root, tmp_path / name, Plan(seed=seed))
    manifests = [(tmp_path / name / "manifest.jsonl").read_bytes() for name in "abc"]
    assert manifests[0] == manifests[1]
    assert manifests[0] != manifests[2]


class TestDetection:
    def test_ambiguity_is_listed_and_never_guessed(self, tree: Tree) -> None:
        root = tree({"a.wav": 1, "a.txt": "x", "a.srt": "1\n00:00:00,000 --> 00:00:01,000\nx\n"})
        with pytest.raises(CorpusError, match="could be several things") as caught:
            detect_layout(root)
        assert "--layout subtitles" in caught.value.what
        assert "--layout folder" in caught.value.what
        assert import_corpus(root, root.parent / "c", Plan(layout="subtitles")).layout == "subtitles"

    def test_what_was_found_is_said(self, tree: Tree) -> None:
        detected = detect_layout(tree({"a.wav": 1, "b.wav": 1, "a.txt": "x"}))
        assert detected.found == "1 recordings with a text file of the same name (of 2 recordings)"

    @pytest.mark.parametrize(
        ("files", "what", "mend"),
        [
            ({}, "no files", "Known layouts"),
            ({"a.wav": 1}, "1 .wav", "Put a text file beside each recording"),
            ({"a.docx": "x"}, "1 .docx", "Known layouts"),
            ({"cv.tar.gz": "x"}, "1 .gz", "Unpack"),
            ({"a.wav": 1, "texts.xlsx": "x"}, "1 .xlsx", "CSV UTF-8"),
            ({"data/train-0.parquet": "x"}, "1 .parquet", "audiofolder"),
        ],
    )
    def test_nothing_recognised_says_what_lies_there(
        self, files: dict[str, Any], what: str, mend: str, tree: Tree
    ) -> None:
        root = tree(files)
        root.mkdir(exist_ok=True)
        with pytest.raises(CorpusError, match="no layout was recognised") as caught:
            detect_layout(root)
        assert what in caught.value.what
        assert mend in caught.value.mend

    def test_an_archive_named_outright_says_unpack(self, tree: Tree) -> None:
        with pytest.raises(CorpusError) as caught:
            detect_layout(tree({"x.zip": "PK"}) / "x.zip")
        assert "Unpack" in caught.value.mend

    def test_a_source_that_does_not_exist_lists_its_neighbours(self, tree: Tree) -> None:
        with pytest.raises(CorpusError, match="does not exist") as caught:
            detect_layout(tree({"recordings/a.wav": 1}) / "recording")
        assert "recordings" in caught.value.mend

    def test_unknown_layouts_list_the_known_ones(self) -> None:
        with pytest.raises(UsageError) as caught:
            layout_named("praat")
        assert "textgrid" in caught.value.mend

    @pytest.mark.parametrize("name", LAYOUTS)
    def test_every_layout_forced_on_foreign_files_ends_in_our_error(self, name: str, tree: Tree) -> None:
        root = tree({"a.docx": "x", "b/c.wav": b"no sound", "d.csv": "\x00\x01", "e.json": "[", "f.tsv": ""})
        with pytest.raises(CorpusError):
            LAYOUTS[name].read(root, Options())


@pytest.mark.parametrize(
    ("name", "counts", "rule"),
    [
        ("digits_en", {"train": 2700, "test": 300}, "source"),
        ("yoruba", {"train": 280, "dev": 70, "test": 350, "extra": 349}, "source"),
        ("english", {"train": 1051, "dev": 152, "test": 265}, "source"),
        ("an4_sample", {"train": 5, "test": 2}, "source"),
        ("thirty_languages", {"sample": 1500}, "source"),
        ("noise", {f"fold{n}": 80 for n in range(1, 6)}, "source"),
    ],
)
def test_shared_corpora(name: str, counts: dict[str, int], rule: str, corpora: Path, tmp_path: Path) -> None:
    try:
        report = import_corpus(corpora / name, tmp_path / "corpus")
    except AudioError as error:  # pragma: no cover - would name the recording
        pytest.fail(str(error))
    assert (report.layout, report.rule, report.skipped) == ("manifest", rule, ())
    found = {split: len(report.corpus.split(split)) for split in report.corpus.splits}
    if "train" in counts and "dev" not in counts:
        dev = found.pop("dev", 0)
        assert dev >= (1 if name == "an4_sample" else 200)
        found["train"] += dev
        assert any("no dev split" in note for note in report.notes)
    assert found == counts
    by_id = {u.id: u for u in read_manifest(corpora / name / "manifest.jsonl")}
    for utterance in report.corpus.utterances:
        original = by_id[utterance.id]
        words = None if original.text is None else " ".join(original.text.split())
        assert (utterance.text, utterance.speaker) == (words, original.speaker)
        assert utterance.duration == pytest.approx(original.duration, abs=0.25)
        assert utterance.labels == original.labels


def test_the_languages_of_the_sample_can_be_split_anew(corpora: Path, tmp_path: Path) -> None:
    report = import_corpus(corpora / "thirty_languages", tmp_path / "corpus", Plan(resplit=True))
    assert report.rule == "speaker"
    voices = {s: {u.speaker for u in report.corpus.split(s)} for s in ("train", "dev", "test")}
    assert not voices["train"] & voices["test"]
    assert not voices["train"] & voices["dev"]


def test_importing_needs_no_torch(tree: Tree, tmp_path: Path) -> None:
    root = tree(people(3, 2))
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from firstwords.data.corpora.importing import import_corpus\n"
        f"import_corpus(Path({str(root)!r}), Path({str(tmp_path / 'corpus')!r}))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_target_that_cannot_be_written_is_named(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CorpusError, match="cannot be written there") as caught:
        import_corpus(tree(people(3, 2)), tmp_path / "file" / "corpus")
    assert "--to" in caught.value.mend


def test_a_folder_without_right_of_entry_is_named_and_the_rest_goes_on(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree({"a.wav": 1, "a.txt": "moja", "lost+found/b.wav": 1, "lost+found/b.txt": "mbili"})
    opened = os.scandir
    shut = root / "lost+found"

    def refuse(path: str) -> object:
        if Path(path) == shut:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    is_file = Path.is_file

    def enter(path: Path) -> bool:
        if path.parent == shut and path.name == "import.json":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(Path, "is_file", enter)
    imported = LAYOUTS["folder"].read(root, Options())
    assert len(imported.utterances) == 1
    assert [(s.where, s.reason) for s in imported.skipped] == [
        ("lost+found", "this folder cannot be opened: Permission denied")
    ]
    shut = root
    with pytest.raises(CorpusError, match="cannot be opened: Permission denied"):
        detect_layout(root)


def test_a_fault_of_a_decoder_costs_one_recording(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe_most(path: Path) -> object:
        if path.name == "b.wav":
            raise IndexError("beyond the header")
        return probe(path)

    monkeypatch.setattr("firstwords.data.corpora.imported.probe", probe_most)
    root = tree({"a.wav": 1, "a.txt": "moja", "b.wav": 1, "b.txt": "mbili"})
    report = import_corpus(root, tmp_path / "corpus")
    assert len(report.corpus.utterances) == 1
    assert "IndexError: beyond the header" in report.skipped[0].reason


def test_an_archive_beside_recordings_says_unpack(tree: Tree) -> None:
    with pytest.raises(CorpusError) as caught:
        detect_layout(tree({"x.zip": "PK", "a.wav": 1}) / "x.zip")
    assert "Unpack" in caught.value.mend
