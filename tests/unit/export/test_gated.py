"""Where a bundle goes, by what the gate says; gate and exporter are stand-ins here (test_parity.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firstwords.errors import CheckpointError, UsageError
from firstwords.export import gated
from firstwords.export.gated import prove_and_place
from firstwords.export.make import Made
from firstwords.export.parity import Gate
from firstwords.scoring.error_rate import ErrorRate


def made(place: Path) -> Made:
    nothing: Any = SimpleNamespace()
    return Made(place, nothing, nothing, {})


def maker(graph: str) -> Callable[[Path], Made]:
    def make(place: Path) -> Made:
        place.mkdir(exist_ok=True)
        for name in (graph, "tokens.txt"):
            (place / name).write_text(f"of {graph}")
        (place / "bundle.json").write_text(json.dumps({"files": {graph: {}, "tokens.txt": {}}}))
        return made(place)

    return make


def the_gate(monkeypatch: pytest.MonkeyPatch, *, passes: bool) -> None:
    def check(made: Made, *_: object, **__: object) -> str:
        found = {"passed": passes, "faults": [] if passes else ["int8"]}
        (made.folder / "parity.json").write_text(json.dumps(found))
        if not passes:
            raise CheckpointError(f"the bundle '{made.folder}' does not read it.", mend="See parity.json.")
        (made.folder / "card.md").write_text("a card")
        return "passed"

    monkeypatch.setattr(gated, "check_bundle_of", check)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that has passed, by a relative path."""
    monkeypatch.chdir(tmp_path)
    the_gate(monkeypatch, passes=True)
    prove_and_place(maker("encoder.onnx"), Path("b"))
    return Path("b")


def test_an_earlier_bundle_stays_where_the_new_one_fails(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = contents(place)
    assert "card.md" in good
    the_gate(monkeypatch, passes=False)
    with pytest.raises(CheckpointError, match="The bundle in 'b' is as it was") as refused:
        prove_and_place(maker("model.onnx"), place)
    assert contents(place) == good
    failed = tmp_path / "b.unproven"
    assert f"the new one is in '{failed}'" in refused.value.what
    assert contents(failed).keys() == {"bundle.json", "model.onnx", "parity.json", "tokens.txt"}


def test_a_new_bundle_that_passes_takes_the_place(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_gate(monkeypatch, passes=False)
    with pytest.raises(CheckpointError):
        prove_and_place(maker("model.onnx"), place)
    (place / "notes.txt").write_text("of the user")
    (tmp_path / "b.unproven" / "notes.txt").write_text("more")
    the_gate(monkeypatch, passes=True)
    assert prove_and_place(maker("model.onnx"), place)[0].folder == place
    own = {"bundle.json", "model.onnx", "parity.json", "tokens.txt", "card.md"}
    assert contents(place).keys() == {*own, "notes.txt"}  # the encoder of before is gone
    assert contents(tmp_path / "b.unproven") == {"notes.txt": b"more"}


def test_what_is_stopped_leaves_the_earlier_bundle(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = contents(place)

    def stopped(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    def half(folder: Path) -> Made:
        folder.mkdir()
        (folder / "model.onnx").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prove_and_place(half, place)
    monkeypatch.setattr(gated, "check_bundle_of", stopped)
    with pytest.raises(KeyboardInterrupt):
        prove_and_place(maker("model.onnx"), place)
    assert contents(place) == good
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_model_that_cannot_be_read_costs_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_gate(monkeypatch, passes=False)
    with pytest.raises(CheckpointError):
        prove_and_place(maker("model.onnx"), place)
    both = contents(place), contents(tmp_path / "b.unproven")

    def broken(_: Path) -> Made:
        raise CheckpointError("no model", mend="Give one.")

    with pytest.raises(CheckpointError, match="no model"):
        prove_and_place(broken, place)
    assert both == (contents(place), contents(tmp_path / "b.unproven"))


def test_a_bundle_that_failed_is_no_better_than_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_gate(monkeypatch, passes=False)
    for graph in ("encoder.onnx", "model.onnx"):
        with pytest.raises(CheckpointError):
            prove_and_place(maker(graph), tmp_path / "b")
        assert graph in json.loads((tmp_path / "b" / "bundle.json").read_text())["files"]
        assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_other_folders_are_left_alone(place: Path, tmp_path: Path) -> None:
    (tmp_path / "b.unproven").mkdir()
    (tmp_path / "b.unproven" / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="neither empty nor a bundle"):
        prove_and_place(maker("model.onnx"), place)
    assert contents(tmp_path / "b.unproven") == {"thesis.txt": b"all of it"}


def test_where_sherpa_was_not_compared_it_is_said() -> None:
    def gate(sherpa: Any) -> Gate:
        row = SimpleNamespace(engine="PyTorch", variant="fp32", rate=16000, differing=0, cer=0.0)
        row.tokens = ErrorRate()
        rows: Any = (row,)
        return Gate(20, 99, True, 16000, rows, (), sherpa)

    for sherpa, said in (
        ("not installed", "sherpa-onnx was not compared: it was not installed."),
        ("cannot run it", "sherpa-onnx was not compared: it cannot run this bundle."),
    ):
        assert gate(sherpa).as_json()["sherpa_onnx"] == sherpa
        assert said in gate(sherpa).as_markdown()
    assert gate("compared").as_json()["sherpa_onnx"] == "compared"
    assert "sherpa-onnx" not in gate("compared").as_markdown()
