"""Bundles with something wrong: each is named before an engine sees it, in words, with exit code 1."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from firstwords.audio.waveform import write
from firstwords.errors import CheckpointError, FirstwordsError
from firstwords.export import check_bundle as checking
from firstwords.export.check_bundle import check_bundle
from firstwords.export.onnx_file import parse_onnx
from firstwords.export.runtime import Runtime
from robustness.commands import firstwords
from tone_bundle import make_tone_bundle, port, read_facts, write_facts
from tone_corpus import RATE, sing

Damage = Callable[[Path], None]


def resealed(change: Damage) -> Damage:
    """The damage with sizes and sums made to fit: as if the bundle had been written so."""

    def do(folder: Path) -> None:
        change(folder)
        write_facts(folder, read_facts(folder))

    return do


def facts(**changes: Any) -> Damage:
    """Other facts in bundle.json; None takes one out."""

    def do(folder: Path) -> None:
        values = read_facts(folder) | changes
        (folder / "bundle.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    return do


def edited(name: str, change: Callable[[bytes], bytes]) -> Damage:
    def do(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return do


def graph(name: str, change: Callable[[Any], None]) -> Damage:
    """A graph changed by the onnx package, resealed."""

    def do(folder: Path) -> None:
        model = onnx.load(folder / name)
        change(model)
        (folder / name).write_bytes(model.SerializeToString())

    return resealed(do)


def without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def no_metadata(key: str) -> Callable[[Any], None]:
    def do(model: Any) -> None:
        kept = [p for p in model.metadata_props if p.key != key]
        assert len(kept) < len(model.metadata_props)
        del model.metadata_props[:]
        model.metadata_props.extend(kept)

    return do


def metadata(**values: str) -> Callable[[Any], None]:
    def do(model: Any) -> None:
        for entry in model.metadata_props:
            entry.value = values.get(entry.key, entry.value)

    return do


def outside(model: Any, location: str = "../../secret.bin") -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.append(onnx.StringStringEntryProto(key="location", value=location))


def outside_in_a_node(model: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    node = helper.make_node("Constant", [], ["unused"], value=tensor)
    inner = node.attribute[0].t
    inner.ClearField("raw_data")
    inner.data_location = TensorProto.EXTERNAL
    inner.external_data.append(onnx.StringStringEntryProto(key="location", value="/etc/passwd"))
    model.graph.node.append(node)


def of_rank_two(model: Any) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[2]


def of_39_frames(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 39


def of_doubles(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def short_lengths(model: Any) -> None:
    """Lengths of 32 bits, where the front end gives 64."""
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT32


def open_vocabulary(model: Any) -> None:
    axis = model.graph.output[0].type.tensor_type.shape.dim[2]
    axis.Clear()
    axis.dim_param = "V"


def one_more_output(model: Any) -> None:
    model.graph.node.append(helper.make_node("Identity", ["decoder_out"], ["more"]))
    model.graph.output.append(port("more", TensorProto.FLOAT, "N", 7))


def absurd_shape(model: Any) -> None:
    weight = model.graph.initializer[0]
    weight.dims[:] = [1 << 40, 1 << 40]


def negative_shape(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [-4]


def swapped_states(model: Any) -> None:
    first, second = model.graph.input[1].name, model.graph.input[2].name
    model.graph.input[1].name, model.graph.input[2].name = second, first


def flip(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


_HEAD = b"\x08\x09\x42\x02\x10\x11"  # IR version 9, operator set 17


def nested(content: bytes) -> bytes:
    """A graph within a node within a graph, some hundreds deep."""
    inner = b""
    for _ in range(300):
        attribute = b"\x32" + _size(inner) + inner  # AttributeProto.g
        node = b"\x2a" + _size(attribute) + attribute  # NodeProto.attribute
        inner = b"\x0a" + _size(node) + node  # GraphProto.node
    return _HEAD + b"\x3a" + _size(inner) + inner


def two_graphs(content: bytes) -> bytes:
    """A second graph, which protocol buffers put together with the first: a weight that lies outside."""
    model = onnx.ModelProto()
    weight = model.graph.initializer.add(name="more", data_type=TensorProto.FLOAT, dims=[2])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString() + content


def outside_in_a_function(model: Any) -> None:
    """As the default of an attribute."""
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    default = helper.make_attribute("value", tensor)
    default.t.ClearField("raw_data")
    default.t.data_location = TensorProto.EXTERNAL
    default.t.external_data.add(key="location", value="/etc/passwd")
    model.functions.add(name="f", domain="d").attribute_proto.append(default)


def _size(content: bytes) -> bytes:
    found, value = bytearray(), len(content)
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


OFFLINE, STREAMING = ("ctc", False), ("ctc", True)
PAIR, STREAMING_PAIR = ("transducer", False), ("transducer", True)
KEYS = ("encoder_dims", "query_head_dims", "value_head_dims", "num_heads", "num_encoder_layers",
        "cnn_module_kernels", "left_context_len", "T", "decode_chunk_len")  # fmt: skip

CASES: dict[str, tuple[tuple[str, bool], Damage, str]] = {
    "no bundle.json": (OFFLINE, without("bundle.json"), "bundle.json is missing"),
    "bundle.json cut off": (OFFLINE, edited("bundle.json", lambda b: b[:-40]), "not JSON"),
    "bundle.json a list": (OFFLINE, edited("bundle.json", lambda b: b"[1]"), "no JSON object"),
    "bundle.json nested deep": (OFFLINE, edited("bundle.json", lambda b: b"[" * 99999), "not JSON"),
    "bundle.json of bytes": (OFFLINE, edited("bundle.json", lambda b: b"\xff\xfe" + b), "not JSON"),
    "bundle.json of gigabytes": (
        OFFLINE,
        edited("bundle.json", lambda b: b + b" " * (5 << 20)),
        "believable",
    ),
    "format 2": (OFFLINE, facts(format=2), "format is 2"),
    "unknown kind": (OFFLINE, facts(kind="attention"), "kind"),
    "vocabulary of text": (OFFLINE, facts(vocabulary="7"), "vocabulary"),
    "no sample rate": (OFFLINE, facts(sample_rate=None), "sample_rate"),
    "blank elsewhere": (OFFLINE, facts(blank=3), "blank"),
    "no variants": (OFFLINE, facts(variants={}), "variants"),
    "variant without a graph": (PAIR, facts(variants={"fp32": {"encoder": "encoder.onnx"}}), "decoder"),
    "no context": (PAIR, facts(context_size=None), "context_size"),
    "no chunk": (STREAMING, facts(chunk=None), "chunk"),
    "chunk that goes too far": (STREAMING, facts(chunk={"frames": 8, "shift": 32}), "chunk.shift"),
    "state of terabytes": (
        STREAMING,
        facts(states=[{"name": "s", "shape": [1 << 30, 1 << 30], "dtype": "float32"}]),
        "state 's'",
    ),
    "states of gigabytes": (
        STREAMING,
        facts(states=[{"name": f"s{i}", "shape": [1 << 20], "dtype": "float32"} for i in range(65)]),
        "the states have",
    ),
    "chunk between frames": (STREAMING, facts(chunk={"frames": 45, "shift": 30}), "no multiple of"),
    "frames between samples": (OFFLINE, facts(frame_shift_ms=10.03), "no whole number of samples"),
    "frames of no sample": (OFFLINE, facts(frame_shift_ms=0.03), "no whole number of samples"),
    "state twice": (
        STREAMING,
        facts(states=[{"name": "s", "shape": [1], "dtype": "float32"}] * 2),
        "stands twice",
    ),
    "file of another folder": (OFFLINE, facts(variants={"fp32": {"model": "../x.onnx"}}), "lie beside it"),
    "absolute file": (OFFLINE, facts(variants={"fp32": {"model": "/etc/passwd"}}), "lie beside it"),
    "gate that is no share": (OFFLINE, facts(speech_gate={"threshold": 1.5}), "speech_gate.threshold"),
    "gate that is no number": (OFFLINE, facts(speech_gate={"threshold": "0.5"}), "speech_gate.threshold"),
    "words of a gate in one text": (OFFLINE, facts(speech_gate={"words": "one two"}), "speech_gate.words"),
    "no sums": (OFFLINE, facts(files={}), "SHA-256"),
    "model missing": (OFFLINE, without("model.onnx"), "model.onnx is missing"),
    "front end missing": (OFFLINE, without("features.onnx"), "features.onnx is missing"),
    "tokens missing": (OFFLINE, without("tokens.txt"), "tokens.txt is missing"),
    "joiner missing": (PAIR, without("joiner.onnx"), "joiner.onnx is missing"),
    "model cut off": (OFFLINE, edited("model.onnx", lambda b: b[: len(b) // 2]), "cut off"),
    "model longer": (OFFLINE, edited("model.onnx", lambda b: b + b"\0"), "another file"),
    "bit flipped": (OFFLINE, edited("model.onnx", flip), "SHA-256"),
    "another model": (OFFLINE, edited("tokens.txt", lambda b: b[::-1]), "SHA-256"),
    "cut off and resealed": (
        OFFLINE,
        resealed(edited("model.onnx", lambda b: b[: len(b) // 2])),
        "no whole ONNX file",
    ),
    "empty": (OFFLINE, resealed(edited("model.onnx", lambda b: b"")), "it is empty"),
    "a text": (
        OFFLINE,
        resealed(edited("model.onnx", lambda b: b"version https://git-lfs")),
        "no whole ONNX",
    ),
    "zeros": (OFFLINE, resealed(edited("model.onnx", lambda b: bytes(200))), "no whole ONNX"),
    "graphs in graphs": (OFFLINE, resealed(edited("model.onnx", nested)), "deep in each other"),
    "no graph": (OFFLINE, resealed(edited("model.onnx", lambda b: b"\x08\x09")), "no graph"),
    "weights outside": (OFFLINE, graph("model.onnx", outside), "'../../secret.bin'"),
    "weights beside": (OFFLINE, graph("model.onnx", lambda m: outside(m, "w.bin")), "another file"),
    "weights outside, in a node": (OFFLINE, graph("model.onnx", outside_in_a_node), "/etc/passwd"),
    "weights outside, in a function": (OFFLINE, graph("model.onnx", outside_in_a_function), "/etc/passwd"),
    "two graphs": (OFFLINE, resealed(edited("model.onnx", two_graphs)), "the graph stands twice"),
    "absurd shape": (OFFLINE, graph("model.onnx", absurd_shape), "has the shape"),
    "negative shape": (OFFLINE, graph("model.onnx", negative_shape), "has the shape"),
    "newer IR": (OFFLINE, graph("model.onnx", lambda m: setattr(m, "ir_version", 14)), "IR version 14"),
    "newer operators": (
        OFFLINE,
        graph("model.onnx", lambda m: setattr(m.opset_import[0], "version", 99)),
        "operator set",
    ),
    "input of two axes": (OFFLINE, graph("model.onnx", of_rank_two), "must have 3 axes"),
    "input of doubles": (OFFLINE, graph("model.onnx", of_doubles), "must be float32"),
    "lengths of 32 bits": (OFFLINE, graph("model.onnx", short_lengths), "must be int64"),
    "lengths of 32 bits, transducer": (PAIR, graph("encoder.onnx", short_lengths), "must be int64"),
    "open vocabulary": (OFFLINE, graph("model.onnx", open_vocabulary), "fixed to 7"),
    "other vocabulary": (OFFLINE, facts(vocabulary=6), "fixed to 6"),
    "no lengths": (OFFLINE, graph("model.onnx", lambda m: m.graph.input.pop()), "must be 2"),
    "front end of three axes": (
        OFFLINE,
        graph("features.onnx", lambda m: m.graph.input[0].type.tensor_type.shape.dim.add()),
        "must have 2 axes",
    ),
    "other mels": (PAIR, facts(mels=80), "80"),
    "another type of encoder": (PAIR, graph("encoder.onnx", metadata(model_type="paraformer")), "model_type"),
    "no type of encoder": (
        STREAMING_PAIR,
        graph("encoder.onnx", no_metadata("model_type")),
        "model_type",
    ),
    "no vocab_size": (PAIR, graph("decoder.onnx", no_metadata("vocab_size")), "'vocab_size'"),
    "other vocab_size": (PAIR, graph("decoder.onnx", metadata(vocab_size="9")), "'vocab_size' is 9"),
    "no context_size": (PAIR, graph("decoder.onnx", no_metadata("context_size")), "'context_size'"),
    "context_size of text": (PAIR, graph("decoder.onnx", metadata(context_size="two")), "'two'"),
    "decoder with two outputs": (PAIR, graph("decoder.onnx", one_more_output), "must be 1"),
    "list of one more": (STREAMING, graph("model.onnx", metadata(num_heads="4,4")), "different lengths"),
    **{
        f"another {key}": (STREAMING, graph("model.onnx", metadata(**{key: value})), told)
        for key, value, told in (
            ("encoder_dims", "16", "makes the state 'cached_nonlin_attn_0' (1, 1, 16, 12), and the graph"),
            ("query_head_dims", "8", "'cached_key_0' (16, 1, 16), and the graph takes (16, 1, 8)"),
            ("value_head_dims", "2", "'cached_val1_0' (16, 1, 4), and the graph takes (16, 1, 8)"),
            ("num_heads", "4", "'cached_key_0' (16, 1, 16), and the graph takes (16, 1, 8)"),
            ("cnn_module_kernels", "9", "'cached_conv1_0' (1, 8, 4), and the graph takes (1, 8, 3)"),
            ("left_context_len", "32", "'cached_key_0' (32, 1, 8), and the graph takes (16, 1, 8)"),
            ("num_encoder_layers", "2", "8 states where 2 layers have 14"),
        )
    },
    "window of the graph": (STREAMING, graph("model.onnx", of_39_frames), "input 0 takes 39 frames"),
    "negative list": (STREAMING, graph("model.onnx", metadata(encoder_dims="-8")), "'encoder_dims'"),
    "other chunk": (STREAMING, graph("model.onnx", metadata(decode_chunk_len="16")), "is 16"),
    "other window": (STREAMING, graph("model.onnx", metadata(T="39")), "is 39"),
    "states in another order": (STREAMING, graph("model.onnx", swapped_states), "in this order"),
    "a state less": (STREAMING, graph("model.onnx", lambda m: m.graph.input.pop()), "in this order"),
    "byte-order mark": (
        OFFLINE,
        resealed(edited("tokens.txt", lambda b: b"\xef\xbb\xbf" + b)),
        "byte-order mark",
    ),
    "token missing": (
        OFFLINE,
        resealed(edited("tokens.txt", lambda b: b.replace(b"e 3\n", b""))),
        "id 3 is missing",
    ),
    "id twice": (OFFLINE, resealed(edited("tokens.txt", lambda b: b + b"x 3\n")), "the id 3 stands twice"),
    "piece twice": (
        OFFLINE,
        resealed(edited("tokens.txt", lambda b: b.replace(b"e 3", b"a 3"))),
        "'a' stands twice",
    ),
    "no blank": (
        OFFLINE,
        resealed(edited("tokens.txt", lambda b: b.replace(b"<blk>", b"<bl>"))),
        "not the blank",
    ),
    "space in a piece": (
        OFFLINE,
        resealed(edited("tokens.txt", lambda b: b.replace(b"e 3", b"e e 3"))),
        "not 'piece id'",
    ),
    "no id": (OFFLINE, resealed(edited("tokens.txt", lambda b: b.replace(b"e 3", b"e x"))), "not 'piece id'"),
    "tokens of latin-1": (
        OFFLINE,
        resealed(edited("tokens.txt", lambda b: b.replace(b"e 3", b"\xe9 3"))),
        "not UTF-8",
    ),
    "taken for byte-level BPE": (
        OFFLINE,
        resealed(
            edited("tokens.txt", lambda b: b.replace("▁ 1".encode(), b" 1").replace(b"e", "ƙ".encode()))
        ),
        "byte-level BPE",
    ),
    **{f"no {key}": (STREAMING, graph("model.onnx", no_metadata(key)), f"no '{key}'") for key in KEYS},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    home = tmp_path_factory.mktemp("bundles")
    kinds = (OFFLINE, STREAMING, PAIR, STREAMING_PAIR)
    return {
        kind: make_tone_bundle(home / f"{kind[0]}{kind[1]}", kind[0], streaming=kind[1]) for kind in kinds
    }


@pytest.mark.parametrize("name", CASES)
def test_damage_is_named_before_an_engine_sees_it(
    name: str, whole: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    kind, damage, told = CASES[name]
    folder = tmp_path / "bundle"
    shutil.copytree(whole[kind], folder)
    check_bundle(folder)
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        check_bundle(folder)
    assert told in caught.value.what
    assert caught.value.mend
    with pytest.raises(CheckpointError):
        Runtime.load(folder)


@pytest.mark.parametrize("name", ["bit flipped", "model missing", "format 2", "byte-order mark"])
def test_the_commands_say_it_in_words(name: str, whole: dict[tuple[str, bool], Path], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    kind, damage, told = CASES[name]
    shutil.copytree(whole[kind], folder)
    damage(folder)
    write(tmp_path / "a.wav", sing("aei", np.random.default_rng(0)), RATE)
    for command in (("transcribe", folder, tmp_path / "a.wav"), ("info", folder)):
        said = firstwords(*command)
        assert said.code == 1
        assert told in said.err


def test_what_was_checked_is_what_runs(whole: dict[tuple[str, bool], Path], tmp_path: Path) -> None:
    """A file that is exchanged between the check and the engine changes nothing."""
    folder = tmp_path / "bundle"
    shutil.copytree(whole[OFFLINE], folder)
    bundle = check_bundle(folder)
    for path in folder.glob("*.onnx"):
        path.write_bytes(b"something else")
    runtime = Runtime(bundle)
    assert runtime.transcribe(sing("aei", np.random.default_rng(0)), RATE).text == "aei"


def test_what_only_the_engine_can_know_is_an_error_of_ours(
    whole: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(whole[OFFLINE], folder)

    def unknown(model: Any) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"

    graph("model.onnx", unknown)(folder)
    check_bundle(folder)
    with pytest.raises(CheckpointError, match=r"model\.onnx.*onnxruntime cannot load it"):
        Runtime.load(folder)


def test_unknown_variants_are_named(whole: dict[tuple[str, bool], Path]) -> None:
    with pytest.raises(CheckpointError, match="no variant 'int8': it has fp32"):
        Runtime.load(whole[OFFLINE], "int8")


def test_the_reader_sees_what_the_package_sees(whole: dict[tuple[str, bool], Path]) -> None:
    for folder in whole.values():
        for path in folder.glob("*.onnx"):
            model, found = onnx.load(path), parse_onnx(path.read_bytes(), path)
            assert found.ir_version == model.ir_version
            assert found.opsets == {o.domain: o.version for o in model.opset_import}
            assert found.metadata == {p.key: p.value for p in model.metadata_props}
            assert found.nodes == len(model.graph.node)
            assert found.weights == sum(
                int(np.prod(numpy_helper.to_array(w).shape)) for w in model.graph.initializer
            )
            for mine, theirs in ((found.inputs, model.graph.input), (found.outputs, model.graph.output)):
                assert [p.name for p in mine] == [p.name for p in theirs]
                for one, other in zip(mine, theirs, strict=True):
                    kind = other.type.tensor_type
                    assert one.type == kind.elem_type
                    sizes = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
                    assert list(one.shape) == sizes


def test_any_truncation_and_any_flip_ends_in_words_or_is_harmless(
    whole: dict[tuple[str, bool], Path],
) -> None:
    """The reader alone, without the sums: it never raises anything else and never takes long."""
    content = (whole[STREAMING] / "model.onnx").read_bytes()
    generator = np.random.default_rng(0)
    damaged = [content[:at] for at in range(0, len(content), 41)]
    for _ in range(400):
        bytes_ = bytearray(content)
        for at in generator.integers(0, len(bytes_), 3):
            bytes_[at] = generator.integers(256)
        damaged.append(bytes(bytes_))
    refused = 0
    for one in damaged:
        try:
            parse_onnx(one, "x.onnx")
        except FirstwordsError:
            refused += 1
    assert refused > len(damaged) // 4


def test_the_engine_is_not_even_imported_for_a_damaged_bundle() -> None:
    """check_bundle.py and what it imports know no engine."""
    import subprocess

    script = f"import sys, {checking.__name__}; assert 'onnxruntime' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_sums_are_those_of_the_files(whole: dict[tuple[str, bool], Path]) -> None:
    files = read_facts(whole[OFFLINE])["files"]
    path = whole[OFFLINE] / "model.onnx"
    assert files["model.onnx"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
