"""Bundles that read tones by their frequency (tone_corpus.py): graphs made by hand, nothing is trained.

Letters alone are read, no spaces; the transducer never writes one letter twice in a row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tone_corpus import LETTERS, RATE, TONES

PIECES = ("<blk>", "▁", *LETTERS)
V = len(PIECES)
MELS = len(LETTERS)
WINDOW, SHIFT, SUBSAMPLING = 400, 160, 4
CHUNK, MARGIN = 32, 13
LAYERS = 1
_F, _I = TensorProto.FLOAT, TensorProto.INT64

ENCODER_KEYS: Mapping[str, str] = {
    "model_type": "zipformer2",
    "encoder_dims": "8",
    "query_head_dims": "4",
    "value_head_dims": "4",
    "num_heads": "2",
    "num_encoder_layers": str(LAYERS),
    "cnn_module_kernels": "7",
    "left_context_len": "16",
    "T": str(CHUNK + MARGIN),
    "decode_chunk_len": str(CHUNK),
}
STATES: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("cached_key_0", (16, 1, 8), "float32"),
    ("cached_nonlin_attn_0", (1, 1, 16, 6), "float32"),
    ("cached_val1_0", (16, 1, 8), "float32"),
    ("cached_val2_0", (16, 1, 8), "float32"),
    ("cached_conv1_0", (1, 8, 3), "float32"),
    ("cached_conv2_0", (1, 8, 3), "float32"),
    ("embed_states", (1, 1, 1, V), "float32"),
    ("processed_lens", (1,), "int64"),
)


class _Graph:
    """Nodes and weights put together one after the other."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def const(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def add(self, op: str, inputs: list[str], out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def ints(self, name: str, *values: int) -> str:
        return self.const(name, np.array(values, np.int64))

    def number(self, name: str, value: float, kind: type = np.float32) -> str:
        return self.const(name, np.array(value, kind))

    def save(self, path: Path, inputs: list[Any], outputs: list[Any], metadata: Mapping[str, str]) -> None:
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


def port(name: str, kind: int, *shape: int | str) -> Any:
    """An input or output; texts are axes that are not fixed."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def _features(path: Path) -> None:
    """The log power at each tone's frequency, in windows of 25 ms each 10 ms, centred as Kaldi does."""
    time = np.arange(WINDOW) / RATE
    waves = [
        wave(2 * np.pi * pitch * factor * time) * np.hanning(WINDOW) / WINDOW
        for pitch in TONES.values()
        for factor in (0.975, 1.0, 1.025)
        for wave in (np.cos, np.sin)
    ]
    g = _Graph()
    axis = g.ints("axis1", 1)
    g.add("Unsqueeze", ["samples", axis], "one")
    kernels = g.const("kernels", np.array(waves, np.float32)[:, None, :])
    g.add("Conv", ["one", kernels], "waves", strides=[SHIFT], pads=[120, 200])
    g.add("Mul", ["waves", "waves"], "squares")
    groups = np.kron(np.eye(MELS), np.ones((1, 6)))[:, :, None].astype(np.float32)
    g.add("Conv", ["squares", g.const("groups", groups)], "power")
    g.add("Add", ["power", g.number("least", 1e-10)], "more")
    g.add("Log", ["more"], "logs")
    g.add("Transpose", ["logs"], "x", perm=[0, 2, 1])
    g.add("Add", ["sample_lens", g.number("half", SHIFT // 2, np.int64)], "longer")
    g.add("Div", ["longer", g.number("shift", SHIFT, np.int64)], "x_lens")
    g.save(
        path,
        [port("samples", _F, "N", "S"), port("sample_lens", _I, "N")],
        [port("x", _F, "N", "T", MELS), port("x_lens", _I, "N")],
        {},
    )


def _log_probs(g: _Graph, x: str, out: str, *, pad: bool) -> str:
    """Frames (N, T, mels) -> (N, T / 4, V): letters by power, blank where no tone is loud."""
    g.add("Transpose", [x], "turned", perm=[0, 2, 1])
    source = "turned"
    if pad:
        rest = g.ints("rest", 0, 0, 0, 0, 0, SUBSAMPLING - 1)
        source = g.add("Pad", ["turned", rest, g.number("quiet", -23.0)], "filled")
    g.add("AveragePool", [source], "pooled", kernel_shape=[SUBSAMPLING], strides=[SUBSAMPLING])
    g.add("Transpose", ["pooled"], "frames", perm=[0, 2, 1])
    table = np.zeros((MELS, V), np.float32)
    table[np.arange(MELS), 2 + np.arange(MELS)] = 3.0
    g.add("MatMul", ["frames", g.const("table", table)], "weighted")
    bias = np.array([-2.0, -60.0] + [3.0 * 9.0] * MELS, np.float32)
    g.add("Add", ["weighted", g.const("bias", bias)], "logits")
    return g.add("LogSoftmax", ["logits"], out, axis=-1)


def _lengths(g: _Graph, out: str) -> None:
    g.add("Add", ["x_lens", g.number("three", SUBSAMPLING - 1, np.int64)], "up")
    g.add("Div", ["up", g.number("four", SUBSAMPLING, np.int64)], out)


def _offline(path: Path, out: str, lens: str, metadata: Mapping[str, str]) -> None:
    g = _Graph()
    _log_probs(g, "x", out, pad=True)
    _lengths(g, lens)
    g.save(
        path,
        [port("x", _F, "N", "T", MELS), port("x_lens", _I, "N")],
        [port(out, _F, "N", "U", V), port(lens, _I, "N")],
        metadata,
    )


def _streaming(path: Path, out: str, metadata: Mapping[str, str]) -> None:
    """The frames come one late: the last of each step is handed on in ``embed_states``."""
    g = _Graph()
    g.add("Slice", ["x", g.ints("from", 0), g.ints("to", CHUNK), g.ints("along", 1)], "part")
    _log_probs(g, "part", "read", pad=False)
    g.add("Squeeze", ["embed_states", g.ints("axis2", 2)], "held")
    g.add("Concat", ["held", "read"], "joined", axis=1)
    g.add("Slice", ["joined", g.ints("first", 0), g.ints("minus", -1), g.ints("time", 1)], out)
    g.add("Slice", ["joined", g.ints("before", -1), g.ints("end", 1 << 30), g.ints("time2", 1)], "late")
    g.add("Unsqueeze", ["late", g.ints("axis22", 2)], "new_embed_states")
    g.add("Add", ["processed_lens", g.number("chunk", CHUNK // 2, np.int64)], "new_processed_lens")
    inputs, outputs = [], []
    for name, shape, kind in STATES:
        batch = 0 if name in ("embed_states", "processed_lens") or "conv" in name else 1
        axes = ["N" if i == batch else size for i, size in enumerate(shape)]
        number = _F if kind == "float32" else _I
        inputs.append(port(name, number, *axes))
        outputs.append(port(f"new_{name}", number, *axes))
        if name not in ("embed_states", "processed_lens"):
            g.add("Identity", [name], f"new_{name}")
    g.save(
        path,
        [port("x", _F, "N", CHUNK + MARGIN, MELS), *inputs],
        [port(out, _F, "N", CHUNK // SUBSAMPLING, V), *outputs],
        metadata,
    )


def _decoder(path: Path) -> None:
    """The last token is not written again."""
    g = _Graph()
    g.add("Slice", ["y", g.ints("from", -1), g.ints("to", 1 << 30), g.ints("along", 1)], "last")
    g.add("Clip", ["last", g.number("zero", 0, np.int64)], "known")
    table = np.zeros((V, V), np.float32)
    table[np.arange(1, V), np.arange(1, V)] = -60.0
    g.add("Gather", [g.const("table", table), "known"], "rows", axis=0)
    g.add("Squeeze", ["rows", g.ints("axis1", 1)], "decoder_out")
    g.save(
        path,
        [port("y", _I, "N", 2)],
        [port("decoder_out", _F, "N", V)],
        {"vocab_size": str(V), "context_size": "2"},
    )


def _joiner(path: Path) -> None:
    g = _Graph()
    g.add("Add", ["encoder_out", "decoder_out"], "logit")
    ports = [port("encoder_out", _F, "N", V), port("decoder_out", _F, "N", V)]
    g.save(path, ports, [port("logit", _F, "N", V)], {"joiner_dim": str(V)})


def make_tone_bundle(folder: Path, kind: str = "ctc", *, streaming: bool = False) -> Path:
    """Write a bundle -> its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _features(folder / "features.onnx")
    metadata = dict(ENCODER_KEYS) if streaming else {"model_type": "zipformer2_ctc", "version": "1"}
    if kind == "ctc":
        graphs = {"model": "model.onnx"}
        if streaming:
            _streaming(folder / "model.onnx", "log_probs", metadata)
        else:
            _offline(folder / "model.onnx", "log_probs", "log_probs_len", metadata)
    else:
        graphs = {part: f"{part}.onnx" for part in ("encoder", "decoder", "joiner")}
        metadata["model_type"] = "zipformer2"
        if streaming:
            _streaming(folder / "encoder.onnx", "encoder_out", metadata)
        else:
            _offline(folder / "encoder.onnx", "encoder_out", "encoder_out_lens", metadata)
        _decoder(folder / "decoder.onnx")
        _joiner(folder / "joiner.onnx")
    lines = [f"{piece} {i}\n" if piece != "▁" else f"▁ {i}\n" for i, piece in enumerate(PIECES)]
    (folder / "tokens.txt").write_bytes("".join(lines).encode())
    facts: dict[str, Any] = {
        "format": 1,
        "kind": kind,
        "streaming": streaming,
        "name": "tones",
        "language": "und",
        "sample_rate": RATE,
        "mels": MELS,
        "subsampling": SUBSAMPLING,
        "frame_shift_ms": 10.0,
        "vocabulary": V,
        "blank": 0,
        "normalizer": "default",
        "variants": {"fp32": graphs},
        "firstwords": "0.1.0",
    }
    if kind == "transducer":
        facts["context_size"] = 2
    if streaming:
        facts["chunk"] = {"frames": CHUNK + MARGIN, "shift": CHUNK}
        facts["states"] = [{"name": n, "shape": list(s), "dtype": d} for n, s, d in STATES]
    write_facts(folder, facts)
    return folder


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """bundle.json with the true sizes and sums of the files that lie there."""
    files = [path for path in sorted(folder.iterdir()) if path.name != "bundle.json"]
    facts["files"] = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in files
    }
    (folder / "bundle.json").write_text(json.dumps(facts), encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """bundle.json as it stands there."""
    return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
