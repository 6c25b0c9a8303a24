"""Folders that are no language model, in words; nothing is ever downloaded unasked."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from firstwords.errors import CheckpointError, DependencyError, UsageError
from firstwords.lm.llm_folder import llm_fingerprint, load_llm
from small_llm import model, save, tokenizer


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "llm", "llama")


def refusal(where: Path | str, kind: str = "causal") -> str:
    with pytest.raises(CheckpointError) as caught:
        load_llm(where, kind, device="cpu")  # type: ignore[arg-type]
    assert caught.value.mend
    return str(caught.value)


def test_a_whole_folder_loads_without_the_network(folder: Path) -> None:
    loaded = load_llm(folder, "causal", device="cpu")
    assert (loaded.limit, loaded.model.training, loaded.device.type) == (128, False, "cpu")
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert load_llm(str(folder), "causal", device="cpu").limit == 128


def test_what_does_not_exist_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    assert "nothing was downloaded" in refusal(tmp_path / "absent")
    said = refusal("some/llama-small")
    assert "nothing was downloaded" in said
    assert "write hub:some/llama-small" in said


def test_a_hub_name_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str | None]] = []

    def absent(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert "*.safetensors" in allow_patterns
        assert not any(p.endswith((".bin", ".py")) for p in allow_patterns)
        raise OSError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    assert "could not be downloaded: no route to the hub." in refusal("hub:some/llama-small@v1")
    refusal("hub:some/llama-small")
    assert asked == [("some/llama-small", "v1"), ("some/llama-small", None)]


def test_what_is_missing_and_what_was_found(folder: Path) -> None:
    (folder / "config.json").rename(folder / "kept.json")
    assert "config.json is missing. Found: " in refusal(folder)
    (folder / "kept.json").rename(folder / "config.json")
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer. Found: config.json" in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert "has no *.safetensors. Found: config.json" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "'pytorch_model.bin' is a pickle" in refusal(folder)


def test_foreign_folders(tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "Found: nothing." in refusal(empty)
    assert "is a file" in refusal(folder / "config.json")
    (tmp_path / "asr").mkdir()
    (tmp_path / "asr" / "recipe.toml").write_text("")
    assert "is a speech recogniser" in refusal(tmp_path / "asr")
    (tmp_path / "ngram").mkdir()
    (tmp_path / "ngram" / "lm.toml").write_text("")
    assert "give it with --lm in place of --rescore" in refusal(tmp_path / "ngram")
    (tmp_path / "network").mkdir()
    for name in ("lm.toml", "recipe.toml", "model.safetensors"):
        (tmp_path / "network" / name).write_text("")
    assert "a language model of 'firstwords lm'" in refusal(tmp_path / "network")
    assert "a masked one was asked for" in refusal(folder, "masked")
    assert "a causal one was asked for" in refusal(save(tmp_path / "bert", "bert"))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '"x"', '{"model_type": "no-such-thing"}', "\x00", '{"a":' * 3000]
)
def test_broken_configs(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_cut_off_files(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:100])
    assert "cannot be loaded as a causal language model" in refusal(folder)


def test_weights_that_are_not_the_models_are_not_made_up(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert "weights of LlamaForCausalLM are missing" in refusal(folder)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path, kind: str) -> None:
    """It ended in an IndexError at the first text with such a token."""
    own = tokenizer()
    model(kind, 10).save_pretrained(tmp_path / "llm")
    own.save_pretrained(tmp_path / "llm")
    said = refusal(tmp_path / "llm", "masked" if kind == "bert" else "causal")
    assert f"the tokenizer has {len(own)} tokens" in said
    assert "knows 10" in said


def test_an_added_token_that_is_not_used_does_no_harm(tmp_path: Path) -> None:
    """Many a folder has a padding token that its model was never made larger for."""
    own = tokenizer()
    model("llama", len(own)).save_pretrained(tmp_path / "llm")
    own.add_special_tokens({"pad_token": "[PAD]"})
    own.save_pretrained(tmp_path / "llm")
    assert load_llm(tmp_path / "llm", "causal", device="cpu").tokenizer.pad_token_id == len(own) - 1


def test_weights_that_are_not_finite_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    weights[name][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    said = refusal(folder)
    assert name in said
    assert "not finite" in said


def test_code_in_the_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    evil = {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "modeling_evil.M"},
    }
    (folder / "config.json").write_text(json.dumps(config | evil))
    refusal(folder)
    assert not ran.exists()


def test_number_formats(folder: Path) -> None:
    with pytest.raises(UsageError, match="'int3' is no number format"):
        load_llm(folder, "causal", dtype="int3")  # type: ignore[arg-type]


def test_without_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DependencyError, match="need the package 'transformers'") as caught:
        load_llm(folder, "causal")
    assert caught.value.mend == 'pip install "firstwords[llm]"'


def test_another_state_of_a_folder_has_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firstwords.lm.llm_folder._READ_WHOLE", 1 << 20)

    def save(folder: Path, size: int, change: int | None = None) -> Path:
        folder.mkdir()
        weights = bytearray(size)
        if change is not None:
            weights[change] = 1
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text("{}")
        return folder

    for name, size in (("small", 9000), ("large", (3 << 20) + 9)):
        mark = llm_fingerprint(save(tmp_path / name, size))
        assert llm_fingerprint(save(tmp_path / f"{name}-copy", size)) == mark  # whatever it is called
        (tmp_path / f"{name}-copy" / "notes.md").write_text("mine")
        assert llm_fingerprint(tmp_path / f"{name}-copy") == mark
        for change in (0, size - 1):
            assert llm_fingerprint(save(tmp_path / f"{name}-{change}", size, change)) != mark
    (tmp_path / "small" / "tokenizer.json").write_text("{}")
    assert llm_fingerprint(tmp_path / "small") != llm_fingerprint(tmp_path / "small-copy")
