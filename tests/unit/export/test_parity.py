"""The gate: every engine reads what the model reads, or there is no card."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_graphs import KINDS, facts_of
from typer.testing import CliRunner

from firstwords.cli.main import app
from firstwords.errors import CheckpointError, DependencyError, FirstwordsError, UsageError
from firstwords.export import make, parity
from firstwords.export.bundle import TOKENS
from firstwords.export.decode import OnnxReader, RuntimeReader, TorchReader, collapse, tail_samples, windows
from firstwords.export.gated import prove_and_place
from firstwords.export.make import Made, make_bundle
from firstwords.export.quantize import quantize_graphs
from firstwords.export.sherpa import has_sherpa, read_with_sherpa, shown
from firstwords.export.write import describe, write_bundle
from firstwords.model.checkpoint import load_model
from streaming_model import make_causal_model, talk
from tone_corpus import make_tone_corpus

needs_sherpa = pytest.mark.skipif(not has_sherpa(), reason="sherpa-onnx is not installed")


def test_collapse() -> None:
    assert collapse([0, 1, 1, 0, 1, 2, 2, 0, 0, 3]) == (1, 1, 2, 3)
    assert collapse([]) == ()


def test_windows_as_sherpa_waits_for_one_frame_more() -> None:
    facts = {"chunk": {"frames": 45, "shift": 32}}
    assert [(w.start, w.stop) for w in windows(45, facts)] == []
    assert [(w.start, w.stop) for w in windows(78, facts)] == [(0, 45), (32, 77)]


@needs_sherpa
@pytest.mark.parametrize("kind", KINDS)
def test_all_engines_read_the_same(bundles: dict[str, Made], kind: str) -> None:
    made, facts = bundles[kind], facts_of(bundles[kind])
    sounds = [talk(3.0, seed=1), talk(1.7, seed=2), np.zeros(0, np.float32), np.zeros(40, np.float32)]
    torch_reader, onnx_reader = TorchReader(facts, made.loaded.model), OnnxReader(facts, made.folder, "fp32")
    expected = [torch_reader.read(samples, 16000) for samples in sounds]
    assert min(len(tokens) for tokens in expected[:2]) >= 8
    assert [onnx_reader.read(samples, 16000) for samples in sounds] == expected
    runtime_reader = RuntimeReader(facts, made.folder, "fp32")
    assert [runtime_reader.read(samples, 16000) for samples in sounds] == expected
    tail = tail_samples(facts) if made.plan.streaming else 0
    said = read_with_sherpa(made.folder, facts, "fp32", [(s, 16000) for s in sounds], tail=tail)
    assert [one.pieces for one in said] == [
        shown(made.loaded.tokenizer.pieces, tokens) for tokens in expected
    ]


def with_int8(made: Made, folder: Path) -> Made:
    """The same bundle in another place, with graphs in eight bits."""
    kept = {p.name: p.read_bytes() for p in made.folder.iterdir() if p.suffix == ".onnx" or p.name == TOKENS}
    graphs = {name: content for name, content in kept.items() if name.count(".") == 1 and name != TOKENS}
    files = kept | quantize_graphs(graphs)
    write_bundle(folder, describe(made.plan, made.loaded, files), files)
    return replace(made, folder=folder)


@needs_sherpa
@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_reads_both_variants_at_every_rate(
    bundles: dict[str, Made], kind: str, tmp_path: Path
) -> None:
    clips = [parity.Clip(talk(seconds, seed=n), None) for n, seconds in enumerate((1.6, 0.9))]
    gate = parity.compare(with_int8(bundles[kind], tmp_path / "b"), clips, parity.RATES, lambda _: None)
    engines = ("PyTorch", "onnxruntime", "firstwords", "sherpa-onnx")
    read = {(row.engine, row.variant, row.rate): row for row in gate.rows}
    assert parity.RATES == (8000, 16000, 44100, 48000)
    wanted = set(product(engines, ("fp32", "int8"), parity.RATES))
    assert read.keys() == {one for one in wanted if one[:2] != ("PyTorch", "int8")}
    assert gate.sherpa == "compared"
    assert gate.tokens > 8
    assert all(read[engine, "fp32", 16000].differing == 0 for engine in engines)
    assert any(row.tokens.errors for row in gate.rows if row.rate == 8000)  # half of the band is gone
    for rate in parity.RATES:  # one resampler, so the same samples
        assert read["onnxruntime", "fp32", rate].tokens == read["PyTorch", "fp32", rate].tokens


def test_the_options_say_how_much_is_compared(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_tone_corpus(tmp_path / "corpus", train=18, dev=1, test=1)
    asked: list[tuple[int | None, bool]] = []

    def noted(*given: Any, long: bool, **_: Any) -> None:
        clips = given[2]
        asked.append((None if clips is None else len(clips), long))
        raise UsageError("Enough.", mend="None.")

    monkeypatch.setattr("firstwords.export.gated.prove_and_place", noted)
    for more in ([], ["--check"], ["--corpus", str(corpus)], ["--check", "--corpus", str(corpus)]):
        CliRunner().invoke(app, ["export", str(model), "--to", str(tmp_path / "b"), *more])
    assert asked == [(None, False), (None, True), (20, True), (20, True)]


def test_a_passed_gate_of_enough_utterances_writes_a_card(
    bundles: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundles["streaming transducer"].folder, tmp_path / "b")
    made = replace(bundles["streaming transducer"], folder=tmp_path / "b")
    monkeypatch.setattr(parity, "has_sherpa", lambda: False)
    clips = [parity.Clip(talk(0.8, seed=seed), None) for seed in range(20)]
    said: list[str] = []
    parity.check_bundle_of(made, clips[:19], report=said.append)
    assert "19 utterances are too few" in said[-1]
    assert not (made.folder / "card.md").exists()
    gate = parity.check_bundle_of(made, clips)
    assert gate.tokens > 20
    written = json.loads((made.folder / "parity.json").read_text(encoding="utf-8"))
    assert written["passed"]
    assert written["sherpa_onnx"] == "not installed"
    assert any("sherpa-onnx was not compared: it was not installed" in line for line in said)
    assert any('pip install "firstwords[export]"' in line for line in said)
    assert {row["engine"] for row in written["rows"]} >= {"PyTorch", "onnxruntime"}
    card = (made.folder / "card.md").read_text(encoding="utf-8")
    assert "streaming transducer" in card
    assert "--encoder=encoder.onnx" in card
    engines = ", ".join(dict.fromkeys(row.engine for row in gate.rows))
    assert f"20 sounds without transcripts, each read by {engines}:" in card
    assert f"| read alike by | {engines} |" in card
    assert "sherpa-onnx, which was not installed" in card
    assert "sherpa-onnx was not compared" in card
    assert "sherpa-onnx" not in engines


def test_other_weights_get_no_card(model: Path, bundles: dict[str, Made], tmp_path: Path) -> None:
    shutil.copytree(bundles["ctc"].folder, tmp_path / "b")
    (tmp_path / "b" / "card.md").write_text("old")
    other = load_model(make_causal_model(tmp_path / "other", seed=8), device="cpu")
    made = replace(bundles["ctc"], folder=tmp_path / "b", loaded=other)
    few = parity.material(other.recipe, None, 4)
    with pytest.raises(CheckpointError, match=r"onnxruntime, fp32: \d+ utterances have other tokens"):
        parity.check_bundle_of(made, few)
    assert not json.loads((tmp_path / "b" / "parity.json").read_text(encoding="utf-8"))["passed"]
    assert not (tmp_path / "b" / "card.md").exists()


def test_sounds_in_which_the_model_reads_nothing_prove_nothing(
    bundles: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundles["ctc"].folder, tmp_path / "b")
    made = replace(bundles["ctc"], folder=tmp_path / "b")
    quiet = [parity.Clip(np.zeros(0, np.float32), None)] * parity.UTTERANCES
    monkeypatch.setattr(parity, "has_sherpa", lambda: False)
    with pytest.raises(CheckpointError, match="reads nothing in these sounds"):
        parity.check_bundle_of(made, quiet)
    assert not json.loads((tmp_path / "b" / "parity.json").read_text(encoding="utf-8"))["passed"]
    assert not (tmp_path / "b" / "card.md").exists()


def test_int8_that_costs_more_than_a_point_gets_no_card() -> None:
    def row(engine: str, variant: str, cer: float) -> parity.Row:
        return parity.Row(engine, variant, 16000, 0, parity.ErrorRate(), cer)

    rows = [row("a", "fp32", 0.2), row("a", "int8", 0.2099), row("b", "fp32", 0.3), row("b", "int8", 0.311)]
    faults = list(parity._faults(rows, 16000))  # pyright: ignore[reportPrivateUsage]
    assert len(faults) == 1
    assert faults[0].startswith("b, int8")


@needs_sherpa
def test_what_sherpa_cannot_load_is_an_error_not_a_dead_process(
    bundles: dict[str, Made], tmp_path: Path
) -> None:
    import onnx

    made, facts = bundles["streaming ctc"], facts_of(bundles["streaming ctc"])
    shutil.copytree(made.folder, tmp_path / "b")
    graph = onnx.load(tmp_path / "b" / "model.onnx")
    kept = [p for p in graph.metadata_props if p.key != "decode_chunk_len"]
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    onnx.save(graph, tmp_path / "b" / "model.onnx")
    with pytest.raises(CheckpointError, match="sherpa-onnx could not run"):
        read_with_sherpa(tmp_path / "b", facts, "fp32", [(talk(1.0), 16000)], tail=0)


def test_a_reader_that_does_not_end_is_an_error(
    bundles: dict[str, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firstwords.export.sherpa._SECONDS", 0.001)
    made = bundles["ctc"]
    with pytest.raises(CheckpointError, match="has not read 1 recordings"):
        read_with_sherpa(made.folder, facts_of(made), "fp32", [(talk(1.0), 16000)])


def test_the_command(model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["export", str(model), "--to", str(tmp_path / "b"), "--head", "ctc"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "b").iterdir()}
    assert names == {"bundle.json", "card.md", "features.onnx", "model.onnx", "parity.json", "tokens.txt"}


def test_an_earlier_bundle_stays_until_a_new_one_has_passed(
    bundles: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real gate: weights that are not those of the graphs."""
    monkeypatch.setattr(parity, "has_sherpa", lambda: False)
    shutil.copytree(bundles["ctc"].folder, tmp_path / "b")
    good = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    other = load_model(make_causal_model(tmp_path / "other", seed=8), device="cpu")

    def make_it(place: Path) -> Made:
        shutil.copytree(bundles["ctc"].folder, place)
        return replace(bundles["ctc"], folder=place, loaded=other)

    few = parity.material(other.recipe, None, 4)
    with pytest.raises(CheckpointError, match="is as it was"):
        prove_and_place(make_it, tmp_path / "b", few)
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == good
    found = json.loads((tmp_path / "b.unproven" / "parity.json").read_text(encoding="utf-8"))
    assert (found["passed"], found["sherpa_onnx"]) == (False, "not installed")


def test_a_chunk_without_a_stream_is_refused(model: Path, tmp_path: Path) -> None:
    command = ["export", str(model), "--to", str(tmp_path / "b"), "--chunk-ms", "640"]
    refused = CliRunner().invoke(app, command).exception
    assert isinstance(refused, UsageError)
    assert "--streaming is not given" in refused.what
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("chunk", ["nan", "inf", "1e300", "60001", "0", "-5"])
def test_chunks_that_cannot_be(chunk: str, model: Path, tmp_path: Path) -> None:
    command = ["export", str(model), "--to", str(tmp_path / "b"), "--streaming", f"--chunk-ms={chunk}"]
    assert isinstance(CliRunner().invoke(app, command).exception, UsageError)
    assert not (tmp_path / "b").exists()


def test_a_corpus_that_cannot_be_compared_is_told_before_anything_is_written(
    model: Path, tmp_path: Path
) -> None:
    command = ["export", str(model), "--to", str(tmp_path / "b"), "--corpus", str(tmp_path / "nowhere")]
    assert isinstance(CliRunner().invoke(app, command).exception, FirstwordsError)
    assert not (tmp_path / "b").exists()


def test_eight_bits_that_gain_nothing_are_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        make,
        "make_graphs",
        lambda _: {f"{part}.onnx": b"" for part in ("features", "encoder", "decoder", "joiner")},
    )
    monkeypatch.setattr(make, "quantize_graphs", lambda _: {"encoder.int8.onnx": b""})
    said: list[str] = []
    make_bundle(model, tmp_path / "b", kind="transducer", int8=True, report=said.append)
    assert [line for line in said if "gain nothing" in line] == [
        "eight bits gain nothing here: decoder.onnx stays as it is",
        "eight bits gain nothing here: joiner.onnx stays as it is",
    ]


def test_a_folder_with_other_things_is_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="neither empty nor a bundle"):
        make_bundle(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_missing_package_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DependencyError, match="'onnx'") as caught:
        make_bundle(model, tmp_path / "b")
    assert "firstwords[export]" in caught.value.mend
