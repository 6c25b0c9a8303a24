"""``firstwords transcribe`` and ``info`` of a bundle, as a user meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from firstwords.audio.waveform import write
from firstwords.cli.main import app
from firstwords.errors import CheckpointError, FirstwordsError, SearchError, UsageError
from firstwords.inference.made import RECORD
from firstwords.lm.ngram_arpa import write_arpa
from small_ngrams import train
from tone_bundle import make_tone_bundle, read_facts, write_facts
from tone_corpus import RATE, sing


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles and two recordings."""
    home = tmp_path_factory.mktemp("home")
    make_tone_bundle(home / "offline")
    make_tone_bundle(home / "streaming", "transducer", streaming=True)
    generator = np.random.default_rng(0)
    write(home / "talks" / "one.wav", sing("aei", generator), RATE)
    write(home / "talks" / "two.flac", sing("uoa", generator, 44100), 44100)
    write_arpa(home / "lm.arpa", train(["aeiuoa", "aei"], "char").model)
    return home


def firstwords(*arguments: object, stdin: bytes | None = None) -> Result:
    """Run the command; an error of ours comes back as the result's exception."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit | FirstwordsError):
        raise result.exception
    return result


@pytest.mark.parametrize("bundle", ["offline", "streaming"])
def test_recordings(bundle: str, home: Path) -> None:
    lines = firstwords("transcribe", home / bundle, home / "talks").stdout.splitlines()
    assert [line.split("\t")[1] for line in lines] == ["aei", "uoa"]


def test_int8_asks_for_the_graphs_in_eight_bits(home: Path, tmp_path: Path) -> None:
    talk = home / "talks" / "one.wav"
    missing = firstwords("transcribe", home / "offline", talk, "--int8")
    assert isinstance(missing.exception, CheckpointError)
    assert "no variant 'int8'" in missing.exception.what
    for precision in ("fp32", "bf16"):
        both = firstwords("transcribe", home / "offline", talk, "--int8", "--precision", precision)
        assert isinstance(both.exception, UsageError)
        assert f"--int8 and --precision {precision}" in both.exception.what
    folder = make_tone_bundle(tmp_path / "b")
    facts = read_facts(folder)
    facts["variants"]["int8"] = facts["variants"]["fp32"]
    write_facts(folder, facts)
    assert firstwords("transcribe", folder, talk, "--int8").stdout.strip() == "aei"


def test_the_channel_that_is_asked_for_is_heard(home: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    left, right = sing("aei", generator), sing("uoa", generator)
    frames = max(len(left), len(right))
    call = tmp_path / "call.wav"
    write(call, np.stack([np.pad(one, (0, frames - len(one))) for one in (left, right)], axis=1), RATE)
    command = ("transcribe", home / "offline", call)
    for channel, text in (("0", "aei"), ("1", "uoa")):
        assert firstwords(*command, "--channel", channel).stdout == f"{text}\n"
    missing = firstwords(*command, "--channel", "2")
    assert missing.exit_code == 1
    assert "no channel 2: it has 2, counted from 0" in missing.stderr

    out = tmp_path / "out"
    assert firstwords(*command, "--channel", "1", "--out", out).exit_code == 0
    assert (out / "call.txt").read_text() == "uoa\n"
    assert "kept as it is" not in firstwords(*command, "--channel", "1", "--out", out).stderr
    assert "made with another channel." in firstwords(*command, "--channel", "0", "--out", out).stderr
    assert "made with another channel." in firstwords(*command, "--out", out).stderr


def test_results_are_written_and_kept(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("transcribe", home / "offline", home / "talks", "--out", out, "--format", "txt,json,srt,eaf")
    first = firstwords(*command)
    assert first.exit_code == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [RECORD, *(f"{name}.{suffix}" for name in ("one", "two") for suffix in ("txt", "json", "srt", "eaf"))]
    )
    assert json.loads((out / "one.json").read_text())["segments"][0]["words"][0]["word"] == "aei"
    assert "2 already transcribed" in firstwords(*command).stderr
    told = firstwords(*command, "--beam", "4").stderr
    assert "made with another search" in told


def test_one_that_cannot_be_read_is_named_and_the_others_done(home: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF1234")
    result = firstwords("transcribe", home / "offline", tmp_path / "bad.wav", home / "talks" / "one.wav")
    assert result.exit_code == 1
    assert "bad.wav" in result.stderr
    assert "aei" in result.stdout


def test_a_language_model_helps(home: Path) -> None:
    talk = home / "talks" / "one.wav"
    helped = firstwords(
        "transcribe", home / "offline", talk, "--lm", home / "lm.arpa", "--lm-weight", "0.1", "--beam", "3"
    )
    assert helped.stdout.strip() == "aei"
    assert "weight 0.1" in helped.stderr
    refused = firstwords("transcribe", home / "streaming", talk, "--lm", home / "lm.arpa")
    assert isinstance(refused.exception, SearchError)


def test_phrases_help(home: Path, tmp_path: Path) -> None:
    talk, names = home / "talks" / "one.wav", tmp_path / "names.txt"
    names.write_text("aei\t0.5\n", encoding="utf-8")
    assert firstwords("transcribe", home / "offline", talk, "--phrases", names).stdout.strip() == "aei"
    names.write_text("ouo\t60\n", encoding="utf-8")  # so much that it is heard in anything
    wide = firstwords("transcribe", home / "offline", talk, "--phrases", names, "--beam", "4")
    assert "ouo" in wide.stdout
    refused = firstwords("transcribe", home / "streaming", talk, "--phrases", names)
    assert isinstance(refused.exception, SearchError)


REFUSED = {
    "--rescore": ("--rescore", "llm"),
    "--post": ("--post", "numbers,punctuation=marks"),
    "--source-lm": ("--lm", "lm.arpa", "--source-lm", "lm.arpa"),
    "--device": ("--device", "cuda"),
    "--precision": ("--precision", "bf16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_bundle_cannot_honour_is_refused_by_name(name: str, home: Path) -> None:
    result = firstwords("transcribe", home / "offline", home / "talks" / "one.wav", *REFUSED[name])
    assert isinstance(result.exception, UsageError)
    assert name in result.exception.what
    assert "bundle" in result.exception.what


def test_stages_without_torch_format(home: Path, tmp_path: Path) -> None:
    talk, names = home / "talks" / "one.wav", tmp_path / "names.txt"
    names.write_text("aeio\nan\n", encoding="utf-8")
    command = ("transcribe", home / "offline", talk, "--post", f"hotwords={names}")
    sure = firstwords(*command)
    assert sure.stdout.strip() == "aei"  # heard too well to be corrected
    assert "not looked for: an" in sure.stderr
    out = ("--out", tmp_path / "out", "--format", "txt,json")
    plain = firstwords("transcribe", home / "offline", talk, *out)
    assert plain.exit_code == 0
    assert "formatted" not in json.loads((tmp_path / "out" / "one.json").read_text())
    told = firstwords(*command, *out)
    assert "made with another formatting" in told.stderr
    assert firstwords(*command, *out, "--again").exit_code == 0
    assert json.loads((tmp_path / "out" / "one.json").read_text())["formatted"]["stages"] == ["hotwords"]
    streamed = firstwords("transcribe", home / "streaming", "--stream", "--post", "numbers", stdin=b"")
    assert "--post needs whole recordings" in str(streamed.exception)


def test_a_stream(home: Path) -> None:
    samples = np.concatenate([sing("aei", np.random.default_rng(3)), np.zeros(RATE, np.float32)])
    pcm = (32767 * samples).astype("<i2").tobytes()
    result = firstwords("transcribe", home / "streaming", "--stream", stdin=pcm)
    assert result.stdout.strip() == "aei"
    events = firstwords("transcribe", home / "streaming", "--stream", "--format", "jsonl", stdin=pcm).stdout
    assert json.loads(events.splitlines()[-1])["text"] == "aei"
    chunk = firstwords("transcribe", home / "streaming", "--stream", "--chunk-ms", "320", stdin=pcm)
    assert "--chunk-ms" in str(chunk.exception)
    offline = firstwords("transcribe", home / "offline", "--stream", stdin=pcm)
    assert isinstance(offline.exception, SearchError)


def test_info(home: Path) -> None:
    told = firstwords("info", home / "streaming", "--check").stdout
    assert "streaming transducer" in told
    assert "Every graph loads." in told
    assert "offline CTC" in firstwords("info", home / "offline").stdout


def test_a_bundle_that_did_not_pass_its_gate_is_named(home: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(home / "offline", tmp_path / "bundle")
    talk = home / "talks" / "one.wav"
    for found, told in (
        ({"passed": True, "faults": []}, False),
        ({"passed": False, "faults": ["int8 loses 12 points"]}, True),
        ([], False),
    ):
        (bundle / "parity.json").write_text(json.dumps(found))
        result = firstwords("transcribe", bundle, talk)
        assert result.stdout.strip() == "aei"
        shown = firstwords("info", bundle).output
        for said in (result.stderr, " ".join(shown.split())):
            assert ("did not pass its parity gate: int8 loses 12 points" in said) == told
