"""Formatted text beside what was recognised: transcripts, files, recogniser, command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from firstwords.audio.waveform import write
from firstwords.cli.main import app
from firstwords.data.manifest import Utterance, write_manifest
from firstwords.errors import ConfigError, FirstwordsError, UsageError
from firstwords.formatting.hotwords import Hotwords
from firstwords.formatting.number_table import load_table
from firstwords.formatting.numbers import Numbers
from firstwords.formatting.punctuation_model import (
    LoadedPunctuator,
    Punctuator,
    PunctuatorConfig,
    save_punctuator,
)
from firstwords.formatting.settings import HotwordsConfig, PostConfig
from firstwords.formatting.stage import Formatter
from firstwords.inference.formats import WRITERS, to_ctm, to_json, to_srt, to_txt
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.transcript import Segment, Transcript, Word, format_transcript
from firstwords.model.recipe import Recipe, read_recipe, write_recipe
from nonsense_model import make_nonsense_model
from tone_corpus import RATE, sing, tone_recipe


def spoken() -> Transcript:
    first = tuple(
        Word(w, 0.5 * n, 0.5 * n + 0.4, 0.5)
        for n, w in enumerate(["it", "costs", "two", "hundred", "dollars"])
    )
    second = (Word("ougadugu", 5.0, 5.6, 0.4),)
    segments = tuple(
        Segment(words[0].start, words[-1].end, " ".join(w.word for w in words), words, 0.5)
        for words in (first, second)
    )
    text = " ".join(s.text for s in segments)
    return Transcript(text, segments, "en", 6.0, "a.wav")


@pytest.fixture
def formatted() -> Transcript:
    stages = [Numbers(load_table("en")), Hotwords(["Ougadougou"])]
    return format_transcript(spoken(), Formatter(stages))


def test_what_was_recognised_stays_beside_what_is_shown(formatted: Transcript) -> None:
    assert replace(formatted, formatted=None) == spoken()
    assert formatted.formatted is not None
    assert formatted.formatted.stages == ("numbers", "hotwords")
    assert formatted.formatted.text == "it costs $200 Ougadougou"
    assert [s.text for s in formatted.shown.segments] == ["it costs $200", "Ougadougou"]
    assert [(s.start, s.end) for s in formatted.shown.segments] == [(0.0, 2.4), (5.0, 5.6)]
    assert formatted.shown.words[2] == Word("$200", 1.0, 2.4, 0.5)
    assert formatted.shown.formatted is None
    assert spoken().shown == spoken()
    assert [c.stage for c in formatted.formatted.changes] == ["numbers", "hotwords"]


def test_json_holds_both_and_reads_them_back(formatted: Transcript) -> None:
    record = json.loads(to_json(formatted))
    assert record["text"] == spoken().text
    assert record["formatted"]["text"] == "it costs $200 Ougadougou"
    assert Transcript.from_record(record) == formatted
    plain = json.loads(to_json(spoken()))
    assert "formatted" not in plain
    assert Transcript.from_record(plain) == spoken()


def test_files_for_people_show_the_formatted_text(formatted: Transcript) -> None:
    assert to_txt(formatted) == "it costs $200\nOugadougou\n"
    assert "it costs $200" in to_srt(formatted)
    assert "a 1 1.000 1.400 $200 0.5000" in to_ctm(formatted)
    for name, (_, writer) in WRITERS.items():
        assert "$200" in writer(formatted), name
        assert ("two hundred" in writer(formatted)) == (name == "json")


def test_no_words_no_text() -> None:
    nothing = Transcript("", (), "en", 1.0, "")
    found = format_transcript(nothing, Formatter([Numbers(load_table("en"))]))
    assert found.formatted is not None
    assert (found.formatted.text, found.formatted.segments, found.formatted.changes) == ("", (), ())
    assert to_txt(found) == ""


def test_a_recipe_without_stages_is_what_it_was(tmp_path: Path) -> None:
    recipe = tone_recipe()
    write_recipe(tmp_path / "recipe.toml", recipe)
    assert recipe.post is None
    assert "post" not in (tmp_path / "recipe.toml").read_text(encoding="utf-8")
    named = Recipe.model_validate(recipe.model_dump() | {"post": {"stages": ["numbers"]}})
    assert named.digest != recipe.digest
    write_recipe(tmp_path / "recipe.toml", named)
    assert read_recipe(tmp_path / "recipe.toml") == named
    with pytest.raises(ConfigError, match="Did you mean 'stages'"):
        read_recipe(tmp_path / "recipe.toml", overrides=("post.stagse=[]",))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    write(path, sing("aei ou aei", np.random.default_rng(0)), RATE)
    return path


def firstwords(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit | FirstwordsError):
        raise result.exception
    return result


def test_a_recogniser_formats_as_its_recipe_says(model: Path, clip: Path) -> None:
    recognizer = Recognizer.load(model, device="cpu")
    plain = recognizer.transcribe(clip)
    assert plain.text
    assert plain.formatted is None
    first = plain.words[0].word
    # one letter is wrong: with unsure = 1 nothing is sure enough to stay
    post = PostConfig(
        stages=("hotwords",),
        hotwords=HotwordsConfig(phrases=(first + "Z",), unsure=1, threshold=0.9, shortest=1),
    )
    named = Recognizer.load(model, device="cpu")
    named.recipe = named.recipe.with_(post=post)
    found = named.transcribe(clip)
    assert replace(found, formatted=None) == plain
    assert found.formatted is not None
    assert first + "Z" in found.formatted.text.split()
    assert recognizer.align(clip, "aei ou aei").formatted is None


def test_the_option_sets_stages_for_once(model: Path, clip: Path, tmp_path: Path) -> None:
    plain = firstwords("transcribe", model, clip).stdout.strip()
    names = tmp_path / "names.txt"
    names.write_text(plain.split()[0].upper() + "\n", encoding="utf-8")
    done = firstwords("transcribe", model, clip, "--format", "json", "--post", f"hotwords={names}")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["text"] == plain
    assert record["formatted"]["stages"] == ["hotwords"]
    off = firstwords("transcribe", model, clip, "--post", "none")
    assert off.stdout.strip() == plain


def test_a_model_of_marks_for_text_of_another_normalizer_is_told(
    model: Path, clip: Path, tmp_path: Path
) -> None:
    for name, times in (("default", 0), ("strip_diacritics", 1)):
        config = PunctuatorConfig(normalizer=name, marks=(".",), buckets=16, dim=4, hidden=4, layers=1)
        save_punctuator(tmp_path / name, LoadedPunctuator(Punctuator(config).eval(), {}))
        done = firstwords("transcribe", model, clip, "--post", f"punctuation={tmp_path / name}")
        assert done.exit_code == 0, done.output
        said = " ".join(done.stderr.split())
        assert said.count(f"text of normalizer '{name}', the recogniser writes text of 'default'") == times


@pytest.mark.parametrize(
    ("given", "kind"),
    [("spelling", UsageError), ("numbers", ConfigError), ("hotwords=none.txt", FirstwordsError)],
)
def test_stages_that_cannot_be_are_refused(
    model: Path, clip: Path, given: str, kind: type[FirstwordsError]
) -> None:
    done = firstwords("transcribe", model, clip, "--post", given)
    assert isinstance(done.exception, kind)
    assert not done.stdout


def test_streams_take_no_stages(model: Path) -> None:
    done = firstwords("transcribe", model, "--stream", "--post", "numbers")
    assert isinstance(done.exception, UsageError)


def test_evaluate_reports_both(model: Path, clip: Path, tmp_path: Path) -> None:
    plain = firstwords("transcribe", model, clip).stdout.split()
    (tmp_path / "corpus").mkdir()
    said = Utterance(id="a", text=f"{plain[0]}.", audio=clip, duration=1.0, split="test")
    write_manifest(tmp_path / "corpus" / "manifest.jsonl", [said])
    names = tmp_path / "names.txt"
    names.write_text("a phrase that is far from all\nan\n", encoding="utf-8")
    done = firstwords(
        "evaluate", model, tmp_path / "corpus", "--post", f"hotwords={names}", "--out", tmp_path / "out"
    )
    assert done.exit_code == 0, done.output
    assert "Phrases of fewer than 4 letters are not looked for: an." in " ".join(done.output.split())
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert record["formatting"]["stages"] == ["hotwords"]
    assert record["formatting"]["hotwords"]["after"] == {"hits": 0, "misses": 0, "false_alarms": 0}
    line = json.loads((tmp_path / "out" / "hypotheses.jsonl").read_text(encoding="utf-8"))
    assert line["formatted"] == line["hypothesis"]


@pytest.mark.parametrize("other", [False, True])
def test_bad_stages_of_a_recipe_are_told_before_anything_is_decoded(
    model: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    (tmp_path / "corpus").mkdir()
    said = Utterance(id="a", text="aei", audio=clip, duration=1.0, split="test")
    write_manifest(tmp_path / "corpus" / "manifest.jsonl", [said])
    bad = Path(shutil.copytree(model, tmp_path / "bad"))
    with (bad / "recipe.toml").open("a", encoding="utf-8") as recipe:
        recipe.write('\n[post]\nstages = ["hotwords"]\n[post.hotwords]\nfile = "names.txt"\n')

    def never(*_: object) -> object:
        raise AssertionError("decoded before the stages were read")

    monkeypatch.setattr(Recognizer, "transcribe_many", never)
    arguments = (model, tmp_path / "corpus", "--against", bad) if other else (bad, tmp_path / "corpus")
    done = firstwords("evaluate", *arguments, "--device", "cpu", "--out", tmp_path / "out")
    assert isinstance(done.exception, FirstwordsError)
    assert "names.txt" in done.exception.what


def test_what_text_was_made_with_names_more_than_the_stages(model: Path, tmp_path: Path) -> None:
    """Other phrases are other formatting, and the same model."""

    def recognizer(phrase: str) -> Recognizer:
        folder = tmp_path / phrase
        shutil.copytree(model, folder)
        with (folder / "recipe.toml").open("a", encoding="utf-8") as recipe:
            recipe.write(f'\n[post]\nstages = ["hotwords"]\n[post.hotwords]\nphrases = ["{phrase}"]\n')
        return Recognizer.load(folder, device="cpu")

    one, other = recognizer("Accra"), recognizer("Lagos")
    assert {name for name, mark in one.identity.items() if other.identity[name] != mark} == {"formatting"}
    before = one.identity
    one.formatter = other.formatter
    assert one.identity == other.identity != before
    broken = Recognizer.load(model, device="cpu")
    broken.recipe = broken.recipe.with_(
        post=PostConfig(stages=("hotwords",), hotwords=HotwordsConfig(file="none.txt"))
    )
    broken.formatter = None  # --post none: the stages of the recipe are not needed
    assert broken.identity["formatting"] == ""
