"""Convolutional encoders: QuartzNet, MobileNet, ResNet.

QuartzNet adds nothing to its input but through a convolution of its own, so all of its channels can go one by
one. In MobileNet and ResNet the channels between blocks are a running sum and stay; those inside a block go,
and whole blocks that add to their input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from firstwords.compression.groups import Draft, Group, layer_groups, weight_of
from firstwords.encoders.layers import present
from firstwords.encoders.mobilenet import InvertedBottleneck, MobileNet
from firstwords.encoders.quartznet import QuartzNet, QuartzNetBlock
from firstwords.encoders.resnet import ResNet, ResNetBlock, SeparableImageConv


def quartznet_groups(encoder: QuartzNet, prefix: str) -> Iterator[Group]:
    """What each separable convolution, and the sum at the end of each block, hands on."""

    def channels(name: str, *writers: str) -> Draft:
        count = len(weight_of(encoder, f"{writers[0]}.pointwise"))
        draft = Draft(encoder, prefix, f"{name}: channels", "convolution", count)
        for writer in writers:
            draft.made_by(f"{writer}.pointwise").normalized_by(f"{writer}.norm")
        return draft

    def separable(draft: Draft, reader: str) -> Draft:
        return draft.through(f"{reader}.depthwise").read_by(f"{reader}.pointwise", seen=False)

    def next_block(draft: Draft, number: int) -> Group:
        """Channels that a block (or after the last one, the wide convolution) reads."""
        if number == len(encoder.blocks):
            return separable(draft, "wide").done()
        separable(draft, f"blocks.{number}.convolutions.0")
        return draft.read_by(f"blocks.{number}.shortcut").done()

    last = len(encoder.first) - 1
    for number in range(last):
        yield separable(channels(f"first.{number}", f"first.{number}"), f"first.{number + 1}").done()
    yield next_block(channels(f"first.{last}", f"first.{last}"), 0)
    for number, block in enumerate(encoder.blocks):
        path, repeats = f"blocks.{number}", len(cast("QuartzNetBlock", block).convolutions)
        for n in range(repeats - 1):
            writer = f"{path}.convolutions.{n}"
            yield separable(channels(writer, writer), f"{path}.convolutions.{n + 1}").done()
        draft = channels(path, f"{path}.convolutions.{repeats - 1}")
        draft.made_by(f"{path}.shortcut").normalized_by(f"{path}.shortcut_norm")
        yield next_block(draft, number + 1)
    yield channels("wide", "wide").read_by("out").done()


def mobilenet_groups(encoder: MobileNet, prefix: str) -> Iterator[Group]:
    """The wide inside of each block, the inside of its gate, and blocks that add their input."""
    there = {id(block) for block in present(encoder.blocks)}
    for number, layer in enumerate(encoder.blocks):
        if id(layer) not in there:
            continue
        block, path = cast("InvertedBottleneck", layer), f"blocks.{number}"
        draft = Draft(encoder, prefix, f"{path}: channels", "convolution", len(block.widen.weight))
        draft.made_by(f"{path}.widen").normalized_by(f"{path}.widen_norm")
        draft.through(f"{path}.depthwise").normalized_by(f"{path}.depthwise_norm")
        if block.gate is not None:
            draft.read_by(f"{path}.gate.squeeze", seen=False).made_by(f"{path}.gate.excite")
        yield draft.read_by(f"{path}.narrow").done()
        if block.gate is not None and len(block.gate.squeeze.weight):
            units = len(block.gate.squeeze.weight)
            draft = Draft(encoder, prefix, f"{path}.gate: units", "hidden", units)
            yield draft.made_by(f"{path}.gate.squeeze").read_by(f"{path}.gate.excite").done()
        if block.adds_input:
            yield from layer_groups(encoder, prefix, "blocks", [number])


def resnet_groups(encoder: ResNet, prefix: str) -> Iterator[Group]:
    """The channels between the two convolutions of each block, and blocks that add their input as it is."""
    there = {id(block) for block in present(encoder.blocks)}
    for number, layer in enumerate(encoder.blocks):
        if id(layer) not in there:
            continue
        block, path = cast("ResNetBlock", layer), f"blocks.{number}"
        maker = "pointwise" if isinstance(block.first, SeparableImageConv) else "convolution"
        channels = len(weight_of(encoder, f"{path}.first.{maker}"))
        draft = Draft(encoder, prefix, f"{path}: channels", "convolution", channels)
        draft.made_by(f"{path}.first.{maker}").normalized_by(f"{path}.first.norm")
        if isinstance(block.second, SeparableImageConv):
            draft.through(f"{path}.second.depthwise")
        yield draft.read_by(f"{path}.second.{maker}", seen=False).done()
        if block.shortcut is None:
            yield from layer_groups(encoder, prefix, "blocks", [number])
