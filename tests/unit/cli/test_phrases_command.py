"""``firstwords phrases``, and what its file does in ``transcribe`` and ``evaluate``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from firstwords.cli.main import app
from firstwords.data.manifest import load_corpus, write_manifest
from firstwords.errors import CheckpointError, CorpusError, FirstwordsError, SearchError, UsageError
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.spotting import calibrate_phrases
from firstwords.inference.together import convene
from firstwords.model.checkpoint import save_model
from firstwords.model.speech_model import SpeechModel
from firstwords.search.fusion import Scorers
from firstwords.search.spotted import open_spotter, read_spotted, write_spotted
from firstwords.text.normalize import normalizer
from nonsense_model import CARD, make_nonsense_model
from tone_bundle import make_tone_bundle
from tone_corpus import make_tone_corpus, tone_recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a corpus, a list of phrases and what was measured of it."""
    home = tmp_path_factory.mktemp("home")
    for seed in (3, 4):
        make_nonsense_model(home / f"m{seed}", seed=seed)
    make_tone_corpus(home / "corpus", train=40, dev=25, test=3)
    words = sorted({w for u in load_corpus(home / "corpus").split("dev") for w in (u.text or "").split()})
    listed = [word for word in words if len(word) > 1][:4]
    (home / "names.txt").write_text("\n".join([*listed, "oo ee", "uoiea\t3"]), encoding="utf-8")
    run(
        "phrases",
        home / "m3",
        home / "names.txt",
        "--corpus",
        home / "corpus",
        "--to",
        home / "names.spotted",
    )
    return home


def run(*arguments: object) -> str:
    """The output; a FirstwordsError is raised as it is."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(done.exception, FirstwordsError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_file_holds_numbers_of_every_phrase(home: Path) -> None:
    spotted = read_spotted(home / "names.spotted")
    assert [one.text for one in spotted.phrases][-2:] == ["oo ee", "uoiea"]
    assert len(spotted.phrases) == 6
    assert not {one.text for one in spotted.decoys} & {one.text for one in spotted.phrases}
    assert all(one.mean < 0 < one.deviation for one in (*spotted.phrases, *spotted.decoys))
    assert (spotted.corpus, spotted.split) == ("corpus", "dev")


def test_numbers_are_those_of_utterances_in_which_a_phrase_is_not_said(home: Path) -> None:
    recognizer = Recognizer.load(home / "m3", device="cpu")
    spotted = read_spotted(home / "names.spotted")
    spotter = open_spotter(home / "names.spotted", recognizer.tokenizer, recognizer.weights)
    word = spotted.phrases[0].text
    train = list(load_corpus(home / "corpus").split("train"))
    scores = [
        float(spotter.table.scan(recognizer.log_probs(u.audio, start=u.start, duration=u.duration)).scores[0])
        for u in train
        if word not in (u.text or "").split()
    ]
    assert len(scores) < len(train) or word not in {w for u in train for w in (u.text or "").split()}
    mean = sum(scores) / len(scores)
    assert spotted.phrases[0].mean == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize("allowed", [0.0, 0.02, 0.2])
def test_the_threshold_keeps_to_the_false_alarms(home: Path, allowed: float) -> None:
    """Counted again on dev with what was written: as many hits and false alarms as it says, not one more."""
    recognizer = Recognizer.load(home / "m3", device="cpu")
    corpus = load_corpus(home / "corpus")
    phrases = [one.text for one in read_spotted(home / "names.spotted").phrases]
    made = calibrate_phrases(recognizer, phrases, corpus, false_alarms=allowed)
    write_spotted(home / "again.spotted", made.file)
    spotter = open_spotter(home / "again.spotted", recognizer.tokenizer, recognizer.weights)
    normal, hits, wrong = normalizer(recognizer.recipe.text.normalizer), 0, 0
    for u in corpus.split("dev"):
        text = f" {normal(u.text or '')} "
        for spot in spotter.spots(recognizer.log_probs(u.audio, start=u.start, duration=u.duration)):
            said = f" {phrases[spot.phrase]} " in text
            hits, wrong = hits + said, wrong + (not said)
    assert (hits, wrong) == (made.hits, made.false_alarms)
    assert wrong <= allowed * made.words


def test_what_is_spotted_is_read(home: Path, tmp_path: Path) -> None:
    """With a threshold that all pass every utterance says some of the phrases, greedily and in a beam."""
    low = read_spotted(home / "names.spotted").with_(threshold=-5.0)
    write_spotted(tmp_path / "low", low)
    listed = {one.text for one in low.phrases}
    clips = [u.audio for u in load_corpus(home / "corpus").split("test")]
    plain = run("transcribe", home / "m3", *clips)
    for beam in ((), ("--beam", "4")):
        heard = run("transcribe", home / "m3", *clips, "--phrases", tmp_path / "low", *beam)
        assert "6 phrases are looked for in the frames" in heard
        lines = [line.split("\t")[1] for line in heard.splitlines() if "\t" in line]
        assert len(lines) == 3
        assert all(any(f" {phrase} " in f" {line} " for phrase in listed) for line in lines)
        assert heard != plain


def test_an_evaluation_counts_them(home: Path, tmp_path: Path) -> None:
    options = ("--phrases", home / "names.spotted", "--out", tmp_path / "r", "--split", "dev", "--no-audio")
    said = " ".join(run("evaluate", home / "m3", home / "corpus", *options).split())
    assert "phrases are looked for in the frames" in said
    assert re.search(r"spoken were heard", said)
    table = (tmp_path / "r" / "phrases.tsv").read_text(encoding="utf-8")
    assert "\nuoiea\t" in table


def test_foreign_and_broken_files(home: Path, tmp_path: Path) -> None:
    clip = next(iter(load_corpus(home / "corpus").split("test"))).audio
    with pytest.raises(SearchError, match="another model"):
        run("transcribe", home / "m4", clip, "--phrases", home / "names.spotted")
    text = (home / "names.spotted").read_text(encoding="utf-8")
    for broken in (
        text.replace("deviation = ", "deviation = -", 1),
        text.replace("threshold", "thresh"),
        text[:150],
    ):
        (tmp_path / "broken").write_text(broken, encoding="utf-8")
        with pytest.raises(CheckpointError, match="broken"):
            run("transcribe", home / "m3", clip, "--phrases", tmp_path / "broken")
    make_tone_bundle(tmp_path / "bundle")
    with pytest.raises(SearchError, match="no list of phrases"):
        run("transcribe", tmp_path / "bundle", clip, "--phrases", home / "names.spotted")
    with pytest.raises(SearchError, match="no list of phrases"):
        run(
            "phrases",
            home / "m3",
            home / "names.spotted",
            "--corpus",
            home / "corpus",
            "--to",
            tmp_path / "x",
        )
    assert not (tmp_path / "x").exists()


def test_where_phrases_cannot_be_spotted(home: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="not tuned on 'test'"):
        run("phrases", home / "m3", home / "names.txt", "--corpus", home / "corpus", "--to", tmp_path / "x",
            "--split", "test")  # fmt: skip
    few = load_corpus(home / "corpus")
    (tmp_path / "few").mkdir()
    write_manifest(tmp_path / "few" / "manifest.jsonl", list(few.utterances)[:5])
    with pytest.raises(CorpusError, match="5 usable utterances with text in 'train'"):
        run("phrases", home / "m3", home / "names.txt", "--corpus", tmp_path / "few", "--to", tmp_path / "x")
    recognizer = Recognizer.load(home / "m3", device="cpu")
    spotter = open_spotter(home / "names.spotted", recognizer.tokenizer, recognizer.weights)
    recognizer.use(recognizer.search_config, Scorers(spotter=spotter))
    with pytest.raises(UsageError, match="numbers of one model"):
        convene(recognizer, [home / "m4"])
    head = {"kind": "transducer", "predictor": {"kind": "stateless", "dim": 32}, "joiner_dim": 32}
    recipe = tone_recipe()
    values = recipe.model_dump() | {"heads": {"transducer": head}, "search": {"kind": "transducer_greedy"}}
    torch.manual_seed(0)
    model = SpeechModel(type(recipe).model_validate(values), len(recognizer.tokenizer.pieces))
    save_model(tmp_path / "joint", model, recognizer.tokenizer, card=CARD)
    with pytest.raises(UsageError, match="no CTC head"):
        run(
            "phrases",
            tmp_path / "joint",
            home / "names.txt",
            "--corpus",
            home / "corpus",
            "--to",
            tmp_path / "x",
        )
    assert not (tmp_path / "x").exists()
