"""Stages of formatting go along with a bundle, where they need no torch."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_graphs import facts_of

from firstwords.errors import CheckpointError, FirstwordsError
from firstwords.export.bundle import TABLE
from firstwords.export.make import Made, make_bundle
from firstwords.export.runtime import Runtime
from firstwords.formatting import number_table
from firstwords.formatting.stage import Word
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import save_model
from streaming_model import talk
from tone_bundle import read_facts, write_facts

RATE = 16000
TALK = talk(6.0, seed=1)
POST = """
[post]
stages = ["hotwords", "punctuation", "numbers"]
[post.numbers]
table = "mine.toml"
[post.punctuation]
model = "marks"
[post.hotwords]
phrases = ["{first}"]
file = "names.txt"
unsure = 1.0
"""


@pytest.fixture(scope="module")
def folder(bundles: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose stages read a table and a list of phrases of their own."""
    loaded, folder = bundles["ctc"].loaded, tmp_path_factory.mktemp("stages") / "model"
    heard = max(Runtime.load(bundles["ctc"].folder).transcribe(TALK, RATE).text.split(), key=len)
    assert len(heard) >= 4  # else there is no phrase to be misheard
    save_model(folder, loaded.model, loaded.tokenizer, card="")
    phrase = ("u" if heard[0] != "u" else "o") + heard[1:]
    with (folder / "recipe.toml").open("a", encoding="utf-8") as file:
        file.write(POST.replace("{first}", phrase))
    (folder / "names.txt").write_text("Abeokuta\n", encoding="utf-8")
    english = (Path(number_table.__file__).with_name("languages") / "en.toml").read_text(encoding="utf-8")
    assert '"three"' in english or "three =" in english
    (folder / "mine.toml").write_text(english.replace("three", "drie"), encoding="utf-8")
    return folder


@pytest.fixture
def made(folder: Path, tmp_path: Path) -> Made:
    return make_bundle(folder, tmp_path / "bundle", kind="ctc")


def test_a_bundle_formats_as_its_model_does(folder: Path, made: Made) -> None:
    facts = facts_of(made)["post"]
    assert facts["stages"] == ["hotwords", "numbers"]
    assert facts["hotwords"]["phrases"][1:] == ["Abeokuta"]
    runtime = Runtime.load(made.folder)
    formatted = runtime.transcribe(TALK, RATE).formatted
    assert formatted is not None
    assert formatted.stages == ("hotwords", "numbers")
    assert facts["hotwords"]["phrases"][0] in formatted.text
    text = (folder / "recipe.toml").read_text(encoding="utf-8").replace('"punctuation", ', "")
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    wanted = Recognizer.load(folder, device="cpu").transcribe_samples(TALK, RATE).formatted
    assert wanted is not None
    assert (formatted.text, formatted.changes) == (wanted.text, wanted.changes)
    assert formatted.changes
    assert runtime.formatter is not None
    said = [Word(word, float(n), n + 0.5, 0.5) for n, word in enumerate(["drie", "hundred", "people"])]
    (segment,), _ = runtime.formatter.format([said])
    assert [word.word for word in segment] == ["300", "people"]
    before = runtime.identity
    runtime.formatter = None
    assert runtime.transcribe(TALK, RATE).formatted is None
    assert {name for name, mark in before.items() if runtime.identity[name] != mark} == {"formatting"}


def test_its_files_are_looked_at(made: Made) -> None:
    table = made.folder / TABLE
    content = table.read_bytes()
    table.write_bytes(content.replace(b"300", b"301") + b"#")
    with pytest.raises(CheckpointError, match=TABLE):
        Runtime.load(made.folder)
    table.unlink()
    with pytest.raises(CheckpointError, match=TABLE):
        Runtime.load(made.folder)


def test_another_bundle_leaves_no_table_behind(bundles: dict[str, Made], made: Made, model: Path) -> None:
    make_bundle(model, made.folder, kind="ctc")
    assert not (made.folder / TABLE).exists()
    assert Runtime.load(made.folder).formatter is None


@pytest.mark.parametrize(
    "post",
    [
        {"stages": ["punctuation"], "punctuation": {"model": "/etc"}},
        {"stages": ["hotwords"], "hotwords": {"file": "/etc/passwd"}},
        {"stages": ["numbers"], "numbers": {"table": "../../mine.toml"}},
        {"stages": ["songs"]},
    ],
)
def test_stages_that_no_bundle_has_are_refused(made: Made, post: dict[str, object]) -> None:
    facts = read_facts(made.folder)
    facts["post"] = post
    write_facts(made.folder, facts)
    with pytest.raises(CheckpointError, match="post"):
        Runtime.load(made.folder)


def test_what_cannot_be_read_is_said_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    names = folder / "names.txt"
    names.rename(tmp_path / "names.txt")
    try:
        with pytest.raises(FirstwordsError, match="names"):
            make_bundle(folder, tmp_path / "bundle", kind="ctc")
    finally:
        (tmp_path / "names.txt").rename(names)
    assert not (tmp_path / "bundle").exists()
