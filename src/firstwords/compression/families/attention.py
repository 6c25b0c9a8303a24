"""Encoders of attention layers: Conformer, Squeezeformer, E-Branchformer, Transformer.

They are made of the same parts (nn/), so groups are found by what a part is, wherever it stands:

    attention heads          query, key, value, position rows and biases    columns of the output
    feed-forward units       row, bias                                      column
    convolution channels     GLU pairs, kernels, norm entries               columns
    branches (E-Branch.)     rows of what writes a channel, its kernel      column of the merge
    subsampling channels     filters                                        filters, columns of the projection
    layers
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from firstwords.compression.groups import Draft, Group, layer_groups, span, weight_of
from firstwords.encoders.e_branchformer import ConvolutionalGate, EBranchformerLayer
from firstwords.encoders.stack import AttentionStack
from firstwords.nn.attention import RelativeSelfAttention, SelfAttention
from firstwords.nn.convolution import ConvolutionModule
from firstwords.nn.feedforward import FeedForward
from firstwords.nn.subsampling import Subsampling


def attention_groups(encoder: AttentionStack, prefix: str) -> Iterator[Group]:
    """Groups of every part, then the layers."""
    for path, module in encoder.named_modules():
        if isinstance(module, RelativeSelfAttention | SelfAttention):
            yield _heads(encoder, prefix, path, module)
        elif isinstance(module, FeedForward):
            units = len(module.in_proj.weight)
            draft = Draft(encoder, prefix, f"{path}: units", "feedforward", units)
            yield draft.made_by(f"{path}.in_proj").read_by(f"{path}.out_proj").done()
        elif isinstance(module, ConvolutionModule):
            yield _convolution(encoder, prefix, path, module)
        elif isinstance(module, ConvolutionalGate):
            yield _gate(encoder, prefix, path, module)
        elif isinstance(module, EBranchformerLayer):
            yield from _branches(encoder, prefix, path, module)
        elif isinstance(module, Subsampling):
            yield from _subsampling(encoder, prefix, path, module)
    yield from layer_groups(encoder, prefix, "layers")


def _heads(root: nn.Module, prefix: str, path: str, module: RelativeSelfAttention | SelfAttention) -> Group:
    heads, width = module.heads, module.out_proj.weight.shape[1]
    own = span(heads, each=width // heads)
    all_three = span(heads, each=width // heads, offsets=(0, width, 2 * width))
    draft = Draft(root, prefix, f"{path}: heads", "heads", heads)
    draft.made_by(f"{path}.in_proj", all_three).read_by(f"{path}.out_proj", own)
    if isinstance(module, RelativeSelfAttention):
        draft.made_by(f"{path}.position_proj", own)
        draft.own(f"{path}.content_bias", own).own(f"{path}.position_bias", own)
    return draft.counted(path, ("heads",), 1).done()


def _convolution(root: nn.Module, prefix: str, path: str, module: ConvolutionModule) -> Group:
    inner = module.out_proj.weight.shape[1]
    made = span(inner, offsets=(0, inner) if module.gate is F.glu else (0,))
    draft = Draft(root, prefix, f"{path}: channels", "convolution", inner)
    draft.made_by(f"{path}.in_proj", made).through(f"{path}.depthwise.conv")
    return draft.normalized_by(f"{path}.norm").read_by(f"{path}.out_proj").done()


def _gate(root: nn.Module, prefix: str, path: str, module: ConvolutionalGate) -> Group:
    half = module.out_proj.weight.shape[1]
    draft = Draft(root, prefix, f"{path}: channels", "convolution", half)
    draft.made_by(f"{path}.in_proj", span(half, offsets=(0, half))).normalized_by(f"{path}.norm")
    return draft.through(f"{path}.convolution.conv").read_by(f"{path}.out_proj").done()


def _branches(root: nn.Module, prefix: str, path: str, layer: EBranchformerLayer) -> Iterator[Group]:
    """What attention and gate hand to the merge, channel by channel."""
    offset = 0
    for branch, writer in (("far", layer.attention.out_proj), ("near", layer.gate.out_proj)):
        width = len(writer.weight)
        source = f"{path}.attention.out_proj" if branch == "far" else f"{path}.gate.out_proj"
        place = span(width, offsets=(offset,))
        draft = Draft(root, prefix, f"{path}.merge_proj: {branch} channels", "convolution", width)
        draft.made_by(source).through(f"{path}.merge_convolution.conv", place)
        yield draft.read_by(f"{path}.merge_proj", place).done()
        offset += width


def _subsampling(root: nn.Module, prefix: str, path: str, module: Subsampling) -> Iterator[Group]:
    """Channels between one convolution and the next; the projection reads them bin by bin."""
    separable, count = module.config.separable, len(module.strided)
    for number in range(count + 1):
        writer = f"{path}.first" if number == 0 else f"{path}.strided.{number - 1}"
        if separable and number:
            writer = f"{path}.pointwise.{number - 1}"
        weight = weight_of(root, writer)
        channels = len(weight)
        draft = Draft(root, prefix, f"{writer}: channels", "convolution", channels).made_by(writer)
        if number == count:
            bins = module.out.weight.shape[1] // channels
            columns = span(channels, offsets=(torch.arange(bins) * channels).tolist())
            draft.read_by(f"{path}.out", columns)
        elif separable:
            draft.through(f"{path}.strided.{number}").read_by(f"{path}.pointwise.{number}")
        else:
            draft.read_by(f"{path}.strided.{number}", seen=False)
        yield draft.done()
