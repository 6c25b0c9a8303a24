"""The Zipformer: heads of the shared attention weights, units of everything around them, layers, front end.

A head goes with its rows in the weights' projection and in both self-attentions. The gated attention reads
the first head of the weights, so that one always stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from firstwords.compression.groups import Draft, Group, layer_groups, span, weight_of
from firstwords.encoders.layers import present
from firstwords.encoders.zipformer import Zipformer
from firstwords.encoders.zipformer.convolution import ChunkCausalDepthwiseConv
from firstwords.encoders.zipformer.layer import ZipformerLayer
from firstwords.encoders.zipformer.stack import Stack


def zipformer_groups(encoder: Zipformer, prefix: str) -> Iterator[Group]:
    """Front end, every layer's parts, layers."""
    yield from _front_end(encoder, prefix)
    for number, stack in enumerate(encoder.stacks):
        layers = cast("Stack", stack).layers
        there = {id(layer) for layer in present(layers)}
        for place, layer in enumerate(layers):
            if id(layer) in there:
                path = f"stacks.{number}.layers.{place}"
                yield from _layer(encoder, prefix, path, cast("ZipformerLayer", layer))
        yield from layer_groups(encoder, prefix, f"stacks.{number}.layers")


def _layer(root: nn.Module, prefix: str, path: str, layer: ZipformerLayer) -> Iterator[Group]:
    yield _heads(root, prefix, path, layer)
    for number in (1, 2, 3):
        own = f"{path}.feed_forward{number}"
        units = len(weight_of(root, f"{own}.in_proj"))
        draft = Draft(root, prefix, f"{own}: units", "feedforward", units)
        yield draft.made_by(f"{own}.in_proj").read_by(f"{own}.out_proj").done()
    own, hidden = f"{path}.nonlin_attention", layer.nonlin_attention.hidden
    draft = Draft(root, prefix, f"{own}: units", "feedforward", hidden)
    draft.made_by(f"{own}.in_proj", span(hidden, offsets=(0, hidden, 2 * hidden)))
    yield draft.read_by(f"{own}.out_proj").counted(own, ("hidden",), 1).done()
    for number in (1, 2):
        yield _convolution(root, prefix, f"{path}.conv_module{number}")


def _heads(root: nn.Module, prefix: str, path: str, layer: ZipformerLayer) -> Group:
    weights = layer.self_attn_weights
    heads, query, place = weights.heads, weights.query_head_dim, weights.position_head_dim
    own = f"{path}.self_attn_weights"
    rows = torch.cat(
        (
            span(heads, each=query, offsets=(0, heads * query)),
            span(heads, each=place, offsets=(2 * heads * query,)),
        ),
        dim=1,
    )
    draft = Draft(root, prefix, f"{own}: heads", "heads", heads).keeping(0)
    draft.made_by(f"{own}.in_proj", rows).made_by(f"{own}.linear_pos", span(heads, each=place))
    draft.counted(own, ("heads",), 1).counted(f"{own}.whiten_keys", ("groups",), 1)
    for number in (1, 2):
        attention = f"{path}.self_attn{number}"
        values = span(heads, each=len(weight_of(root, f"{attention}.in_proj")) // heads)
        draft.made_by(f"{attention}.in_proj", values).read_by(f"{attention}.out_proj", values)
        draft.counted(attention, ("heads",), 1)
    return draft.done()


def _convolution(root: nn.Module, prefix: str, path: str) -> Group:
    channels = weight_of(root, f"{path}.out_proj").shape[1]
    draft = Draft(root, prefix, f"{path}: channels", "convolution", channels)
    draft.made_by(f"{path}.in_proj", span(channels, offsets=(0, channels)))
    depthwise = f"{path}.depthwise_conv"
    if isinstance(root.get_submodule(depthwise), ChunkCausalDepthwiseConv):
        draft.through(f"{depthwise}.causal_conv").through(f"{depthwise}.chunkwise_conv")
        draft.own(f"{depthwise}.chunkwise_conv_scale", axis=1)
    else:
        draft.through(depthwise)
    return draft.read_by(f"{path}.out_proj").done()


def _front_end(encoder: Zipformer, prefix: str) -> Iterator[Group]:
    """Channels between its convolutions, the hidden ones of the ConvNeXt, and those that it adds to."""
    embed = encoder.embed
    for writer, reader in (("0", "4"), ("4", "7")):
        channels = len(weight_of(encoder, f"embed.conv.{writer}"))
        draft = Draft(encoder, prefix, f"embed.conv.{writer}: channels", "convolution", channels)
        yield draft.made_by(f"embed.conv.{writer}").read_by(f"embed.conv.{reader}", seen=False).done()
    next_path = "embed.convnext"
    hidden = len(embed.convnext.pointwise_conv1.weight)
    draft = Draft(encoder, prefix, f"{next_path}: units", "convolution", hidden)
    draft.made_by(f"{next_path}.pointwise_conv1")
    yield draft.read_by(f"{next_path}.pointwise_conv2", seen=False).done()
    channels = embed.channels
    draft = Draft(encoder, prefix, "embed.conv.7: channels", "convolution", channels)
    draft.made_by("embed.conv.7").through(f"{next_path}.depthwise_conv")
    draft.read_by(f"{next_path}.pointwise_conv1", seen=False).made_by(f"{next_path}.pointwise_conv2")
    draft.read_by("embed.out", span(channels, each=embed.bins), seen=False)
    yield draft.counted("embed", ("channels",), 1).done()
