"""A model folder: what is saved comes back, and a damaged or mixed-up one says so."""

from __future__ import annotations

import json
import shutil
import socket
import stat
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from firstwords.config import dump_config
from firstwords.errors import CheckpointError, ConfigError
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.recipe import Recipe, read_recipe, write_recipe
from firstwords.model.selfcheck import run_check, synthetic_clip
from firstwords.tensors import pad
from nonsense_model import make_nonsense_model
from tone_corpus import tone_recipe


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nonsense_model(tmp_path_factory.mktemp("models") / "nonsense")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def test_saved_and_loaded_give_the_same_numbers(folder: Path) -> None:
    one, two = load_model(folder, device="cpu", check=True), load_model(folder, device="cpu")
    audio = pad([torch.from_numpy(synthetic_clip(16000))])
    with torch.inference_mode():
        assert torch.equal(one.model(audio).values, two.model(audio).values)
    assert one.recipe == two.recipe == one.model.recipe
    assert not one.model.training
    tokens = json.loads((folder / "check" / "expected.json").read_text())["tokens"]
    assert tokens, "the check clip should make even a nonsense model write something"


def test_the_same_model_is_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """The library alone writes its metadata in one of 24 orders."""
    loaded = load_model(folder, device="cpu")
    for number in range(4):
        save_model(tmp_path / f"{number}", loaded.model, loaded.tokenizer, card="")
        name = "model.safetensors"
        assert (tmp_path / f"{number}" / name).read_bytes() == (folder / name).read_bytes()


def test_weights_may_be_read_by_whoever_may_read_the_recipe(folder: Path) -> None:
    modes = {stat.S_IMODE((folder / name).stat().st_mode) for name in ("recipe.toml", "model.safetensors")}
    assert len(modes) == 1


@pytest.mark.parametrize("missing", ["recipe.toml", "model.safetensors", "tokenizer"])
def test_a_missing_part_is_named(folder: Path, missing: str) -> None:
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=missing):
        load_model(folder)


def test_another_recipe_is_noticed(folder: Path) -> None:
    recipe = read_recipe(folder / "recipe.toml")
    write_recipe(folder / "recipe.toml", recipe.with_(seed=recipe.seed + 1))
    with pytest.raises(CheckpointError, match=r"not saved with this recipe\.toml"):
        load_model(folder)


def test_another_tokenizer_is_noticed(folder: Path) -> None:
    pieces = folder / "tokenizer" / "pieces.txt"
    lines = pieces.read_text(encoding="utf-8").splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    pieces.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"pieces|tokenizer"):
        load_model(folder)


def test_half_a_file_is_no_model(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="safetensors"):
        load_model(folder)


def test_missing_unknown_and_misshapen_tensors_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    weights = load_file(path)
    first, second = list(weights)[:2]
    weights["stranger"] = weights.pop(first)
    weights[second] = torch.zeros(3, 3, 3)
    save_file(weights, path, metadata=header)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    for words in (f"{first} is missing", "stranger is unknown", f"{second} has shape (3, 3, 3)"):
        assert words in caught.value.what


def test_check_finds_a_changed_weight(folder: Path) -> None:
    loaded = load_model(folder, device="cpu")
    with torch.no_grad():
        loaded.model.ctc.projection.bias[1] += 3.0
    with pytest.raises(CheckpointError, match="check clip"):
        run_check(folder, loaded.model)


def test_a_folder_without_a_clip_cannot_prove_itself(folder: Path) -> None:
    shutil.rmtree(folder / "check")
    load_model(folder)
    with pytest.raises(CheckpointError, match="cannot prove itself"):
        load_model(folder, check=True)


def test_a_damaged_answer_is_named(folder: Path) -> None:
    expected = folder / "check" / "expected.json"
    values = json.loads(expected.read_text(encoding="utf-8"))
    for content in ("{", "[]", "{}", json.dumps(values | {"log_probs": "none"})):
        expected.write_text(content, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"expected\.json' is damaged"):
            load_model(folder, device="cpu", check=True)
    expected.write_text(json.dumps(values | {"log_probs": values["log_probs"][1:]}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="stored answer"):
        load_model(folder, device="cpu", check=True)


def test_a_recipe_from_before_a_setting_existed_still_loads(folder: Path) -> None:
    """A later version fills in the default of what the file has not: the model is still this file's."""
    recipe, weights = folder / "recipe.toml", folder / "model.safetensors"
    lines = recipe.read_text(encoding="utf-8").splitlines(keepends=True)
    older = "".join(line for line in lines if not line.startswith("min_duration"))
    assert len(older) < sum(map(len, lines))
    recipe.write_text(older, encoding="utf-8", newline="\r\n")  # as a Windows editor or git may leave it
    with safe_open(weights, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(weights), weights, metadata=header | {"recipe": sha256(older.encode()).hexdigest()})
    assert load_model(folder, device="cpu", check=True).recipe == read_recipe(recipe)


POST = '\n[post]\nstages = ["hotwords"]\n[post.hotwords]\nphrases = ["{}"]\n'


def test_stages_may_be_named_changed_and_removed_in_a_trained_model(folder: Path, tmp_path: Path) -> None:
    recipe = folder / "recipe.toml"
    bare = recipe.read_text(encoding="utf-8")
    recipe.write_text(bare + POST.format("Accra"), encoding="utf-8")
    named = load_model(folder, device="cpu", check=True)
    assert named.recipe.post is not None
    again = tmp_path / "again"  # saved with stages
    save_model(again, named.model, named.tokenizer, card="")
    for stages in ("", POST.format("Lagos")):
        (again / "recipe.toml").write_text(bare + stages, encoding="utf-8")
        post = load_model(again, device="cpu").recipe.post
        assert (post.hotwords.phrases if post else ()) == (("Lagos",) if stages else ())
    recipe.write_text(bare.replace("seed = ", "seed = 9") + POST.format("Accra"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"not saved with this recipe\.toml"):
        load_model(folder)


def test_weights_without_stages_name_the_digest_of_the_whole_recipe(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["recipe"] == sha256((folder / "recipe.toml").read_bytes()).hexdigest()


def test_stages_may_be_named_in_a_recipe_from_before_a_setting_existed(folder: Path) -> None:
    recipe, weights = folder / "recipe.toml", folder / "model.safetensors"
    lines = recipe.read_text(encoding="utf-8").splitlines(keepends=True)
    older = "".join(line for line in lines if not line.startswith("min_duration"))
    recipe.write_text(older + POST.format("Accra"), encoding="utf-8")
    with safe_open(weights, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(weights), weights, metadata=header | {"recipe": sha256(older.encode()).hexdigest()})
    assert load_model(folder, device="cpu").recipe.post is not None


def test_weights_saved_with_the_digest_of_recipe_and_stages_still_load(folder: Path) -> None:
    recipe, weights = folder / "recipe.toml", folder / "model.safetensors"
    recipe.write_text(recipe.read_text(encoding="utf-8") + POST.format("Accra"), encoding="utf-8")
    whole = read_recipe(recipe).digest
    with safe_open(weights, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(weights), weights, metadata=header | {"recipe": whole})
    assert load_model(folder, device="cpu").recipe.post is not None


def test_saving_again_leaves_no_half_files(folder: Path) -> None:
    loaded = load_model(folder, device="cpu")
    before = sorted(p.relative_to(folder) for p in folder.rglob("*"))
    save_model(folder, loaded.model, loaded.tokenizer, card="again")
    assert sorted(p.relative_to(folder) for p in folder.rglob("*")) == before
    load_model(folder, device="cpu", check=True)


_watching: list[list[str]] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    """A hook of the interpreter: it sees connections, child processes and unpickling."""
    if _watching and (
        event.startswith(("socket.", "subprocess.", "urllib.", "pickle.find_class", "ctypes.dlopen"))
        or event in ("os.system", "os.exec", "os.posix_spawn", "os.fork")
    ):
        _watching[-1].append(f"{event} {arguments}")


def test_loading_runs_no_code_and_needs_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("__init__.py", "model.py", "tokenizer.py", "sitecustomize.py"):
        (folder / name).write_text("raise SystemExit('ran')", encoding="utf-8")
    for name in ("model.pt", "pytorch_model.bin", "tokenizer/tokenizer.pkl"):
        torch.save({"x": print}, folder / name)
    load_model(folder, device="cpu", check=True)  # whatever is imported lazily is there now
    monkeypatch.chdir(folder)
    sys.addaudithook(_watch)
    seen: list[str] = []
    _watching.append(seen)
    try:
        load_model(folder, device="cpu", check=True)
        assert not seen
        with pytest.raises(ConnectionRefusedError), socket.socket() as other:  # the hook does see
            other.connect(("127.0.0.1", 1))
    finally:
        _watching.clear()
    assert any(event.startswith("socket.connect") for event in seen)


def test_recipe_round_trip_and_strictness(tmp_path: Path) -> None:
    recipe = tone_recipe()
    path = tmp_path / "recipe.toml"
    write_recipe(path, recipe)
    assert read_recipe(path) == recipe
    assert read_recipe(path).digest == recipe.digest
    path.write_text(dump_config(recipe).replace("kernels", "kernals"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"kernals: no such setting\. Did you mean 'kernels'"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("training.learning_rat=1", "learning_rat"),
        ("text.normalizer=defualt", "no normalizer is named 'defualt'"),
        ("features.sample_rate=8000", "other frequencies"),
        ("format=2", "format 2"),
        ("seed=often", "valid integer"),
    ],
)
def test_faults_of_recipes_are_explained(tmp_path: Path, assignment: str, words: str) -> None:
    path = tmp_path / "recipe.toml"
    write_recipe(path, tone_recipe())
    with pytest.raises(ConfigError, match=words):
        read_recipe(path, overrides=(assignment,))


def test_a_base_is_merged_once(tmp_path: Path) -> None:
    write_recipe(tmp_path / "base.toml", tone_recipe())
    (tmp_path / "mine.toml").write_text('base = "base.toml"\nseed = 7\n[training]\nsteps = 3\n')
    recipe = read_recipe(tmp_path / "mine.toml")
    assert (recipe.seed, recipe.training.steps) == (7, 3)
    assert recipe.encoder == tone_recipe().encoder
    (tmp_path / "third.toml").write_text('base = "mine.toml"\n')
    with pytest.raises(ConfigError, match="has a base itself"):
        read_recipe(tmp_path / "third.toml")


def test_a_model_without_a_head_is_refused() -> None:
    values = tone_recipe().model_dump()
    values["heads"] = {}
    with pytest.raises(ValueError, match=r"heads is empty: give at least one"):
        Recipe.model_validate(values)


@pytest.mark.parametrize(
    ("there", "mend"),
    [
        (("recipe.toml", "tokenizer/"), "Was the copy interrupted"),
        (("recipe.toml", "tokenizer/", "resume/step-00000001/"), "not reached a first validation"),
        (
            ("recipe.toml", "tokenizer/", "resume/best-00000001/"),
            "writes the model anew from its best weights",
        ),
        (("recipe.toml", "resume/best-00000001/"), "Was the copy interrupted"),
    ],
)
def test_a_folder_without_weights_is_told_what_brings_them_back(
    there: tuple[str, ...], mend: str, tmp_path: Path
) -> None:
    for name in there:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises(CheckpointError) as refused:
        load_model(tmp_path, device="cpu")
    assert mend in refused.value.mend
