"""A folder that is something else is named for what it is, and nothing is written into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstwords.data.manifest import load_corpus
from firstwords.errors import CheckpointError, FirstwordsError, UsageError, quoted
from firstwords.folders import LANGUAGE_MODEL, MODEL, PUNCTUATION, kind_of_folder, refuse_occupied
from firstwords.lm.language_model import kind_of, refuse_others
from firstwords.model.checkpoint import require_files


def marked(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


def test_each_kind_is_known_by_its_mark(tmp_path: Path) -> None:
    assert kind_of_folder(tmp_path / "nowhere") is None
    assert kind_of_folder(marked(tmp_path / "texts", "a.txt")) is None
    assert kind_of_folder(marked(tmp_path / "bundle", "bundle.json", "tokens.txt")) == "an exported bundle"
    # a network's weights have the name of a recogniser's
    assert kind_of_folder(marked(tmp_path / "lm", "model.safetensors", "lm.toml")) == "a language model"


def test_a_folder_of_another_kind_is_called_what_it_is(tmp_path: Path) -> None:
    bundle = marked(tmp_path / "bundle", "bundle.json")
    network = marked(tmp_path / "lm", "lm.toml", "model.safetensors", "recipe.toml")
    corpus = marked(tmp_path / "corpus", "manifest.jsonl")
    for wanted, folder, said in (
        (require_files, bundle, "is an exported bundle, not the folder of a recogniser"),
        (require_files, network, "is a language model, not the folder of a recogniser"),
        (require_files, corpus, "is a corpus, not the folder of a recogniser"),
        (load_corpus, bundle, "is an exported bundle, not a corpus"),
        (kind_of, corpus, "is a corpus, not a language model"),
        (kind_of, corpus / "manifest.jsonl", "is a file; a language model is a folder"),
    ):
        with pytest.raises(FirstwordsError, match=said) as refusal:
            wanted(folder)
        assert refusal.value.mend


def test_a_recogniser_is_one_whatever_lies_beside(tmp_path: Path) -> None:
    model = marked(tmp_path / "model", "model.safetensors", "lm.toml", "manifest.jsonl")
    assert kind_of_folder(model) != MODEL
    (model / "recipe.toml").write_text('[encoder]\nkind = "zipformer"\n', encoding="utf-8")
    assert kind_of_folder(model) == MODEL
    (model / "recipe.toml").write_text("[encoder", encoding="utf-8")  # torn: the marks tell
    assert kind_of_folder(model) != MODEL


def test_results_go_into_folders_of_their_own(tmp_path: Path) -> None:
    refuse_occupied(tmp_path / "nowhere", (), kind=MODEL)
    refuse_occupied(marked(tmp_path / "empty", ".DS_Store"), (), kind=MODEL)
    mine = marked(tmp_path / "mine", "card.md", "words.txt")
    with pytest.raises(UsageError, match=r"something else is there already \(found: card.md, words.txt\)"):
        refuse_occupied(mine, ("lm.toml",), kind=LANGUAGE_MODEL)
    with pytest.raises(UsageError, match=r"found: card.md"):
        refuse_others(mine)
    (mine / "lm.toml").write_text('format = 1\nkind = "ngram"', encoding="utf-8")
    refuse_occupied(mine, ("lm.toml",), kind=LANGUAGE_MODEL)
    refuse_others(mine)
    with pytest.raises(UsageError, match="this is a file"):
        refuse_occupied(mine / "card.md", ("lm.toml",), kind=LANGUAGE_MODEL)


def test_a_folder_is_found_behind_two_dots(tmp_path: Path) -> None:
    """The folder before them need not exist: writing would make it, and then replace what is there."""
    mine = marked(tmp_path / "mine", "card.md")
    with pytest.raises(
        UsageError, match=r"new.\.\..mine: something else is there already \(found: card.md\)"
    ):
        refuse_occupied(tmp_path / "new" / ".." / mine.name, (), kind=MODEL)
    with pytest.raises(UsageError, match="this is a file"):
        refuse_occupied(tmp_path / "new" / ".." / "mine" / "card.md", (), kind=MODEL)


def test_a_state_of_training_is_no_interrupted_copy(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "resume").mkdir(parents=True)
    step = marked(run / "resume" / "step-00000100", "state.json", "state.safetensors")
    with pytest.raises(CheckpointError, match="what a training goes on from, not a model") as refused:
        require_files(step)
    assert refused.value.mend.startswith(f"Give the folder of its run, {quoted(run)}:")


def test_logs_and_what_a_kill_left_are_in_nobodys_way(tmp_path: Path) -> None:
    killed = marked(tmp_path / "lm", "train.log", "slurm-7.out", "desktop.ini")
    (killed / "staged.writing").mkdir()  # of files.staged
    refuse_occupied(killed, ("lm.toml",), kind=LANGUAGE_MODEL)
    refuse_others(killed)
    (killed / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=r"found: notes.txt\)"):
        refuse_occupied(killed, ("lm.toml",), kind=LANGUAGE_MODEL)


def test_what_another_command_began_is_not_gone_on_with(tmp_path: Path) -> None:
    marks = marked(tmp_path / "marks", "punctuation.toml")
    (marks / "resume").mkdir()
    refuse_occupied(marks, ("punctuation.toml", "resume"), kind=PUNCTUATION)
    with pytest.raises(UsageError, match="a model of marks and capitals is there already"):
        refuse_occupied(marks, ("resume",), kind=MODEL)


def test_a_recipe_that_nests_without_end_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "recipe.toml").write_text("x = " + "[" * 50_000)
    assert kind_of_folder(tmp_path) == MODEL  # by its weights; who reads the recipe says what is wrong
