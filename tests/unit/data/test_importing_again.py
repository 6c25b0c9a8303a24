"""A source that was imported before: what stays, what is replaced, what is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from firstwords.data.corpora import Options
from firstwords.data.corpora.importing import Plan, import_corpus
from firstwords.data.decisions import decide, record
from firstwords.data.manifest import load_corpus, write_quarantine
from firstwords.errors import CorpusError
from firstwords.report.check_files import check_and_write
from firstwords.training.run import train_corpus
from small_sources import people, record_of, state

Tree = Callable[..., Path]


def test_importing_again_replaces_the_manifest_and_puts_the_old_quarantine_aside(
    tree: Tree, tmp_path: Path
) -> None:
    root = tree(people(3, 2))
    import_corpus(root, tmp_path / "corpus")
    decided = decide(tmp_path / "corpus", {"s0-0": "clipped"})
    record(tmp_path / "corpus", tmp_path / "corpus", decided)
    tree({"s0/new.wav": 1, "s0/new.txt": "mpya"})
    report = import_corpus(root, tmp_path / "corpus")
    assert "s0-new" in {u.id for u in report.corpus.utterances}
    assert report.corpus.quarantine == {}
    assert (tmp_path / "corpus/quarantine.previous.jsonl").is_file()
    assert any("quarantine.previous.jsonl" in note for note in report.notes)


def test_what_somebody_put_aside_stays_aside(tree: Tree, tmp_path: Path) -> None:
    root, corpus = tree(people(3, 2)), tmp_path / "corpus"
    import_corpus(root, corpus)
    record(corpus, corpus, decide(corpus, {"s0-0": "clipped"}))
    lines = {"s0-0": "clipped", "s1-0": "I heard another man", "s9-9": "is no more"}
    write_quarantine(corpus, lines)
    for _ in range(2):
        report = import_corpus(root, corpus)
        assert report.corpus.quarantine == {"s1-0": "I heard another man"}
        if "s9-9" in lines:  # it is said once, and kept in quarantine.previous.jsonl
            assert any("no longer there, such as 's9-9'" in note for note in report.notes)
            del lines["s9-9"]
    found = decide(corpus, {"s0-0": "clipped"})
    assert found.quarantine == {"s0-0": "clipped", "s1-0": "I heard another man"}
    assert found.newly_allowed == ()  # nobody has deleted the line of the check


def test_importing_again_moves_nobody_out_of_the_test(tree: Tree, tmp_path: Path) -> None:
    root, corpus = tree(people(12, 3)), tmp_path / "corpus"
    first = {u.id: u.split for u in import_corpus(root, corpus).corpus.utterances}
    assert set(first.values()) == {"train", "dev", "test"}
    held_out = next(name.split("-")[0] for name, split in first.items() if split == "test")
    tree({f"new/{n}.wav": 0.5 for n in range(4)} | {f"new/{n}.txt": f"mpya {n}" for n in range(4)})
    tree({f"{held_out}/9.wav": 0.5, f"{held_out}/9.txt": "tisa"})
    report = import_corpus(root, corpus)
    second = {u.id: u.split for u in report.corpus.utterances}
    assert {name: second[name] for name in first} == first
    assert {second[f"new-{n}"] for n in range(4)} == {"train"}
    assert second[f"{held_out}-9"] == "test"  # as the rest of that voice
    assert any("split is that of the import before" in note for note in report.notes)
    for plan in (Plan(resplit=True), Plan(seed=5), Plan(test=0.3)):
        anew = import_corpus(root, tmp_path / f"{plan.seed}-{plan.test}", plan).corpus.utterances
        import_corpus(root, corpus)
        assert {u.id: u.split for u in import_corpus(root, corpus, plan).corpus.utterances} == {
            u.id: u.split for u in anew
        }


@pytest.mark.parametrize("copy", [False, True])
def test_corrected_times_stay_in_the_split_of_what_they_were(tree: Tree, tmp_path: Path, copy: bool) -> None:
    def labels(late: float) -> dict[str, str | float]:  # stretches of 2 s, every other one begins ``late``
        return {
            f"talk{n}.txt": "".join(
                f"{2 * i + late * (i % 2)}\t{2 * i + 1.9}\tneno {n} {i}\n" for i in range(20)
            )
            for n in range(talks)
        } | {f"talk{n}.wav": 40.0 for n in range(talks)}

    for talks, rule in ((1, "time"), (10, "recording")):
        corpus, plan = tmp_path / f"corpus-{talks}", Plan(copy=copy)
        root = tree(labels(0.0))
        report = import_corpus(root, corpus, plan)
        assert report.rule == rule
        before = {u.text: u for u in report.corpus.utterances}
        assert {u.split for u in before.values()} == {"train", "dev", "test"}
        tree(labels(0.1))
        after = import_corpus(root, corpus, plan).corpus.utterances
        assert sum(u.id != before[u.text].id for u in after) == len(after) // 2
        assert {u.text: u.split for u in after} == {text: u.split for text, u in before.items()}


def test_a_source_that_moved_keeps_its_split(tree: Tree, tmp_path: Path) -> None:
    root, corpus = (
        tree({f"{n}.wav": 0.5 for n in range(30)} | {f"{n}.txt": f"neno {n}" for n in range(30)}),
        (tmp_path / "corpus"),
    )
    first = {u.id: u.split for u in import_corpus(root, corpus).corpus.utterances}
    before = state(corpus)
    moved = root.rename(tmp_path / "field 2026")
    with pytest.raises(CorpusError, match="None of the 30 recordings of"):
        check_and_write(load_corpus(corpus), name="corpus")  # and not all of them put aside
    with pytest.raises(CorpusError, match="None of the 30 recordings of"):
        train_corpus(corpus, tmp_path / "run", device="cpu")
    assert state(corpus) == before
    (moved / "new.wav").write_bytes((moved / "0.wav").read_bytes())
    (moved / "new.txt").write_text("mpya")
    report = import_corpus(moved, corpus)
    second = {u.id: u.split for u in report.corpus.utterances}
    assert {name: second[name] for name in first} == first
    assert second["new"] == "train"
    assert any("has moved: 30 of 30" in note for note in report.notes)
    assert all(u.audio.is_relative_to(moved) for u in report.corpus.utterances)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.wav").write_bytes((moved / "0.wav").read_bytes())
    (tmp_path / "other/a.txt").write_text("a")
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match="which is gone, and"):  # another source is not taken for it
        import_corpus(tmp_path / "other", corpus)
    assert {u.id for u in load_corpus(corpus).utterances} == set(second)


def test_what_the_import_before_had_otherwise_is_said(tree: Tree, tmp_path: Path) -> None:
    root, corpus = tree(people(12, 3)), tmp_path / "corpus"
    first = Plan(options=Options(remove_marks=("[] xxx",), drop_empty=True), dev=0.2, channels={"s1": 0})
    for _ in range(2):
        notes = import_corpus(root, corpus, first).notes
        assert not any("import before had" in n or "not that of the import" in n for n in notes)
    notes = import_corpus(root, corpus).notes
    said = '--drop-empty --remove-marks "[] xxx" --dev 0.2 --channel s1=0'
    assert f"The import before had other options: {said}." in notes
    assert any(n.startswith("The split is not that of the import before") for n in notes)
    notes = import_corpus(root, corpus, Plan(options=Options(language="sw"))).notes
    assert not any("import before had" in n or "not that of the import" in n for n in notes)


def test_an_import_that_fails_leaves_the_old_corpus_as_it_was(tree: Tree, tmp_path: Path) -> None:
    root = tree(people(3, 2))
    import_corpus(root, tmp_path / "corpus")
    before = state(tmp_path / "corpus")
    for path in root.rglob("*.wav"):
        path.write_bytes(b"gone")
    with pytest.raises(CorpusError, match="nothing that can be imported"):
        import_corpus(root, tmp_path / "corpus")
    assert state(tmp_path / "corpus") == before


def test_an_interrupted_copy_can_be_started_again(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(people(3, 2))
    calls: list[object] = []

    def interrupted(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 3:
            raise KeyboardInterrupt
        shutil.copyfile(source, target)
        shutil.copystat(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("firstwords.data.corpora.copies.shutil.copy2", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_corpus(root, tmp_path / "corpus", Plan(copy=True))
    assert record_of(tmp_path / "corpus")["finished"] is False
    assert not (tmp_path / "corpus/manifest.jsonl").exists()
    report = import_corpus(root, tmp_path / "corpus", Plan(copy=True))
    assert len(report.corpus.utterances) == 6
    assert not list((tmp_path / "corpus").rglob("*.writing"))
