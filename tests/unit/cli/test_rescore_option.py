"""``--rescore``: readings chosen by a language model, in files, in long recordings, in evaluations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from firstwords.cli.main import app
from firstwords.cli.second_pass import SecondPassOptions
from firstwords.errors import UsageError
from firstwords.inference.recognizer import Recognizer
from firstwords.inference.rescored import add_second_pass, read_prompt
from firstwords.inference.second_pass import SecondPass, SecondPassConfig, n_best_search
from firstwords.lm.llm_context import ContextConfig
from firstwords.model.checkpoint import save_model
from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.interface import (
    AttentionBeamConfig,
    CtcBeamConfig,
    GreedyConfig,
    RescoringConfig,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
)
from firstwords.search.rescore import RescoreConfig
from firstwords.search.search import FrameWise
from firstwords.search.speech_gate import SpeechGate
from nonsense_model import CARD, make_nonsense_model
from small_llm import save
from tone_corpus import RATE, make_tone_corpus, random_text, sing


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("llm"), "llama", letters=True, positions=512)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some words in every four seconds of two minutes."""
    path = tmp_path_factory.mktemp("talks") / "talk.flac"
    generator = np.random.default_rng(1)
    samples = 1e-3 * generator.standard_normal(120 * RATE)
    for at in range(0, 120, 4):
        words = sing(random_text(generator, 3), generator)[: 3 * RATE]
        samples[at * RATE : at * RATE + len(words)] += words
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture(scope="module")
def clip(talk: Path) -> Path:
    samples, rate = soundfile.read(talk, stop=4 * RATE)
    path = talk.with_name("clip.flac")
    soundfile.write(path, samples, rate)
    return path


def firstwords(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=True)


def test_weight_zero_is_the_beam_search_and_a_large_weight_is_the_language_model(
    model: Path, llm: Path, clip: Path
) -> None:
    plain = Recognizer.load(model, device="cpu")
    samples, _ = soundfile.read(clip, dtype="float32")
    beam = Recognizer.load(model, device="cpu")
    nothing = SecondPassConfig(rescore=RescoreConfig(weight=0.0))
    add_second_pass(beam, llm, config=nothing, device="cpu")
    assert isinstance(beam.reader.search, FrameWise)
    assert isinstance(beam.reader.search.search, CtcBeamSearch)
    plain.reader = beam.reader
    first = plain.transcribe_samples(samples, RATE)
    assert beam.transcribe_samples(samples, RATE) == first
    ruled = Recognizer.load(model, device="cpu")
    everything = SecondPassConfig(rescore=RescoreConfig(weight=1e6), context=ContextConfig(tokens=0))
    made = add_second_pass(ruled, llm, config=everything, device="cpu")
    (readings,) = ruled._read([samples])
    texts = [ruled.tokenizer.decode(r.tokens) for r in readings]
    assert len(set(texts)) > 1
    scores = [s.log_prob for s in made.scorer.score([" ".join(t.split()) for t in texts])]
    best = texts[max(range(len(texts)), key=lambda i: scores[i])]
    assert ruled.transcribe_samples(samples, RATE).text == " ".join(best.split()) != first.text


def test_a_killed_transcription_goes_on_with_its_context(
    model: Path, llm: Path, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--rescore", llm, "--rescore-weight", 3, "--device", "cpu")
    whole = firstwords("transcribe", model, talk, "--out", tmp_path / "whole", *options)
    assert whole.exit_code == 0, whole.output
    prompts: list[str] = []
    real, order = Recognizer._read, SecondPass._ordered
    calls = 0

    class Killed(BaseException):
        pass

    def decode(self: Recognizer, stretches: Any) -> Any:
        nonlocal calls
        calls += bool(stretches)
        if stretches and calls == 2:
            raise Killed
        return real(self, stretches)

    def watched(self: SecondPass, readings: Any, prompt: str) -> Any:
        prompts.append(prompt)
        return order(self, readings, prompt)

    monkeypatch.setattr(SecondPass, "_ordered", watched)
    monkeypatch.setattr(Recognizer, "_read", decode)
    with pytest.raises(Killed):
        firstwords("transcribe", model, talk, "--out", tmp_path / "out", *options)
    # With another weight nothing of it may be gone on from.
    other = firstwords("transcribe", model, talk, "--out", tmp_path / "out", *options[:2], "--device", "cpu")
    assert "begun anew, for what was written down of an earlier start belongs to another second pass" in (
        other.output
    )
    assert other.exit_code == 0, other.output
    (tmp_path / "out" / "talk.txt").unlink()
    calls = 0
    with pytest.raises(Killed):
        firstwords("transcribe", model, talk, "--out", tmp_path / "out", *options)
    prompts.clear()
    again = firstwords("transcribe", model, talk, "--out", tmp_path / "out", *options)
    assert "going on at" in again.output
    assert (tmp_path / "out" / "talk.txt").read_text() == (tmp_path / "whole" / "talk.txt").read_text()
    monkeypatch.undo()


def test_it_is_said_who_chooses_among_what(model: Path, llm: Path, clip: Path) -> None:
    def said(*options: object) -> str:
        result = firstwords("transcribe", model, clip, "--device", "cpu", *options)
        assert result.exit_code == 0, result.output
        return " ".join(result.stderr.split())

    told = f"Language model {llm} chooses among the readings of ctc_beam, beam"
    assert f"{told} 10: weight 0.3, bonus 0, length 0 (not measured:" in said("--rescore", llm)
    options = ("--search", "greedy", "--beam", 3, "--rescore-weight", 2, "--rescore-bonus", 1)
    assert f"{told} 3: weight 2, bonus 1, length 0 (as given)." in said("--rescore", llm, *options)
    assert "chooses" not in said()


def test_it_is_said_that_a_tokenizer_lacks_the_language(model: Path, clip: Path, tmp_path: Path) -> None:
    english = save(tmp_path / "llm", "llama")
    result = firstwords("transcribe", model, clip, "--device", "cpu", "--rescore", english)
    assert result.exit_code == 0, result.output
    loaded = (
        f"Is language model {english} of this recogniser's language? Its tokenizer cannot write 5 of the 5"
    )
    assert loaded in " ".join(result.stderr.split())
    said = re.search(r"(\d+) % of what the language model was shown is unknown", result.stderr)
    assert said is not None
    assert 50 <= int(said[1]) < 100  # every word, but not the line's end behind each reading


def test_it_is_said_that_the_closed_vocabulary_goes_off(
    model: Path, llm: Path, clip: Path, tmp_path: Path
) -> None:
    plain = Recognizer.load(model, device="cpu")
    closed = tmp_path / "closed"
    save_model(
        closed, plain.model, plain.tokenizer, card=CARD, speech_gate=SpeechGate(0.0, frozenset({"aeiou"}))
    )
    off = "The closed vocabulary of this model (1 words) is off"
    for folder, wanted in ((closed, 1), (model, 0)):
        result = firstwords("transcribe", folder, clip, "--rescore", llm, "--device", "cpu")
        assert result.exit_code == 0, result.output
        assert result.output.count(off) == wanted
    result = firstwords("transcribe", closed, clip, "--rescore", llm, "--beam", 3, "--device", "cpu")
    assert result.output.count(off) == 1
    assert off not in firstwords("transcribe", closed, clip, "--device", "cpu").output


def test_the_prompt_stays_where_what_was_carried_does_not_fit(
    model: Path, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights are sure of nothing; a second pass that is told everything carries all the same."""
    short = save(tmp_path / "short", "llama", letters=True, positions=64)
    prompts: list[str] = []
    order = SecondPass._ordered

    def watched(self: SecondPass, readings: Any, prompt: str) -> Any:
        prompts.append(prompt)
        return order(self, readings, prompt)

    monkeypatch.setattr(SecondPass, "_ordered", watched)
    carried = "What was said before does not all fit into the language model: up to "
    for prompt, cut in (("aei", False), ("a " * 40, True)):
        recognizer = Recognizer.load(model, device="cpu")
        sure = SecondPassConfig(context=ContextConfig(confidence=0.0))
        prompts.clear()
        add_second_pass(recognizer, short, prompt=prompt, config=sure, device="cpu")
        recognizer.transcribe(talk)
        assert len(prompts) > 5
        assert all(one.startswith(prompt.strip()) for one in prompts)
        said: list[str] = []
        SecondPassOptions(llm=str(short), prompt=prompt).tell(recognizer, said.append)
        said = [line for line in said if "fit into the language model" in line]
        assert [line.startswith("The prompt does not fit") for line in said] == [True] * cut + [False]
        assert said[-1].startswith(carried)


def test_an_evaluation_says_that_a_language_model_chose(
    model: Path, llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = make_tone_corpus(tmp_path / "corpus", train=1, dev=1, test=2)
    options = ("--rescore", llm, "--prompt", "a " * 600, "--device", "cpu", "--no-audio")
    result = firstwords("evaluate", model, corpus, *options)
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "evaluation").iterdir()
    assert folder.name.endswith("-test-rescored")
    page = next(folder.glob("*.html")).read_text(encoding="utf-8")
    assert f"Readings were chosen by the language model {llm} after a domain prompt." in page
    assert "Quality without reference: 2 of 2 utterances with text have an error" in page
    assert "The prompt does not fit into the language model: its first " in result.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (GreedyConfig(), CtcBeamConfig()),
        (CtcBeamConfig(beam=7), CtcBeamConfig(beam=7)),
        (TransducerGreedyConfig(), TransducerBeamConfig(length_normalized=False)),
        (TransducerBeamConfig(beam=6), TransducerBeamConfig(beam=6, length_normalized=False)),
        (RescoringConfig(), RescoringConfig()),
        (CtcBeamConfig(beam=7, n_best=1), CtcBeamConfig(beam=7, n_best=7)),
        (CtcBeamConfig(beam=1, n_best=1, blank_penalty=1.0), CtcBeamConfig(blank_penalty=1.0)),
        (RescoringConfig(beam=5, n_best=1), RescoringConfig(beam=5, n_best=5)),
        (AttentionBeamConfig(beam=1), AttentionBeamConfig()),
        (TransducerBeamConfig(n_best=1), TransducerBeamConfig(length_normalized=False)),
    ],
    ids=lambda config: config.kind,
)
def test_every_search_gives_several_readings(config: SearchConfig, wanted: SearchConfig) -> None:
    assert n_best_search(config) == wanted


def test_bad_options_are_named(model: Path, llm: Path, clip: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (("--prompt", "town"), "--prompt belongs to --rescore"),
        (("--rescore-weight", 1), "--rescore-weight belongs to --rescore"),
        (("--stream", "--rescore", llm), "cannot be used with --stream"),
    ):
        inputs = () if "--stream" in arguments else (clip,)
        result = firstwords("transcribe", model, *inputs, *arguments)
        assert isinstance(result.exception, UsageError)
        assert said in str(result.exception)
    narrow = firstwords("transcribe", model, clip, "--rescore", llm, "--beam", 1)
    assert isinstance(narrow.exception, UsageError)
    assert "A beam of 1 finds one reading" in str(narrow.exception)
    for options in (("--rescore", llm), ("--rescore", llm, "--beam", 1)):
        greedy = firstwords("transcribe", model, clip, *options, "--search", "greedy")
        assert isinstance(greedy.exception, UsageError)
        assert "finds one reading" in str(greedy.exception)
    for empty in ("", " \n"):
        (tmp_path / "empty.txt").write_text(empty, encoding="utf-8")
        for prompt in (empty, tmp_path / "empty.txt"):
            result = firstwords("transcribe", model, clip, "--rescore", llm, "--prompt", prompt)
            assert isinstance(result.exception, UsageError)
            assert "--prompt: there is no text in it" in str(result.exception)
    absent = firstwords("transcribe", model, clip, "--rescore", tmp_path / "absent")
    assert "does not exist; nothing was downloaded" in str(absent.exception)
    recogniser = firstwords("transcribe", model, clip, "--rescore", model)
    assert re.search("is a speech recogniser, no language model", str(recogniser.exception))


def test_a_prompt_is_a_text_or_a_file(tmp_path: Path) -> None:
    assert read_prompt("A talk.") == "A talk."
    assert read_prompt("word " * 500) == "word " * 500
    assert read_prompt("a\0b") == "a\0b"
    for mistyped in ("no-such-prompt.txt", "texts/prompt", "my texts/my prompt.txt", str(tmp_path)):
        with pytest.raises(UsageError, match="there is no file"):
            read_prompt(mistyped)
    assert read_prompt("") == ""
    file = tmp_path / "prompt.txt"
    file.write_bytes("\ufeffሰላም\n".encode())
    assert read_prompt(str(file)) == "ሰላም\n"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="no UTF-8"):
        read_prompt(str(file))
    with file.open("wb") as empty:
        empty.truncate((1 << 20) + 1)
    with pytest.raises(UsageError, match="longer than a megabyte"):
        read_prompt(str(file))
