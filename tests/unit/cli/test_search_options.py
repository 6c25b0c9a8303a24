"""Language models on the command line: made, tuned, used; what does not go together is said."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import small_llm
from firstwords.cli.main import app
from firstwords.errors import FirstwordsError, SearchError, UsageError
from firstwords.inference.made import RECORD
from firstwords.inference.recognizer import Recognizer
from firstwords.model.checkpoint import save_model
from firstwords.model.recipe import with_search
from firstwords.model.speech_model import SpeechModel
from firstwords.search.interface import GreedyConfig, LanguageModelConfig
from nonsense_model import CARD, make_nonsense_model
from streaming_model import make_causal_model, talk
from tone_corpus import make_tone_corpus


def firstwords(*arguments: object, pcm: bytes = b"") -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)), input=pcm)
    if result.exception is not None and not isinstance(result.exception, SystemExit | FirstwordsError):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_corpus(tmp_path_factory.mktemp("tones") / "corpus", train=40, dev=3, test=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("lm") / "lm"
    assert firstwords("lm", "train", corpus, "--to", folder, "--unit", "char").exit_code == 0
    return folder


@pytest.fixture
def lm(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "lm")


def recordings(corpus: Path) -> list[Path]:
    return sorted((corpus / "audio").glob("test-*.wav"))


def test_made_tuned_used(model: Path, corpus: Path, lm: Path, tmp_path: Path) -> None:
    """From transcripts to better transcripts, every step by the command line."""
    untuned = firstwords("transcribe", model, recordings(corpus)[0], "--lm", lm)
    assert untuned.exit_code == 0, untuned.output
    assert "weight 0.3, bonus 0 (not tuned: 'firstwords lm tune" in untuned.stderr
    options = ("--corpus", corpus, "--by", "cer", "--device", "cpu")
    tuned = firstwords("lm", "tune", model, lm, *options)
    assert tuned.exit_code == 0, tuned.output
    lines = tuned.output.splitlines()
    assert any(line.startswith("3 utterances of dev, ") for line in lines)
    said = {
        found[1]: found
        for line in lines
        if (
            found := re.match(
                r"(greedy|ctc_beam, beam 10): weight (\S+), bonus (\S+); CER (\S+) % without the "
                r"language model, (\S+) % with it: (-?\S+) % fewer errors "
                r"\(95 % interval (\S+) to (\S+) %, bootstrap over 3 utterances\)",
                line,
            )
        )
    }
    assert set(said) == {"greedy", "ctc_beam, beam 10"}
    written = tomllib.loads((lm / "tuned.toml").read_text(encoding="utf-8"))["tuned"]
    assert [one["search"] for one in written] == ["greedy", "ctc_beam"]
    for one, name in zip(written, ("greedy", "ctc_beam, beam 10"), strict=True):
        _, weight, bonus, without, best, gain, low, high = said[name].groups()
        assert (one["weight"], one["bonus"]) == (float(weight), float(bonus))
        assert 100 * one["without"] == pytest.approx(float(without), abs=0.006)
        assert 100 * one["best"] == pytest.approx(float(best), abs=0.006)
        assert float(gain) == pytest.approx(100 * (1 - one["best"] / one["without"]), abs=0.06)
        assert float(low) <= float(gain) <= float(high)
        assert any(f"{best}*" in line for line in lines)  # in the table
    # What was tuned is found, said in a line, and measured alike by evaluate.
    out = tmp_path / "report"
    evaluated = firstwords(
        "evaluate", model, corpus, "--split", "dev", "--lm", lm, "--beam", 10, "--out", out, "--no-audio"
    )
    assert evaluated.exit_code == 0, evaluated.output
    figures = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert figures["character_error_rate"]["rate"] == pytest.approx(written[1]["best"])
    assert "ctc_beam, beam 10: weight" in figures["note"]
    assert "(tuned on dev of corpus: CER" in figures["note"]
    one = firstwords("transcribe", model, recordings(corpus)[0], "--lm", lm, "--beam", 10)
    assert "(tuned on dev of corpus: CER" in one.stderr
    assert len(one.stderr.splitlines()) == 1
    plain = firstwords("transcribe", model, recordings(corpus)[0])
    assert plain.stderr == ""
    assert plain.stdout != one.stdout
    zero = ("--lm-weight", 0, "--lm-bonus", 0)
    off = firstwords("transcribe", model, recordings(corpus)[0], "--lm", lm, *zero)
    assert off.stdout == plain.stdout
    assert "(as given)" in off.stderr


def test_word_models_and_bonuses_take_part(model: Path, corpus: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    firstwords("lm", "train", corpus, "--to", words, "--unit", "word", "--order", 2)
    audio = recordings(corpus)[1]
    plain = firstwords("transcribe", model, audio, "--beam", 4).stdout
    heavy = firstwords("transcribe", model, audio, "--beam", 4, "--lm", words, "--lm-weight", 3)
    assert heavy.exit_code == 0, heavy.output
    assert heavy.stdout != plain
    long = firstwords(
        "transcribe", model, audio, "--beam", 4, "--lm", words, "--lm-weight", 0, "--lm-bonus", 5
    )
    assert len(long.stdout) > len(heavy.stdout)


def test_phrases_are_counted(model: Path, corpus: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    phrases = tmp_path / "names.txt"
    phrases.write_text("ouo\t500\naei\t0.001\n", encoding="utf-8")
    options = ("--phrases", phrases, "--beam", 3, "--no-audio")
    result = firstwords("evaluate", model, corpus, *options)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "evaluation" / f"{model.name}-corpus-test-phrases-beam3"
    table = [line.split("\t") for line in (folder / "phrases.tsv").read_text(encoding="utf-8").splitlines()]
    assert table[0] == ["phrase", "hits", "misses", "false alarms"]
    counts = {row[0]: [int(n) for n in row[1:]] for row in table[1:]}
    assert set(counts) == {"ouo", "aei"}
    lines = (folder / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    spoken = sum(r["reference"].split().count("ouo") for r in records)
    read = sum(r["hypothesis"].split().count("ouo") for r in records)
    assert read > 0
    assert counts["ouo"][0] + counts["ouo"][1] == spoken
    assert counts["ouo"][0] + counts["ouo"][2] == read
    note = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["note"]
    alarms = sum(row[2] for row in counts.values())
    assert re.search(rf"Phrases: \d+ of \d+ spoken were heard \(.*\); {alarms} of \d+ read", note)
    against = folder / "hypotheses.jsonl"
    again = firstwords("evaluate", model, corpus, *options, "--against", against, "--out", tmp_path / "two")
    assert again.exit_code == 0, again.output
    note = json.loads((tmp_path / "two" / "evaluation.json").read_text(encoding="utf-8"))["note"]
    assert note.count("spoken were heard") == 2


def test_what_was_made_otherwise_is_kept_and_named(
    model: Path, corpus: Path, lm: Path, tmp_path: Path
) -> None:
    audio, out = recordings(corpus)[0], tmp_path / "out"

    def run(*options: object) -> str:
        result = firstwords("transcribe", model, audio, "--out", out, *options)
        assert result.exit_code == 0, result.output
        return result.stderr

    fuse = ("--lm", lm, "--lm-weight", 30, "--beam", 5)
    run()
    assert sorted(p.name for p in out.iterdir()) == sorted([RECORD, f"{audio.stem}.txt"])
    text = (out / f"{audio.stem}.txt").read_bytes()
    assert run() == "1 already transcribed, skipped (--again does them again).\n"
    said = run(*fuse)
    assert (
        f"{audio}: kept as it is, but made with another search and another language model or list of phrases."
        in said
    )
    assert (out / f"{audio.stem}.txt").read_bytes() == text
    assert "1 transcribed" in run(*fuse, "--again")
    fused = (out / f"{audio.stem}.txt").read_bytes()
    assert fused != text
    assert "kept as it is" not in run(*fuse)
    assert "made with another search." in run(*fuse[:-1], 6)
    assert "made with another search." in run("--lm", lm, "--beam", 5, "--lm-weight", 29)
    assert "another search and another language model" in run()
    firstwords("lm", "train", corpus, "--to", lm, "--unit", "char", "--order", 2)  # changed in its place
    assert "made with another language model or list of phrases." in run(*fuse)
    assert (out / f"{audio.stem}.txt").read_bytes() == fused
    run("--again")
    assert (out / f"{audio.stem}.txt").read_bytes() == text
    assert "kept as it is" not in run()


def test_a_journal_notices_other_weights(
    model: Path, lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundfile

    long = tmp_path / "talk.flac"
    soundfile.write(long, talk(100.0), 16000)
    real = Recognizer._read
    calls = 0

    class Killed(BaseException):
        pass

    def decode(self: Recognizer, stretches: Any) -> Any:
        nonlocal calls
        calls += bool(stretches)
        if stretches and calls == 2:
            raise Killed
        return real(self, stretches)

    monkeypatch.setattr(Recognizer, "_read", decode)
    options = ("transcribe", model, long, "--out", tmp_path / "out", "--lm", lm)
    with pytest.raises(Killed):
        CliRunner().invoke(app, list(map(str, options)), catch_exceptions=False)
    assert "begun anew, for what was written down of an earlier start belongs to another search." in (
        firstwords(*options, "--lm-weight", 0.7).stderr
    )


def test_a_stream_reads_with_a_language_model(corpus: Path, lm: Path, tmp_path: Path) -> None:
    causal = make_causal_model(tmp_path / "causal")
    pcm = (talk(6.0) * 32767).astype("<i2").tobytes()

    def stream(*options: object) -> Result:
        return firstwords("transcribe", causal, "--stream", *options, pcm=pcm)

    plain, fused = stream(), stream("--lm", lm, "--lm-weight", 2, "--beam", 4)
    assert plain.exit_code == fused.exit_code == 0
    assert plain.stdout != fused.stdout
    assert "Language model" in fused.stderr
    heads = {"ctc": {"kind": "ctc"}, "transducer": {"kind": "transducer", "joiner_dim": 32}}
    heads["transducer"]["predictor"] = {"kind": "stateless", "dim": 32}  # pyright: ignore[reportArgumentType]
    other = make_causal_model(tmp_path / "other", heads=heads, search={"kind": "transducer_greedy"})
    refused = firstwords("transcribe", other, "--stream", "--lm", lm, "--beam", 4, pcm=pcm)
    assert isinstance(refused.exception, UsageError)
    assert "read by the greedy search of its transducer" in str(refused.exception)
    assert "in transducer_greedy: weight 0.3" in (
        firstwords("transcribe", other, "--stream", "--lm", lm, pcm=pcm).stderr
    )


def test_another_search_than_the_recipes(model: Path, corpus: Path, tmp_path: Path) -> None:
    done = firstwords("evaluate", model, corpus, "--search", "ctc_beam", "--out", tmp_path / "report")
    assert done.exit_code == 0
    assert "Search: ctc_beam, beam 10" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    audio, out = recordings(corpus)[0], tmp_path / "out"
    assert firstwords("transcribe", model, audio, "--out", out).exit_code == 0
    again = firstwords("transcribe", model, audio, "--out", out, "--search", "ctc_beam")
    assert again.exit_code == 0
    assert "kept as it is, but made with another search" in " ".join(again.stderr.split())


def test_what_does_not_go_together_is_said(model: Path, corpus: Path, lm: Path) -> None:
    audio = recordings(corpus)[0]
    for options, said in (
        (("--lm-weight", 1), "--lm-weight belongs to --lm"),
        (("--lm-bonus", 1), "--lm-bonus belongs to --lm"),
        (("--source-lm", lm), "--source-lm belongs to --lm"),
        (("--internal-weight", 1), "--internal-weight belongs to --lm"),
        (("--lm", lm, "--internal-weight", 1), "--internal-weight does nothing in greedy"),
        (("--lm", lm, "--source-weight", 1), "--source-weight belongs to --source-lm"),
        (("--lm", lm, "--lm-bonus", "nan"), "--lm-bonus nan: no number"),
        (("--lm", model), "is no language model: lm.toml is missing"),
        (("--phrases", model / "absent.txt"), "cannot be read"),
        (("--with", model.parent / ".." / model.parent.name / model.name), "this model reads already"),
        (("--search", "magic"), "--search magic: no such search"),
        (
            ("--search", "transducer_beam"),
            "--search transducer_beam needs heads.transducer, and this model has",
        ),
    ):
        for verb, thing in (("transcribe", audio), ("evaluate", corpus)):
            result = firstwords(verb, model, thing, *options)
            assert isinstance(result.exception, FirstwordsError), options
            assert said in str(result.exception)
    for options, kind, said in (
        (("--split", "test"), SearchError, "not tuned on 'test'"),
        (("--split", "eval"), SearchError, "not tuned on 'eval'"),
        (("--split", "test", "--any-split"), SearchError, "not tuned on 'test'"),
        (("--prompt", "a"), UsageError, "--prompt belongs to --rescore"),
        (("--by", "ler"), UsageError, "no such measure"),
        (("--greedy", "--beam", 4), UsageError, "exclude each other"),
        (("--greedy", "--rescore", "llm"), UsageError, "--greedy finds one reading"),
        (("--beam", 1, "--rescore", "llm"), UsageError, "--beam 1 finds one reading"),
    ):
        result = firstwords("lm", "tune", model, lm, "--corpus", corpus, *options)
        assert isinstance(result.exception, kind)
        assert said in str(result.exception)
    assert not (lm / "tuned.toml").exists()


def test_a_source_weight_of_the_recipe_is_named(model: Path, corpus: Path, lm: Path, tmp_path: Path) -> None:
    plain, other = Recognizer.load(model, device="cpu"), tmp_path / "other"
    weights = LanguageModelConfig(source_weight=0.2)
    recipe = with_search(plain.recipe, GreedyConfig(language_model=weights))
    save_model(other, SpeechModel(recipe, len(plain.tokenizer.pieces)), plain.tokenizer, card=CARD)
    options = ("--corpus", corpus, "--greedy", "--device", "cpu")
    tuned = firstwords("lm", "tune", other, lm, *options)
    assert tuned.exit_code == 0, tuned.output
    assert "source_weight = 0.2 of the recipe is left out here" in tuned.output.splitlines()[0]
    refused = firstwords("lm", "tune", other, lm, *options[:2], "--rescore", "llm", "--device", "cpu")
    assert isinstance(refused.exception, UsageError)
    assert "source_weight = 0.2: a second pass cannot be tuned" in str(refused.exception)


def test_a_source_model_is_tuned_with_the_language_model(
    model: Path, corpus: Path, lm: Path, tmp_path: Path
) -> None:
    """What is printed is what is written down, and what transcribe uses from then on."""
    source = tmp_path / "source"
    texts = tmp_path / "transcripts.txt"
    texts.write_text("ae ei ouo\nouo a iu\ne i o u\n", encoding="utf-8")
    assert firstwords("lm", "train", texts, "--to", source, "--unit", "char", "--order", 2).exit_code == 0
    options = ("--corpus", corpus, "--by", "cer", "--greedy", "--device", "cpu", "--source-lm", source)
    tuned = firstwords("lm", "tune", model, lm, *options)
    assert tuned.exit_code == 0, tuned.output
    assert tuned.output.startswith(
        "greedy: of 504 combinations of weight, bonus, source weight about 100 are tried.\n"
    )
    found = re.search(
        r"greedy: weight (\S+), bonus (\S+), source weight (\S+); CER (\S+) % without", tuned.output
    )
    assert found
    (written,) = tomllib.loads((lm / "tuned.toml").read_text(encoding="utf-8"))["tuned"]
    named = [written[name] for name in ("weight", "bonus", "source_weight")]
    assert named == [float(value) for value in found.groups()[:3]]
    assert "internal_weight" not in written
    table = tuned.output.partition("CER in % by source weight, whatever the others; * the best\n")[2]
    values, rates = (line.split() for line in table.splitlines()[:2])
    assert rates[values.index(found[3])].endswith("*")
    assert sum(rate.endswith("*") for rate in rates) == 1
    assert min(float(rate.rstrip("*")) for rate in rates) == float(rates[values.index(found[3])].rstrip("*"))
    helps = re.search(
        rf"language model {re.escape(str(source))} taken off; CER (\S+) % at best where nothing is, "
        r"(\S+) % so: (\S+) % fewer errors \(95 % interval ",
        tuned.output,
    )
    assert bool(helps) == (written["source_weight"] > 0)
    assert ("is not taken off: that does not help here" in tuned.output) == (written["source_weight"] == 0)
    if helps:
        assert float(helps[2]) == pytest.approx(100 * written["best"], abs=0.006) < float(helps[1])
        shutil.rmtree(source)
    heard = firstwords("transcribe", model, recordings(corpus)[0], "--lm", lm)
    assert heard.exit_code == 0, heard.output
    assert heard.stderr.count("of the training texts is taken off") == bool(helps)


def test_a_second_pass_is_tuned_after_the_first(model: Path, corpus: Path, lm: Path, tmp_path: Path) -> None:
    """The weight that is printed gives the printed error rate in evaluate."""
    llm = small_llm.save(tmp_path / "llm", "llama", letters=True, positions=512)
    options = (
        "--corpus",
        corpus,
        "--by",
        "cer",
        "--beam",
        3,
        "--rescore",
        llm,
        "--device",
        "cpu",
        "--prompt",
        "a e i.",
    )
    tuned = firstwords("lm", "tune", model, lm, *options)
    assert tuned.exit_code == 0, tuned.output
    found = re.search(
        r"(--rescore-weight [^;]+); CER (\S+) % without it, (\S+) % with it \((\S+) % if the best",
        tuned.output,
    )
    assert found
    chosen_weights = found[1].split()
    without, best, oracle = map(float, found.groups()[1:])
    assert f"--rescore {llm} --prompt 'a e i.' {found[1]}" in tuned.output.replace('"', "'")
    chosen = re.search(r"beam 3: (weight \S+, bonus \S+); CER", tuned.output)
    assert chosen
    assert f"Language model {lm} in ctc_beam, beam 3: {chosen[1]} (tuned on dev of corpus: " in tuned.output
    assert oracle <= best <= without
    out = tmp_path / "report"
    how = ("--lm", lm, "--beam", 3, "--rescore", llm, *chosen_weights, "--prompt", "a e i.")
    how = (*how, "--device", "cpu")
    again = firstwords("evaluate", model, corpus, "--split", "dev", *how, "--out", out, "--no-audio")
    assert again.exit_code == 0, again.output
    figures = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert 100 * figures["character_error_rate"]["rate"] == pytest.approx(best, abs=0.006)
