"""``firstwords compress quantize``: what it writes, and what it refuses before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from firstwords.cli.compress_quantize import parse_bytes
from firstwords.cli.info import facts
from firstwords.cli.main import app
from firstwords.compression import choices, quantize
from firstwords.compression.quantize import Order
from firstwords.errors import FirstwordsError, UsageError
from firstwords.model.checkpoint import load_model
from firstwords.model.linears import linear_layers
from nonsense_model import make_nonsense_model
from tone_corpus import make_tone_corpus


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("quantize")
    make_nonsense_model(home / "model")
    (home / "model" / "resume").mkdir()
    (home / "model" / "extra").mkdir()
    (home / "model" / "extra" / "notes.txt").write_text("mine", encoding="utf-8")
    make_tone_corpus(home / "corpus", train=6, dev=4, test=0)
    return home


def run(*arguments: object) -> str:
    """The output; a FirstwordsError is raised as it is."""
    done = CliRunner().invoke(app, ["compress", "quantize", *map(str, arguments)])
    if isinstance(done.exception, FirstwordsError):
        raise done.exception
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("options", "share", "kinds"),
    [
        ("--storage fp16", 0.56, {"fp16"}),
        ("--storage bf16", 0.56, {"bf16", "fp16"}),
        ("", 0.40, {"int8", "fp16"}),
        ("--storage kmeans --bits 6", 0.40, {"kmeans", "fp16"}),
    ],
)
def test_a_smaller_folder_and_the_original_untouched(
    home: Path, tmp_path: Path, options: str, share: float, kinds: set[str]
) -> None:
    before = contents(home / "model")
    said = run(home / "model", "--to", tmp_path / "new", *options.split())
    assert contents(home / "model") == before
    sizes = [(f / "model.safetensors").stat().st_size for f in (home / "model", tmp_path / "new")]
    assert sizes[1] < share * sizes[0]
    assert f"{sizes[0] / 1e6:.3f} MB -> {sizes[1] / 1e6:.3f} MB" in said
    loaded = load_model(tmp_path / "new", device="cpu", check=True)
    assert {s.kind for s in loaded.storage.values()} - {"fp32"} <= kinds
    assert loaded.speech_gate == load_model(home / "model", device="cpu").speech_gate
    history = json.loads((tmp_path / "new" / "compression.json").read_text(encoding="utf-8"))
    (step,) = history["steps"]
    assert step["step"] == "quantize"
    assert len(step["from_hash"]) == 64
    assert (tmp_path / "new" / "extra" / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "new" / "resume").exists()
    told, kept = (dict(facts(folder)) for folder in (home / "model", tmp_path / "new"))
    assert kept["parameters"] == told["parameters"]
    assert kept["weights kept as"].count("tensors") == len({s.words for s in loaded.storage.values()})
    assert "weights kept as" not in told
    assert "## Quantized" in (tmp_path / "new" / "card.md").read_text(encoding="utf-8")


def test_steps_in_sequence_are_remembered(home: Path, tmp_path: Path) -> None:
    run(home / "model", "--to", tmp_path / "a", "--storage", "fp16")
    run(tmp_path / "a", "--to", tmp_path / "b")
    history = json.loads((tmp_path / "b" / "compression.json").read_text(encoding="utf-8"))
    assert [step["settings"]["storage"] for step in history["steps"]] == ["fp16", "int8"]
    load_model(tmp_path / "b", device="cpu", check=True)


def test_same_order_same_bytes(home: Path, tmp_path: Path) -> None:
    for name in "ab":
        run(home / "model", "--to", tmp_path / name, "--storage", "kmeans")
    a, b = (contents(tmp_path / name) for name in "ab")
    assert a["model.safetensors"] == b["model.safetensors"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--storage fp8", "no such kind"),
        ("--bits 4", "--storage kmeans"),
        ("--storage kmeans --bits 9", "expected 1 to 8"),
        ("--budget 1MB --storage int8 --corpus C", "chooses how"),
        ("--budget 1MB", "--budget needs speech"),
        ("--budget 1PB --corpus C", "expected bytes"),
        ("--budget 0 --corpus C", "expected bytes"),
        ("--static", "--static needs speech"),
        ("--qat --corpus C", "--tune 10"),
        ("--qat --static --tune 1 --corpus C", "Leave out --static"),
        ("--static --storage kmeans --corpus C", "for 8-bit computation"),
        ("--tune 5 --corpus C", "nothing to train"),
        ("--tune 0 --storage kmeans --corpus C", "expected minutes"),
        ("--tune 5 --storage kmeans", "--tune needs speech"),
        ("--static --corpus nowhere", "nowhere"),
    ],
)
def test_contradictions_are_named_and_nothing_is_written(
    home: Path, tmp_path: Path, options: str, said: str
) -> None:
    with pytest.raises(FirstwordsError) as error:
        run(home / "model", "--to", tmp_path / "new", *options.split())
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_taken_are_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").touch()
    for to, said in (
        (tmp_path / "new", "not empty"),
        (home / "model", "not empty"),
        (home / "model" / "x", "within"),
    ):
        with pytest.raises(UsageError, match=said):
            run(home / "model", "--to", to)
    with pytest.raises(FirstwordsError, match="is a corpus, not the folder of a recogniser"):
        run(home / "corpus", "--to", tmp_path / "other")


def test_a_budget_is_kept_and_one_that_cannot_be_met_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(state: dict[str, torch.Tensor]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for block, names in choices.blocks(state).items():
            found.setdefault(block.split(".")[0], []).extend(names)
        return found

    monkeypatch.setattr(quantize, "BITS", (2, 8))  # a few measurements are enough here
    monkeypatch.setattr(quantize, "blocks", coarse)
    corpus = ("--corpus", home / "corpus", "--device", "cpu")
    said = run(home / "model", "--to", tmp_path / "new", "--budget", "100kB", *corpus)
    assert (tmp_path / "new" / "model.safetensors").stat().st_size <= 100_000
    assert "mixed bits" in said
    assert "bits everywhere" in said
    load_model(tmp_path / "new", device="cpu", check=True)
    with pytest.raises(UsageError, match="cannot be met"):
        run(home / "model", "--to", tmp_path / "none", "--budget", "1kB", *corpus)
    assert not (tmp_path / "none").exists()


def test_a_budget_is_judged_before_the_corpus_is_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def material(*_: object) -> None:
        raise AssertionError("the corpus was prepared")

    monkeypatch.setattr(quantize, "Material", material)
    with pytest.raises(UsageError, match="cannot be met"):
        run(home / "model", "--to", tmp_path / "none", "--budget", "1kB", "--corpus", home / "corpus")


def test_what_is_trained_after_rounding_is_what_is_written(home: Path, tmp_path: Path) -> None:
    """Two steps of each, with the real loop, on a model that reads nonsense."""
    common = {"corpus": home / "corpus", "device": "cpu", "tune": 5.0, "steps": 2}
    quantize.quantize(home / "model", tmp_path / "plain", Order(kind="kmeans", bits=3))
    shared = quantize.quantize(home / "model", tmp_path / "shared", Order(kind="kmeans", bits=3, **common))
    plain = load_model(tmp_path / "plain", device="cpu")
    tuned = load_model(tmp_path / "shared", device="cpu", check=True)
    assert shared.after.bytes == shared.folder.joinpath("model.safetensors").stat().st_size
    assert shared.after.bytes == (tmp_path / "plain" / "model.safetensors").stat().st_size
    assert tuned.storage == plain.storage
    for name, storage in tuned.storage.items():
        if storage.kind == "kmeans":  # as many values as there were, each weight with those it was with
            one, other = (m.model.state_dict()[name].flatten(1)[:64].flatten() for m in (plain, tuned))
            pairs = set(zip(one.tolist(), other.tolist(), strict=True))
            assert len(pairs) == len(set(one.tolist())) <= 8, name
    aware = quantize.quantize(home / "model", tmp_path / "aware", Order(qat=True, **common))
    assert aware.computed is not None
    assert aware.computed.cer is not None
    scales = load_model(tmp_path / "aware", device="cpu", check=True).input_scales
    assert set(scales) == set(linear_layers(load_model(home / "model", device="cpu").model))
    assert all(scale > 0 for scale in scales.values())


@pytest.mark.parametrize(
    ("text", "size"), [("1MB", 10**6), ("1.5m", 1_500_000), ("600 kB", 600_000), ("250000", 250_000)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size
