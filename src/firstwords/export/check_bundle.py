"""Is a bundle what it says? Every file is looked at before an engine sees it.

    bundle.json -> the files of a variant: there, plain names, sizes and SHA-256 as written down
    graphs      -> whole, weights inside; number, type and axes of inputs and outputs; metadata of the kind
    tokens.txt  -> a piece for every output

Engines are less careful: a missing or wrong metadata entry ends a process that runs sherpa-onnx, and so does
a tokens.txt with a byte-order mark. What is read here is what is run (``Bundle.contents``): a file that is
exchanged after the check changes nothing.

The contract is sherpa-onnx 2.0's, by position (docs/edge.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from firstwords.errors import CheckpointError
from firstwords.export.bundle import (
    BUNDLE,
    COPY_AGAIN,
    EXPORT_AGAIN,
    FEATURES,
    TABLE,
    TOKENS,
    BundleFacts,
    read_bundle,
    read_bytes,
)
from firstwords.export.onnx_file import FLOAT, INT32, INT64, LARGEST, TYPE_NAMES, OnnxFile, Port, parse_onnx
from firstwords.export.tokens_file import parse_tokens

NEWEST_IR, NEWEST_OPSET = 13, 25  # what sherpa-onnx 2.0.1 and its engine read
_LARGEST_TABLE = 1 << 20
_LARGEST_TOKENS = 64 << 20
_INTEGERS = (INT64, INT32)
_TYPES = {name: number for number, name in TYPE_NAMES.items()}

# Metadata that a streaming encoder must carry: model_type -> lists with an entry per stack, and numbers.
_PER_STACK = ("encoder_dims", "query_head_dims", "value_head_dims", "num_heads", "num_encoder_layers",
              "cnn_module_kernels", "left_context_len")  # fmt: skip
STREAMING = {
    "zipformer2": (_PER_STACK, ("T", "decode_chunk_len")),
    "lstm": ((), ("T", "decode_chunk_len", "num_encoder_layers", "rnn_hidden_size", "d_model")),
    "conformer": (
        (),
        ("T", "decode_chunk_len", "num_encoder_layers", "left_context", "encoder_dim", "pad_length",
         "cnn_module_kernel"),
    ),
}  # fmt: skip
OFFLINE_TRANSDUCERS = ("conformer", "zipformer", "zipformer2", "transducer")


@dataclass(frozen=True)
class Bundle:
    """A checked bundle: ``contents`` holds the bytes of its graphs by part, "features" among them."""

    folder: Path
    facts: BundleFacts
    variant: str
    pieces: tuple[str, ...]
    contents: dict[str, bytes]
    graphs: dict[str, OnnxFile]

    def path(self, part: str) -> Path:
        """The file of a graph."""
        return self.folder / (FEATURES if part == "features" else self.facts.graphs(self.variant)[part])


def check_bundle(folder: Path | str, variant: str = "fp32") -> Bundle:
    """Folder -> its graphs and pieces, or a CheckpointError that names the file and what is wrong with it."""
    folder = Path(folder)
    facts = read_bundle(folder)
    names = facts.graphs(variant) | {"features": FEATURES}
    contents = {part: _content(folder, facts, name, LARGEST) for part, name in names.items()}
    graphs: dict[str, OnnxFile] = {}
    for part, name in names.items():
        graph = _Graph(folder / name, parse_onnx(contents[part], folder / name), facts)
        graph.check_engine()
        _CHECKS[part](graph)
        graphs[part] = graph.file
    if facts.kind == "transducer":
        _check_joint(folder, names, graphs)
    pieces = parse_tokens(_content(folder, facts, TOKENS, _LARGEST_TOKENS), folder / TOKENS, facts.vocabulary)
    if facts.post.numbers.table:
        _content(folder, facts, TABLE, _LARGEST_TABLE)
    return Bundle(folder, facts, variant, pieces, contents, graphs)


def _content(folder: Path, facts: BundleFacts, name: str, largest: int) -> bytes:
    """A file of the bundle, of the size and sum that bundle.json states."""
    if not name or name in (".", "..") or any(c in name for c in "/\\:\0"):
        raise CheckpointError(
            f"'{folder / BUNDLE}' names the file {name!r}; all files of a bundle lie beside it.",
            mend="This bundle was not written by firstwords: do not use it.",
        )
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"'{folder}' is no whole bundle: {name} is missing.", mend=COPY_AGAIN)
    known = facts.files.get(name)
    if known is None:
        raise CheckpointError(
            f"'{folder / BUNDLE}' has no size and SHA-256 of {name} under 'files'.", mend=EXPORT_AGAIN
        )
    content = read_bytes(path, largest)
    if len(content) != known.bytes:
        how = "cut off" if len(content) < known.bytes else "another file"
        raise CheckpointError(
            f"'{path}' has {len(content)} bytes where {BUNDLE} says {known.bytes}: it is {how}.",
            mend=COPY_AGAIN,
        )
    if hashlib.sha256(content).hexdigest() != known.sha256:
        raise CheckpointError(
            f"'{path}' is not the file that {BUNDLE} describes: its SHA-256 is another one.",
            mend=COPY_AGAIN,
        )
    return content


class _Wanted(NamedTuple):
    """What an input or output must be; ``last`` is the size of its last axis where that matters."""

    rank: int
    types: tuple[int, ...] = (FLOAT,)
    last: int | None = None


@dataclass
class _Graph:
    """One graph and what bundle.json says of it."""

    path: Path
    file: OnnxFile
    facts: BundleFacts

    def fault(self, what: str) -> CheckpointError:
        return CheckpointError(f"'{self.path}': {what}.", mend=EXPORT_AGAIN)

    def check_engine(self) -> None:
        """Weights inside, and nothing too new."""
        file = self.file
        if file.externals:
            one = file.externals[0]
            raise CheckpointError(
                f"'{self.path}': the weight '{one.tensor}' lies in another file, {one.location!r}; "
                "a bundle's graphs hold their weights themselves.",
                mend="This graph was not written by firstwords: do not use it.",
            )
        if file.ir_version > NEWEST_IR:
            raise self.fault(f"IR version {file.ir_version}; engines read up to {NEWEST_IR}")
        if file.opsets.get("", file.opsets.get("ai.onnx", 0)) not in range(1, NEWEST_OPSET + 1):
            raise self.fault(f"operator set {file.opsets}; engines read up to {NEWEST_OPSET}")
        if file.nodes == 0:
            raise self.fault("it computes nothing")

    def ports(self, which: str, wanted: Sequence[_Wanted], *, more: bool = False) -> None:
        """Compare the first inputs or outputs with what is wanted, by position."""
        found = self.file.inputs if which == "inputs" else self.file.outputs
        if len(found) < len(wanted) or (len(found) > len(wanted) and not more):
            names = ", ".join(port.name for port in found[:6])
            raise self.fault(f"{len(found)} {which} ({names}) where there must be {len(wanted)}")
        for place, (port, want) in enumerate(zip(found, wanted, strict=False)):
            self.port(f"{which[:-1]} {place}", port, want)

    def port(self, place: str, port: Port, want: _Wanted) -> None:
        types = " or ".join(TYPE_NAMES[kind] for kind in want.types)
        if port.type not in want.types:
            raise self.fault(f"{place} is {port}; it must be {types}")
        if len(port.shape) != want.rank:
            raise self.fault(f"{place} is {port}; it must have {want.rank} axes")
        if want.last is not None and port.shape[-1] != want.last:
            raise self.fault(f"{place} is {port}; its last axis must be fixed to {want.last}")

    def number(self, key: str, *, least: int = 1) -> int:
        """A whole number of the metadata."""
        (value,) = self.numbers(key, least=least, one=True)
        return value

    def numbers(self, key: str, *, least: int = 1, one: bool = False) -> list[int]:
        """Whole numbers of the metadata, parted by commas."""
        text = self.file.metadata.get(key)
        if text is None:
            raise self.fault(f"the metadata has no '{key}', without which sherpa-onnx ends the process")
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts) or (
            one and len(parts) != 1
        ):
            kind = "a whole number" if one else "whole numbers parted by commas"
            raise self.fault(f"the metadata '{key}' is {text[:60]!r}, not {kind}")
        values = [int(part) for part in parts]
        if min(values) < least:
            raise self.fault(f"the metadata '{key}' is {text[:60]!r}; {least} is the least")
        return values

    def equal(self, key: str, expected: int) -> None:
        """A number of the metadata that bundle.json states as well."""
        if (found := self.number(key)) != expected:
            raise self.fault(f"the metadata '{key}' is {found}, {BUNDLE} says {expected}")

    def states(self) -> None:
        """Inputs and outputs behind the first are the states of bundle.json, in its order."""
        for which, prefix in (("inputs", ""), ("outputs", "new_")):
            found = (self.file.inputs if which == "inputs" else self.file.outputs)[1:]
            names = [prefix + state.name for state in self.facts.states]
            if [port.name for port in found] != names:
                one = next(
                    (a for a, b in zip([p.name for p in found], names, strict=False) if a != b),
                    f"{len(found)} of {len(names)}",
                )
                raise self.fault(f"its {which} are not the states of {BUNDLE}, in this order: {one}")
            for place, (port, state) in enumerate(zip(found, self.facts.states, strict=True), start=1):
                self.port(f"{which[:-1]} {place}", port, _Wanted(len(state.shape), (_TYPES[state.dtype],)))
                fixed = zip(port.shape, state.shape, strict=True)
                if which == "inputs" and any(a is not None and a != b for a, b in fixed):
                    raise self.fault(f"input {place} is {port}, {BUNDLE} says {state.shape}")

    def streaming(self, model_type: str) -> None:
        """Metadata of a streaming encoder, and its states."""
        chunk = self.facts.chunk
        assert chunk is not None
        known = STREAMING.get(model_type)
        if known is None:
            raise self.fault(
                f"the metadata 'model_type' is {model_type!r}; a streaming one is one of "
                f"{', '.join(STREAMING)}"
            )
        lists, numbers = known
        lengths = {key: len(self.numbers(key)) for key in lists}
        if len(set(lengths.values())) > 1:
            raise self.fault(f"the metadata has lists of different lengths: {lengths}")
        for key in numbers:
            self.number(key)
        self.equal("T", chunk.frames)
        self.equal("decode_chunk_len", chunk.shift)
        self.states()
        if (frames := self.file.inputs[0].shape[1]) not in (None, chunk.frames):
            raise self.fault(f"input 0 takes {frames} frames, {BUNDLE} says {chunk.frames}")
        if model_type == "zipformer2":
            self.zipformer_states()

    def zipformer_states(self) -> None:
        """The states of the layers are those that sherpa-onnx makes of the metadata before its first step."""
        states, told = self.facts.states, {key: self.numbers(key) for key in _PER_STACK}
        counts = told["num_encoder_layers"]
        if len(states) != 6 * sum(counts) + 2:
            raise self.fault(f"{len(states)} states where {sum(counts)} layers have {6 * sum(counts) + 2}")
        given = iter(states)
        for stack, count in enumerate(counts):
            of = {key: values[stack] for key, values in told.items()}
            dim, heads, left = of["encoder_dims"], of["num_heads"], of["left_context_len"]
            keys = (left, 1, of["query_head_dims"] * heads)
            values = (left, 1, of["value_head_dims"] * heads)
            convolution = (1, dim, of["cnn_module_kernels"] // 2)
            layer = (keys, (1, 1, left, 3 * dim // 4), values, values, convolution, convolution)
            for made, state in zip(layer * count, given, strict=False):
                if state.shape != made:
                    raise self.fault(
                        f"of its metadata sherpa-onnx makes the state '{state.name}' {made}, and the graph "
                        f"takes {state.shape}"
                    )

    def frames(self) -> _Wanted:
        """The input of features; the number of mels may be left open."""
        fixed = self.file.inputs[0].shape[-1:] if self.file.inputs else ()
        return _Wanted(3, last=self.facts.mels if fixed != (None,) else None)


def _check_model(graph: _Graph) -> None:
    """CTC: x, x_lens -> log_probs, log_probs_len; streaming: x, states -> log_probs, new states."""
    facts = graph.facts
    log_probs = _Wanted(3, last=facts.vocabulary)
    if not facts.streaming:
        graph.ports("inputs", [graph.frames(), _Wanted(1, (INT64,))])
        graph.ports("outputs", [log_probs, _Wanted(1, (INT64,))])
        return
    graph.ports("inputs", [graph.frames()], more=True)
    graph.ports("outputs", [log_probs], more=True)
    graph.streaming(graph.file.metadata.get("model_type", "zipformer2"))


def _check_encoder(graph: _Graph) -> None:
    """x, x_lens -> encoder_out, encoder_out_lens; streaming: x, states -> encoder_out, new states."""
    model_type = graph.file.metadata.get("model_type", "")
    if not graph.facts.streaming:
        if model_type not in OFFLINE_TRANSDUCERS:
            raise graph.fault(
                f"the metadata 'model_type' is {model_type!r}, not one of {', '.join(OFFLINE_TRANSDUCERS)}"
            )
        graph.ports("inputs", [graph.frames(), _Wanted(1, (INT64,))])
        graph.ports("outputs", [_Wanted(3), _Wanted(1, _INTEGERS)])
        return
    graph.ports("inputs", [graph.frames()], more=True)
    graph.ports("outputs", [_Wanted(3)], more=True)
    graph.streaming(model_type)


def _check_decoder(graph: _Graph) -> None:
    """y (N, context) -> decoder_out (N, J), and nothing else: with two outputs it is another kind's."""
    graph.equal("vocab_size", graph.facts.vocabulary)
    graph.equal("context_size", graph.facts.context_size or 0)
    graph.ports("inputs", [_Wanted(2, _INTEGERS)])
    graph.ports("outputs", [_Wanted(2)])
    size = graph.file.inputs[0].shape[1]
    if size is not None and size != graph.facts.context_size:
        raise graph.fault(f"it reads {size} tokens, {BUNDLE} says {graph.facts.context_size}")


def _check_joiner(graph: _Graph) -> None:
    """encoder_out (N, J), decoder_out (N, J) -> logit (N, V)."""
    graph.ports("inputs", [_Wanted(2), _Wanted(2)])
    graph.ports("outputs", [_Wanted(2)])
    if graph.file.outputs[0].shape[1] not in (None, graph.facts.vocabulary):
        raise graph.fault(
            f"its output is {graph.file.outputs[0]}, {BUNDLE} says {graph.facts.vocabulary} pieces"
        )


def _check_features(graph: _Graph) -> None:
    """samples (N, S), sample_lens (N) -> x (N, T, mels), x_lens (N)."""
    graph.ports("inputs", [_Wanted(2), _Wanted(1, (INT64,))])
    graph.ports("outputs", [_Wanted(3), _Wanted(1, (INT64,))])
    if graph.file.outputs[0].shape[-1] not in (None, graph.facts.mels):
        raise graph.fault(f"its output is {graph.file.outputs[0]}, {BUNDLE} says {graph.facts.mels} mels")


_CHECKS = {
    "model": _check_model,
    "encoder": _check_encoder,
    "decoder": _check_decoder,
    "joiner": _check_joiner,
    "features": _check_features,
}


def _check_joint(folder: Path, names: dict[str, str], graphs: dict[str, OnnxFile]) -> None:
    """What encoder and decoder give is what the joiner takes."""
    for place, part in enumerate(("encoder", "decoder")):
        given, taken = graphs[part].outputs[0].shape[-1], graphs["joiner"].inputs[place].shape[-1]
        if given is not None and taken is not None and given != taken:
            raise CheckpointError(
                f"'{folder / names[part]}' gives {given} numbers per frame, "
                f"'{folder / names['joiner']}' takes {taken}.",
                mend=EXPORT_AGAIN,
            )
