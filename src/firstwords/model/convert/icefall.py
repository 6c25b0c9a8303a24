"""icefall Zipformer checkpoints -> our models: names, sizes, weights.

Read: ``pretrained.pt`` ({'model': weights}), ``epoch-N.pt`` (also averages, optimizer and all training
arguments) and plain state dicts, always without running code from them. The average is taken if present.
Sizes come from the shapes of the tensors where these decide them, the rest from config.json (names of the
icefall arguments, grouped or flat), else from the arguments inside the checkpoint, else the published values.

    encoder_embed.X                        embed.X
    encoder.encoders.I.[encoder.]layers.X  stacks.I.layers.X
    encoder.encoders.I.X                   stacks.I.X              (downsample, out_combiner)
    encoder.downsample_output.X            downsample_output.X
    CTC output, decoder, joiner            heads.X                 (icefall_heads.py)
    everything else                        left out and listed
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.errors import CheckpointError
from firstwords.features.fbank import FbankConfig
from firstwords.heads.ctc import CtcConfig
from firstwords.model.checkpoint import load_weights
from firstwords.model.convert.icefall_file import read_settings, read_tokens, read_weights
from firstwords.model.convert.icefall_heads import read_heads
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.search.interface import GreedyConfig, TransducerGreedyConfig
from firstwords.text.characters import GraphemeConfig
from firstwords.text.given import GivenTokenizer

_RENAME = (
    (re.compile(r"^encoder_embed\."), "embed."),
    (re.compile(r"^encoder\.encoders\.(\d+)\.(?:encoder\.)?layers\."), r"stacks.\1.layers."),
    (re.compile(r"^encoder\.encoders\.(\d+)\."), r"stacks.\1."),
    (re.compile(r"^encoder\.downsample_output\."), "downsample_output."),
)
_UNUSED = re.compile(r"^stacks\.\d+\.layers\.\d+\.bypass_scale$")  # stands in every file, no code reads it
_CHANGED = "It is no Zipformer as published. Was it trained with changed code?"
_MOST_PIECES = 1_000_000
_PUBLISHED_POSITION_HEAD_DIM = 4  # in every published size


@dataclass(frozen=True)
class Conversion:
    """A converted model and what became of the rest of the file."""

    model: SpeechModel
    tokenizer: GivenTokenizer
    averaged: bool  # the weights are the file's average
    left_out: tuple[str, ...]  # tensors of the file that the model has no place for
    notes: tuple[str, ...] = field(default=())  # what a user should know


def load(
    checkpoint: Path | str, config: Path | str | None = None, tokens: Path | str | None = None
) -> SpeechModel:
    """icefall checkpoint -> SpeechModel in eval mode; see ``convert`` for the rest of what it says."""
    return convert(checkpoint, config, tokens).model


def convert(
    checkpoint: Path | str,
    config: Path | str | None = None,
    tokens: Path | str | None = None,
    *,
    new_head: bool = False,
) -> Conversion:
    """icefall checkpoint -> model, tokenizer and a list of what was left out.

    Args:
        checkpoint: the .pt file.
        config: a JSON file with the model's arguments.
        tokens: lines "piece id"; without it the pieces are called <1>, <2>, ...
        new_head: a checkpoint without CTC output gets an untrained one.
    """
    path = Path(checkpoint)
    weights, arguments, averaged = read_weights(path)
    settings = {**arguments, **read_settings(Path(config))} if config is not None else arguments
    encoder, left_out = encoder_weights(weights)
    if not encoder:
        raise CheckpointError(
            f"'{path}' holds no Zipformer: no tensor is called encoder_embed or encoder.encoders "
            f"(found: {', '.join(list(weights)[:3]) or 'nothing'}).",
            mend="Only checkpoints of the 'zipformer' recipes of icefall (2023 and later) can be converted.",
        )
    notes: list[str] = []
    shape = encoder_config(weights, settings, source=str(path))
    heads = read_heads(weights, settings, source=str(path))
    if not heads and not new_head:
        raise CheckpointError(
            f"'{path}' has no CTC output (ctc_output.1) and no whole transducer (decoder, joiner).",
            mend="Add --new-head to take its encoder and an untrained output, for fine-tuning "
            "with 'firstwords train --from'.",
        )
    pieces = read_tokens(Path(tokens) if tokens is not None else None, _vocabulary(weights, settings))
    configs = {name: head.config for name, head in heads.items()}
    if new_head and "ctc" not in heads:
        configs["ctc"] = CtcConfig()
        notes.append("The CTC output is new and untrained: fine-tune before you transcribe.")
    if _number(settings, "blank_id", 0) != 0:
        raise CheckpointError(
            f"'{path}' has blank id {settings['blank_id']}; only 0 can be converted.",
            mend="Permute the output.",
        )
    mels = input_dim(weights, settings)
    recipe = Recipe(
        name=path.stem,
        features=FbankConfig(mels=mels),  # pyright: ignore[reportCallIssue]
        tokenizer=GraphemeConfig(bytes=False),
        encoder=shape,
        heads=dict(configs),
        search=GreedyConfig() if "ctc" in configs else TransducerGreedyConfig(),
    )
    model = SpeechModel(recipe, len(pieces))
    load_weights(model.encoder, encoder, source=str(path), mend=_CHANGED)
    for name, head in heads.items():
        load_weights(model.heads[name], head.weights, source=str(path), mend=_CHANGED)
    read = frozenset[str]().union(*(head.origins for head in heads.values()))
    left_out = [name for name in left_out if name not in read]
    return Conversion(model.eval(), GivenTokenizer(pieces), averaged, tuple(sorted(left_out)), tuple(notes))


def encoder_weights(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """icefall state dict -> (weights of our Zipformer, names left out)."""
    ours: dict[str, Tensor] = {}
    left_out: list[str] = []
    for name, value in weights.items():
        renamed = name
        for pattern, replacement in _RENAME:
            renamed = pattern.sub(replacement, renamed)
        if renamed == name or _UNUSED.match(renamed):
            left_out.append(name)
        else:
            ours[renamed] = value
    return ours, left_out


def encoder_config(
    weights: Mapping[str, Tensor], settings: Mapping[str, Any], *, source: str = "the checkpoint"
) -> ZipformerConfig:
    """Sizes of the encoder: from shapes, else from settings, else the published ones."""
    ours, _ = encoder_weights(weights)
    shapes = {name: tuple(value.shape) for name, value in ours.items()}
    try:
        stacks = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("stacks."))
        sizes = [_stack_sizes(shapes, i) for i in range(stacks)]
        values: dict[str, Any] = {name: [size[name] for size in sizes] for name in sizes[0]}
        values["embed_channels"] = [shapes[f"embed.conv.{place}.weight"][0] for place in (0, 4, 7)]
        values["position_dim"] = shapes["stacks.0.layers.0.self_attn_weights.linear_pos.weight"][1]
        values["output_downsampling"] = shapes.get("downsample_output.bias", (1,))[0]
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{source}: a tensor of the Zipformer is missing ({error}).", mend="Was the file cut short?"
        ) from None
    values["causal"] = any(name.endswith("chunkwise_conv_scale") for name in shapes)
    values |= _heads(values, settings, stacks, source)
    unmasked = _numbers(settings, "encoder_unmasked_dim", stacks)
    values["unmasked_dims"] = unmasked or _published_unmasked(tuple(values["dims"]))
    for ours_name, theirs in (("chunks", "chunk_size"), ("left_contexts", "left_context_frames")):
        given = _numbers(settings, theirs)
        if given and values["causal"]:
            values[ours_name] = given
    if "warmup_batches" in settings:
        values["warmup"] = _number(settings, "warmup_batches", 0)
    for private in ("queries_and_positions", "positions", "values"):
        del values[private]
    try:
        return ZipformerConfig.model_validate(values)
    except ValueError as error:
        raise CheckpointError(
            f"{source}: these sizes make no Zipformer: {error}.",
            mend="Give the model's arguments with --config config.json, those it was trained with.",
        ) from None


def input_dim(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> int:
    """Mel bins: from settings where they fit the projection's shape, else 4 * bins + 4 (80 for 19 bins)."""
    bins = weights["encoder_embed.out.weight"].shape[1] // weights["encoder_embed.conv.7.weight"].shape[0]
    given = settings.get("feature_dim")
    if isinstance(given, int) and ((given - 1) // 2 - 1) // 2 == bins:
        return given
    return 4 * bins + 4


def _stack_sizes(shapes: Mapping[str, tuple[int, ...]], i: int) -> dict[str, int]:
    """What the shapes of one stack decide, and the three products that need the number of heads."""
    first = f"stacks.{i}.layers.0."
    layers = {int(name.split(".")[3]) for name in shapes if name.startswith(f"stacks.{i}.layers.")}
    depthwise = shapes.get(f"{first}conv_module1.depthwise_conv.weight")
    if depthwise is None:
        depthwise = shapes[f"{first}conv_module1.depthwise_conv.chunkwise_conv.weight"]
    return {
        "dims": shapes[f"{first}norm.bias"][0],
        "layers": 1 + max(layers),
        "downsampling": shapes.get(f"stacks.{i}.downsample.bias", (1,))[0],
        "feedforward": shapes[f"{first}feed_forward2.in_proj.weight"][0],
        "kernels": depthwise[2],
        "queries_and_positions": shapes[f"{first}self_attn_weights.in_proj.weight"][0],
        "positions": shapes[f"{first}self_attn_weights.linear_pos.weight"][0],
        "values": shapes[f"{first}self_attn1.in_proj.weight"][0],
    }


def _heads(
    sizes: Mapping[str, list[int]], settings: Mapping[str, Any], stacks: int, source: str
) -> dict[str, list[int]]:
    """Heads and head widths: shapes give only their products, so one of them must be known."""
    heads = _numbers(settings, "num_heads", stacks)
    if not heads:
        each = _numbers(settings, "pos_head_dim", stacks) or [_PUBLISHED_POSITION_HEAD_DIM] * stacks
        heads = [max(1, total // width) for total, width in zip(sizes["positions"], each, strict=True)]
    found: dict[str, list[int]] = {"heads": heads, "position_head_dim": [], "query_head_dim": []}
    found["value_head_dim"] = []
    for i, count in enumerate(heads):
        positions, values = sizes["positions"][i], sizes["values"][i]
        queries = sizes["queries_and_positions"][i] - positions
        if count < 1 or positions % count or values % count or queries % (2 * count):
            raise CheckpointError(
                f"{source}: {count} attention heads do not fit the tensors of stack {i}.",
                mend="Give the model's arguments with --config config.json (num_heads).",
            )
        found["position_head_dim"].append(positions // count)
        found["query_head_dim"].append(queries // (2 * count))
        found["value_head_dim"].append(values // count)
    return found


def _numbers(settings: Mapping[str, Any], name: str, stacks: int | None = None) -> list[int]:
    """A setting as numbers, one per stack if asked: 4, [4], [4, 4, 8] or "4,4,8"; empty if absent."""
    value = settings.get(name)
    if value is None:
        return []
    parts: Any = value.split(",") if isinstance(value, str) else value
    items = list(cast("list[Any]", parts)) if isinstance(parts, list | tuple) else [parts]
    try:
        numbers = [int(item) for item in items]
    except (TypeError, ValueError, OverflowError):
        raise CheckpointError(
            f"config: {name} = {value!r} is no list of numbers.", mend="Write for example [4, 4, 8]."
        ) from None
    if stacks is not None and len(numbers) == 1:
        numbers *= stacks
    if stacks is not None and len(numbers) != stacks:
        raise CheckpointError(
            f"config: {name} has {len(numbers)} numbers, the checkpoint has {stacks} stacks.",
            mend="Is it the config.json of this checkpoint?",
        )
    return numbers


def _published_unmasked(dims: tuple[int, ...]) -> tuple[int, ...]:
    """Of the published size with these widths, else at most 192 channels (only training uses them)."""
    for name in ("S", "M", "L", "kws"):
        preset = ZipformerConfig.preset(name)
        if preset.dims == dims:
            return preset.unmasked_dims
    return tuple(min(192, dim) for dim in dims)


def _vocabulary(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> int:
    for tensor in (
        weights.get("ctc_output.1.bias"),
        weights.get("joiner.output_linear.bias"),
        weights.get("decoder.embedding.weight"),
    ):
        if tensor is not None:
            return int(tensor.shape[0])
    pieces = _number(settings, "vocab_size", 500)
    if not 1 < pieces <= _MOST_PIECES:
        raise CheckpointError(
            f"config: vocab_size = {pieces:g} is no number of pieces.", mend="It is mostly some hundreds."
        )
    return int(pieces)


def _number(settings: Mapping[str, Any], name: str, default: float) -> float:
    """A setting that is one finite number."""
    value = settings.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise CheckpointError(f"config: {name} = {str(value)[:40]!r} is no number.", mend="Write a number.")
    return number
