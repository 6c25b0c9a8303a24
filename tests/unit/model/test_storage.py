"""Weights in fewer bits: bytes by the formula, errors within half a step, files that explain themselves."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from firstwords.errors import CheckpointError, FirstwordsError
from firstwords.model.checkpoint import load_model, save_model
from firstwords.model.codebook import fit_codebook, nearest, pack_bits, unpack_bits
from firstwords.model.merging import read_parent
from firstwords.model.storage import HEADER_BYTES, KEY, Storage, pack, restored, stored_bytes, unpack
from nonsense_model import make_nonsense_model

KINDS = [
    Storage(kind="fp16"),
    Storage(kind="bf16"),
    Storage(kind="int8"),
    *(Storage(kind="kmeans", bits=bits, rows=5) for bits in range(1, 9)),
    *(Storage(kind="sparse", values=values) for values in ("fp32", "fp16", "bf16")),
]


def ids(storage: Storage) -> str:
    return f"{storage.words} {storage.values if storage.kind == 'sparse' else ''}".strip()


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def best_cost(values: np.ndarray, clusters: int) -> float:
    """The least sum of squares of all ways to cut the sorted values into intervals."""
    ordered = np.sort(values)

    def cost(cuts: tuple[int, ...]) -> float:
        parts = np.split(ordered, list(cuts))
        return sum(float(((part - part.mean()) ** 2).sum()) for part in parts if len(part))

    places = itertools.combinations(range(1, len(ordered)), clusters - 1)
    return min(cost(cuts) for cuts in places)


def plain_lloyd(values: np.ndarray, clusters: int, iterations: int) -> np.ndarray:
    """Textbook k-means, value by value, from evenly spread centroids."""
    centroids = [float(c) for c in np.linspace(values.min(), values.max(), clusters)]
    for _ in range(iterations):
        members: list[list[float]] = [[] for _ in centroids]
        for value in values.tolist():
            members[min(range(clusters), key=lambda k: abs(value - centroids[k]))].append(value)
        centroids = [sum(m) / len(m) if m else c for m, c in zip(members, centroids, strict=True)]
    return np.array(sorted(centroids))


@given(st.integers(1, 8), st.integers(0, 67), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_indices_of_any_width_and_number_come_back(bits: int, count: int, seed: int) -> None:
    indices = np.random.default_rng(seed).integers(0, 2**bits, count).astype(np.uint8)
    packed = pack_bits(indices, bits)
    assert packed.dtype == np.uint8
    assert len(packed) == math.ceil(count * bits / 8)
    # Independent: one large number, the first index in its lowest bits.
    number = sum(int(index) << (bits * place) for place, index in enumerate(indices))
    assert packed.tobytes() == number.to_bytes(len(packed), "little")
    np.testing.assert_array_equal(unpack_bits(packed, bits, count), indices)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("clusters", [2, 4])
def test_a_codebook_is_never_better_than_the_best_and_close_to_it(seed: int, clusters: int) -> None:
    values = np.random.default_rng(seed).normal(size=13).astype(np.float32)
    book = fit_codebook(values, clusters.bit_length() - 1)
    assert len(book) == clusters
    found = float(((values - book[nearest(values, book)].astype(np.float64)) ** 2).sum())
    best = best_cost(values.astype(np.float64), clusters)
    assert found >= best - 1e-9
    # Lloyd's algorithm ends in a local optimum; from evenly spread centroids it is a good one: twice the
    # best at most on these draws, and far below what even spacing alone would give on heavy tails.
    assert found <= 2.0 * best + 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_a_codebook_is_that_of_textbook_k_means(seed: int) -> None:
    values = np.random.default_rng(seed).standard_t(4, size=400).astype(np.float32)
    expected = plain_lloyd(values.astype(np.float64), 8, 30)
    np.testing.assert_allclose(fit_codebook(values, 3).astype(np.float64), expected, rtol=1e-3, atol=1e-4)


def test_a_codebook_can_be_compared_with_scipy() -> None:
    vq = pytest.importorskip("scipy.cluster.vq")
    values = np.random.default_rng(3).normal(size=2000).astype(np.float32)
    start = np.linspace(values.min(), values.max(), 16)
    theirs, _ = vq.kmeans2(values.astype(np.float64), start, iter=30, minit="matrix")
    np.testing.assert_allclose(fit_codebook(values, 4).astype(np.float64), np.sort(theirs), atol=2e-3)


def test_few_values_are_kept_exactly() -> None:
    values = np.array([0.5, -1.0, 0.5, 0.25], dtype=np.float32)
    book = fit_codebook(values, 2)
    np.testing.assert_array_equal(book, np.array([-1.0, 0.25, 0.5, 0.5], dtype=np.float16))
    np.testing.assert_array_equal(book[nearest(values, book)], values.astype(np.float16))
    # what centroids have learned: close to each other, and no 16-bit floats
    learned = np.float32([0.1, 0.1003, 0.1007, 3.0])[[0, 1, 2, 3, 3, 1]]
    book = fit_codebook(learned, 2)
    np.testing.assert_array_equal(book[nearest(learned, book)], learned.astype(np.float16))


@pytest.mark.parametrize("shape", [(7, 12), (2, 3), (16, 1, 9), (6, 2, 3, 3)])
def test_int8_errs_by_half_a_step_of_its_row_at_most(shape: tuple[int, ...]) -> None:
    w = weight(*shape) * torch.logspace(-3, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))
    w[0, 1:] = 0.0
    found = restored({"w": w}, {"w": Storage(kind="int8")})["w"]
    step = w.flatten(1).abs().amax(dim=1) / 127
    error = (found - w).flatten(1).abs().amax(dim=1)
    assert (error <= step / 2 * (1 + 1e-5)).all()
    assert (found[0, 1:] == 0).all()
    assert error.max() > 0  # something was rounded


def test_fewer_bits_err_more_and_row_groups_are_apart() -> None:
    w = torch.cat([weight(8, 30), 100 * weight(8, 30, seed=1)])

    def error(**how: int) -> float:
        found = restored({"w": w}, {"w": Storage(kind="kmeans", **how)})["w"]
        return float(((found - w)[:8] ** 2).mean())

    errors = [error(bits=bits, rows=8) for bits in range(2, 9)]
    assert errors == sorted(errors, reverse=True)
    assert (
        error(bits=4, rows=8) < 0.05 < error(bits=4, rows=16)
    )  # together, the large rows take all centroids


@pytest.mark.parametrize("storage", KINDS, ids=ids)
@pytest.mark.parametrize("shape", [(12, 7), (3, 1, 5), (1, 1)])
def test_what_was_packed_comes_back_and_takes_the_bytes_of_the_formula(
    storage: Storage, shape: tuple[int, ...]
) -> None:
    w = weight(*shape)
    if storage.kind == "sparse":
        w[w.abs() < 0.5] = 0.0
    tensors, metadata = pack({"w": w, "n": torch.tensor(3)}, {"w": storage})
    used = sum(t.numel() * t.element_size() for name, t in tensors.items() if name != "n")
    nonzero = int((w != 0).sum())
    assert used == stored_bytes(shape, storage, nonzero=nonzero)
    state = unpack(tensors, metadata, source="here")
    assert set(state) == {"w", "n"}
    assert state["w"].dtype is torch.float32
    assert state["w"].shape == w.shape
    again = restored(state, {"w": storage})["w"]  # nothing is lost a second time
    torch.testing.assert_close(again, state["w"], rtol=3e-7 if storage.kind == "int8" else 0, atol=0)
    if storage.kind == "sparse":
        rounded = w.to({"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[storage.values])
        torch.testing.assert_close(state["w"], rounded.float(), rtol=0, atol=0)


def test_formula_by_hand() -> None:
    """10 x 7 weights: 70 indices of 3 bits in 27 bytes and 3 codebooks of 8 halves; a bitmap of 9 bytes."""
    assert stored_bytes((10, 7), Storage(kind="kmeans", bits=3, rows=4)) == 27 + 3 * 8 * 2
    assert stored_bytes((10, 7), Storage(kind="int8")) == 70 + 40
    assert stored_bytes((10, 7), Storage(kind="sparse"), nonzero=5) == 9 + 10
    assert stored_bytes((10, 7), Storage(kind="fp16")) == 140
    assert stored_bytes((), Storage(kind="fp32")) == 4


def test_a_file_has_the_bytes_of_the_formula_and_its_header(tmp_path: Path) -> None:
    state = {f"encoder.layers.{n}.feed_in.weight": weight(32, 48, seed=n) for n in range(20)}
    for storage in KINDS:
        tensors, metadata = pack(state, dict.fromkeys(state, storage))
        save_file(tensors, tmp_path / "w.safetensors", metadata=metadata)
        size = (tmp_path / "w.safetensors").stat().st_size
        least = sum(stored_bytes(w.shape, storage) for w in state.values())
        assert least < size <= least + HEADER_BYTES * len(tensors), storage


@pytest.mark.parametrize(
    ("tensor", "storage", "said"),
    [
        (torch.tensor([[1e5]]), Storage(kind="fp16"), "more than fp16 can hold"),
        (torch.tensor([[1e5]]), Storage(kind="kmeans"), "more than fp16 can hold"),
        (torch.tensor([[float("nan")]]), Storage(kind="int8"), "no numbers"),
        (torch.ones(3), Storage(kind="int8"), "has no rows"),
        (torch.ones(0, 3), Storage(kind="kmeans"), "has no rows"),
    ],
)
def test_what_cannot_be_kept_is_refused(tensor: Tensor, storage: Storage, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        pack({"w": tensor}, {"w": storage})


# --- model folders ----------------------------------------------------------------------------------------


def choices(folder: Path) -> dict[str, Storage]:
    """All kinds, one after the other."""
    state = load_model(folder, device="cpu").model.state_dict()
    matrices = [name for name, tensor in state.items() if tensor.ndim >= 2]
    fit = [k for k in KINDS if k.kind != "sparse" or k.values == "fp32"]
    found = {name: fit[place % len(fit)] for place, name in enumerate(matrices)}
    return found | {n: Storage(kind="fp16") for n, t in state.items() if t.ndim == 1 and t.abs().max() < 1e3}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("packed")
    loaded = load_model(make_nonsense_model(home / "large"), device="cpu")
    kept = choices(home / "large")
    scales = {"encoder.a": 0.25}
    save_model(
        home / "small", loaded.model, loaded.tokenizer, card="# small", storage=kept, input_scales=scales
    )
    return home / "small"


def test_a_folder_in_fewer_bits_loads_like_any_other(packed: Path) -> None:
    small = load_model(packed, device="cpu", check=True)  # its clip is that of the weights as they are kept
    large = load_model(packed.parent / "large", device="cpu")
    assert dict(small.storage) == {
        n: s for n, s in choices(packed.parent / "large").items() if s.kind != "fp32"
    }
    assert small.input_scales == {"encoder.a": 0.25}
    assert large.storage == {}
    expected = restored(large.model.state_dict(), small.storage)
    for name, tensor in small.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    ratio = (packed / "model.safetensors").stat().st_size / (
        packed.parent / "large" / "model.safetensors"
    ).stat().st_size
    assert ratio < 0.75


def test_saving_leaves_the_model_as_it_was(packed: Path, tmp_path: Path) -> None:
    loaded = load_model(packed.parent / "large", device="cpu")
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    save_model(
        tmp_path / "m", loaded.model, loaded.tokenizer, card="", storage=choices(packed.parent / "large")
    )
    for name, value in loaded.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_models_in_fewer_bits_are_not_merged(packed: Path) -> None:
    with pytest.raises(CheckpointError, match="fewer bits"):
        read_parent(packed)


def damaged(packed: Path, folder: Path, change: str) -> Path:
    """A copy whose weights lie about themselves in one way."""
    shutil.copytree(packed, folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    record = json.loads(metadata[KEY])
    scheme = {s["kind"] + str(s.get("bits", "")): n for n, s in enumerate(record["schemes"])}
    names = {
        kind: next(n for n, (s, _) in record["tensors"].items() if s == place)
        for kind, place in scheme.items()
    }
    text: str | None = ""
    match change:
        case "no json":
            text = "{"
        case "a list":
            text = "[]"
        case "another format":
            record["format"] = 2
        case "an unknown kind":
            record["schemes"][scheme["int8"]]["kind"] = "int7"
        case "no such scheme":
            record["tensors"][names["int8"]][0] = 99
        case "a negative scheme":
            record["tensors"][names["int8"]][0] = -1
        case "a huge shape":
            record["tensors"][names["kmeans4"]][1] = [2**40, 2**20]
        case "a flat shape":
            record["tensors"][names["kmeans4"]][1] = []
        case "another shape":
            record["tensors"][names["kmeans4"]][1].reverse()
        case "huge row groups":
            record["schemes"][scheme["kmeans4"]]["rows"] = 10**15
        case "other bits":
            record["schemes"][scheme["kmeans4"]]["bits"] = 5
        case "a missing part":
            del tensors[names["int8"] + "@scale"]
        case "a missing tensor":
            del tensors[names["kmeans4"]]
        case "a cut tensor":
            tensors[names["kmeans4"]] = tensors[names["kmeans4"]][:-1]
        case "no numbers":
            tensors[names["kmeans4"] + "@codebooks"][0, 0] = float("nan")
        case "a cut bitmap":
            tensors[names["sparse"] + "@mask"][0] ^= 1
        case "another number format":
            tensors[names["int8"]] = tensors[names["int8"]].short()
        case "no table":
            text = None
        case _:
            raise AssertionError(change)
    metadata.pop(KEY)
    if text is not None:
        metadata[KEY] = text or json.dumps(record)
    save_file(tensors, path, metadata=metadata)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        *("no json", "a list", "another format", "an unknown kind", "no such scheme", "a negative scheme"),
        *("a huge shape", "a flat shape", "another shape", "huge row groups", "other bits", "a missing part"),
        *("a missing tensor", "a cut tensor", "no numbers", "a cut bitmap", "another number format"),
        "no table",
    ],
)
def test_a_file_that_lies_about_itself_is_named(packed: Path, tmp_path: Path, change: str) -> None:
    folder = damaged(packed, tmp_path / "m", change)
    with pytest.raises(CheckpointError) as error:
        load_model(folder, device="cpu")
    assert "model.safetensors" in error.value.what
    assert error.value.mend


def test_a_truncated_file_is_named(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    content = path.read_bytes()
    for size in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(FirstwordsError, match="safetensors"):
            load_model(tmp_path / "m", device="cpu")


@pytest.mark.parametrize("text", ["[]", "{", '{"a": -1}', '{"a": "x"}', '{"a": NaN}'])
def test_wrong_input_scales_are_named(packed: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(packed, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    save_file(tensors, path, metadata=metadata | {"input_scales": text})
    with pytest.raises(CheckpointError, match="scales of inputs"):
        load_model(tmp_path / "m", device="cpu")
