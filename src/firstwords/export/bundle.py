"""A bundle: a model as ONNX graphs, with what an engine must know of it. Nothing here needs torch or onnx.

    bundle.json       what it is; names, sizes and SHA-256 of the other files
    model.onnx        CTC; or encoder.onnx, decoder.onnx, joiner.onnx of a transducer; *.int8.onnx beside them
    features.onnx     samples in, feature frames out
    tokens.txt        "piece id" a line, as sherpa-onnx reads it; a line that is an id alone is the space
    numbers.toml      words of numbers, where the model's formatting has a table of its own

``check_bundle.py`` looks at the files themselves.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from firstwords.errors import CheckpointError
from firstwords.formatting.settings import PostConfig

BUNDLE, TOKENS, FEATURES, TABLE = "bundle.json", "tokens.txt", "features.onnx", "numbers.toml"
VOCABULARY = "bpe.vocab"  # for the hot words of sherpa-onnx; nothing here reads it
PARITY = "parity.json"  # what the gate found; absent: it was not run
CARD = "card.md"  # only where the gate was passed
PARTS = {"ctc": ("model",), "transducer": ("encoder", "decoder", "joiner")}  # kind -> graphs of a variant
COPY_AGAIN = "Was the copy interrupted, or a file edited? Copy the whole bundle again."
EXPORT_AGAIN = "Export the model again: 'firstwords export MODEL --to DIR'."
_LARGEST = 4 << 20  # bytes of bundle.json
_MOST_STATES, _MOST_FRAMES = 4096, 1 << 16
_MOST_STATE = 1 << 26  # numbers of all states
_MOST_WORDS = 1 << 16  # of a closed vocabulary
_ROUNDING = 1e-6  # of decimal fractions


class _Facts(BaseModel):
    """Exact types; keys of later versions that nothing here reads are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class FileFacts(_Facts):
    """What a file of the bundle must be."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class StateFacts(_Facts):
    """What a streaming graph hands from one step to the next; ``shape`` is that of one stream."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    shape: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=8)]
    dtype: Literal["float32", "int64", "int32"]

    @model_validator(mode="after")
    def is_of_a_believable_size(self) -> Self:
        if math.prod(self.shape) > _MOST_STATE:
            raise ValueError(f"the state '{self.name}' has the shape {self.shape}")
        return self


class ChunkFacts(_Facts):
    """Feature frames that a step reads, and from one step's first to the next one's."""

    frames: Annotated[int, Field(ge=1, le=_MOST_FRAMES)]
    shift: Annotated[int, Field(ge=1, le=_MOST_FRAMES)]


class GateFacts(_Facts):
    """When a reading is speech at all (search/speech_gate.py)."""

    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    words: tuple[str, ...] = ()


class BundleFacts(_Facts):
    """``bundle.json``."""

    format: Literal[1]
    kind: Literal["ctc", "transducer"]
    streaming: bool
    name: str
    language: str = "und"
    sample_rate: Annotated[int, Field(ge=1000, le=384_000)]
    channels: Literal["mix", "error"] | Annotated[int, Field(ge=0, le=1023)] = (
        "mix"  # of recordings with several
    )
    mels: Annotated[int, Field(ge=1, le=4096)]
    subsampling: Annotated[int, Field(ge=1, le=64)]
    frame_shift_ms: Annotated[float, Field(gt=0, le=1000)]
    # Shorter recordings are filled up with silence to so many samples; None, in bundles of before: to 0.25 s.
    shortest_samples: Annotated[int, Field(ge=0, le=3_840_000)] | None = None
    vocabulary: Annotated[int, Field(ge=2, le=1 << 20)]
    blank: Literal[0] = 0
    context_size: Annotated[int, Field(ge=1, le=16)] | None = None
    normalizer: str = "none"
    chunk: ChunkFacts | None = None
    states: Annotated[tuple[StateFacts, ...], Field(max_length=_MOST_STATES)] = ()
    speech_gate: GateFacts = GateFacts()
    known_words: Annotated[tuple[tuple[int, ...], ...], Field(max_length=_MOST_WORDS)] = ()
    post: PostConfig = PostConfig()
    variants: dict[str, dict[str, str]]
    files: dict[str, FileFacts]
    firstwords: str = ""

    @model_validator(mode="after")
    def is_consistent(self) -> Self:
        """What the kind needs is there."""
        if self.kind == "transducer" and self.context_size is None:
            raise ValueError("a transducer needs 'context_size'")
        if self.streaming and (self.chunk is None or not self.states):
            raise ValueError("a streaming bundle needs 'chunk' and 'states'")
        if self.chunk is not None and self.chunk.shift > self.chunk.frames:
            raise ValueError(f"chunk.shift = {self.chunk.shift} is above chunk.frames = {self.chunk.frames}")
        if self.chunk is not None and self.chunk.shift % self.subsampling:
            raise ValueError(
                f"chunk.shift = {self.chunk.shift} is no multiple of subsampling = {self.subsampling}"
            )
        shift = self.frame_shift_ms * self.sample_rate / 1000
        if round(shift) < 1 or abs(shift - round(shift)) > _ROUNDING * shift:
            raise ValueError(
                f"frame_shift_ms = {self.frame_shift_ms} is no whole number of samples at "
                f"{self.sample_rate} Hz"
            )
        if (numbers := sum(math.prod(state.shape) for state in self.states)) > _MOST_STATE:
            raise ValueError(f"the states have {numbers} numbers, at most {_MOST_STATE} are believable")
        for tokens in self.known_words:
            if not tokens or not all(0 < token < self.vocabulary for token in tokens):
                raise ValueError(f"a word of 'known_words' is {list(tokens)}, no pieces of this vocabulary")
        if "punctuation" in self.post.stages or self.post.hotwords.file:
            raise ValueError("post names what no bundle holds: a model of punctuation, or a file of phrases")
        if self.post.numbers.table not in ("", TABLE):
            raise ValueError(f"post.numbers.table = {self.post.numbers.table!r}; in a bundle it is {TABLE}")
        names = [state.name for state in self.states]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the state '{twice[0]}' stands twice")
        if not self.variants:
            raise ValueError("'variants' is empty")
        for variant, graphs in self.variants.items():
            for part in PARTS[self.kind]:
                if part not in graphs:
                    raise ValueError(f"variants.{variant} names no '{part}'")
        return self

    @property
    def least_samples(self) -> int:
        """Recordings that are shorter are filled up with silence; streams have silence behind them anyway."""
        return round(0.25 * self.sample_rate) if self.shortest_samples is None else self.shortest_samples

    @property
    def frame_seconds(self) -> float:
        """From one frame of the model's output to the next."""
        return self.subsampling * self.frame_shift_ms / 1000

    def graphs(self, variant: str) -> dict[str, str]:
        """Part ("model", or "encoder", "decoder", "joiner") -> name of the file in this variant."""
        if variant not in self.variants:
            raise CheckpointError(
                f"the bundle '{self.name}' has no variant '{variant}': it has {', '.join(self.variants)}.",
                mend="Choose one of these, or export again with --int8."
                if variant == "int8"
                else "Choose one of these.",
            )
        return {part: self.variants[variant][part] for part in PARTS[self.kind]}


def is_bundle(folder: Path) -> bool:
    """Whether a folder calls itself a bundle."""
    return (folder / BUNDLE).is_file()


def read_bundle(folder: Path) -> BundleFacts:
    """``bundle.json`` of a folder; what is wrong is a CheckpointError that names it."""
    path = folder / BUNDLE
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else ""
        raise CheckpointError(
            f"'{folder}' is no bundle: {BUNDLE} is missing (found: {found or 'nothing'}).",
            mend="Give the folder that 'firstwords export MODEL --to DIR' wrote, all of it.",
        )
    content = read_bytes(path, _LARGEST)
    values = _json(path, content)
    if values.get("format") != 1:
        raise CheckpointError(
            f"'{path}': format is {values.get('format')!r}; this version reads 1.", mend="Update firstwords."
        )
    try:
        return BundleFacts.model_validate_json(content)
    except ValidationError as error:
        faults = [_explained(fault) for fault in error.errors()[:5]]
        raise CheckpointError(f"'{path}': " + "; ".join(faults) + ".", mend=EXPORT_AGAIN) from None


def gate_warning(folder: Path) -> str | None:
    """What a user must be told of a bundle that did not pass its gate; None of others."""
    try:
        found: Any = json.loads((folder / PARITY).read_text(encoding="utf-8"))
        failed, faults = found["passed"] is False, list(found["faults"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    if not failed:
        return None
    return f"'{folder}' did not pass its parity gate: {faults[0] if faults else f'see {PARITY}'}"


def read_bytes(path: Path, largest: int) -> bytes:
    """The content of a file of a bundle, unless it is longer than anything it could be."""
    try:
        size = path.stat().st_size
        if size > largest:
            raise CheckpointError(
                f"'{path}' has {size} bytes, at most {largest} are believable.", mend=COPY_AGAIN
            )
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"'{path}' cannot be read: {error.strerror or error}.", mend=COPY_AGAIN
        ) from None


def _json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        values: Any = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is not JSON: {error}.", mend=COPY_AGAIN) from None
    if not isinstance(values, dict):
        raise CheckpointError(f"'{path}' holds no JSON object.", mend=COPY_AGAIN)
    return values


def _explained(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    got = fault.get("input")
    shown = "" if isinstance(got, dict | list) or fault["type"] == "missing" else f" (got {str(got)[:60]!r})"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}{shown}" if where else message
