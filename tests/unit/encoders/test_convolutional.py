"""The convolutional, recurrent and feed-forward encoders: each block against a plain loop over one utterance.

The loops compute in float64, one output value at a time, from the papers' formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from firstwords.encoders.dnn import Dnn, DnnConfig
from firstwords.encoders.encoder import Encoder
from firstwords.encoders.lstm import Lstm, LstmConfig
from firstwords.encoders.mobilenet import InvertedBottleneck, MobileNet, MobileNetConfig
from firstwords.encoders.quartznet import QuartzNet, QuartzNetBlock, QuartzNetConfig
from firstwords.encoders.resnet import ImageConv, ResNet, ResNetBlock, ResNetConfig, SeparableImageConv
from firstwords.errors import ConfigError
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.tensors import Padded, pad, real_frames

MELS = 20
SMALL: dict[str, Callable[[], Encoder]] = {
    "quartznet": lambda: QuartzNet(
        QuartzNetConfig(
            channels=(8, 12),
            kernels=(5, 7),
            blocks=(1, 2),
            repeats=2,
            last=(14, 10),
            last_kernel=9,
            dropout=0,
        ),
        MELS,
    ),
    "mobilenet": lambda: MobileNet(
        MobileNetConfig(
            channels=(8, 12), blocks=(2, 2), kernels=(5, 7), strides=(2, 2), expansion=2, out=16, dropout=0
        ),
        MELS,
    ),
    "resnet": lambda: ResNet(
        ResNetConfig(channels=(4, 6), blocks=(1, 2), strides=(2, 1, 2), out=10, dropout=0), MELS
    ),
    "resnet, separable": lambda: ResNet(
        ResNetConfig(channels=(4, 6), blocks=(1, 2), strides=(2, 1, 2), out=10, dropout=0, separable=True),
        MELS,
    ),
    "lstm": lambda: Lstm(LstmConfig(hidden=8, layers=2, dropout=0), MELS),
    "lstm, forward": lambda: Lstm(LstmConfig(hidden=8, layers=2, bidirectional=False, dropout=0), MELS),
    "dnn": lambda: Dnn(DnnConfig(context=3, hidden=12, layers=3, dropout=0), MELS),
}
PRESETS = {
    "quartznet": (QuartzNet, QuartzNetConfig),
    "mobilenet": (MobileNet, MobileNetConfig),
    "resnet": (ResNet, ResNetConfig),
    "lstm": (Lstm, LstmConfig),
    "dnn": (Dnn, DnnConfig),
}


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


def batch(*frames: int) -> Padded:
    generator = torch.Generator().manual_seed(1)
    return pad([torch.randn(n, MELS, generator=generator) for n in frames])


def woken(module: nn.Module) -> nn.Module:
    """In evaluation mode, with norms that do something."""
    torch.manual_seed(6)
    for part in module.modules():
        if isinstance(part, MaskedBatchNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return module.eval()


def normed(norm: MaskedBatchNorm, x: Tensor) -> Tensor:
    """(…, C), every value by itself: the formula of batch normalization in evaluation."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return (x - norm.running_mean.double()) * scale + norm.bias.double()


def depthwise(weight: Tensor, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """(C, 1, K) and one utterance (T, C) -> (ceil(T / stride), C)."""
    kernel, time = weight.shape[2], x.shape[0]
    rows: list[Tensor] = []
    for t in range(0, time, stride):
        total = torch.zeros(x.shape[1], dtype=torch.float64)
        for k in range(kernel):
            source = t + (k - kernel // 2) * dilation
            if 0 <= source < time:
                total = total + weight[:, 0, k].double() * x[source]
        rows.append(total)
    return torch.stack(rows)


def image_convolution(weight: Tensor, x: Tensor, strides: tuple[int, int]) -> Tensor:
    """(out, in, K, K) and one image (T, F, in) -> (T', F', out)."""
    half, (time, bins) = weight.shape[2] // 2, x.shape[:2]
    rows: list[Tensor] = []
    for t in range(0, time, strides[0]):
        columns: list[Tensor] = []
        for f in range(0, bins, strides[1]):
            total = torch.zeros(weight.shape[0], dtype=torch.float64)
            for i in range(weight.shape[2]):
                for j in range(weight.shape[3]):
                    at, bin_ = t + i - half, f + j - half
                    if 0 <= at < time and 0 <= bin_ < bins:
                        total = total + weight[:, :, i, j].double() @ x[at, bin_]
            columns.append(total)
        rows.append(torch.stack(columns))
    return torch.stack(rows)


def compare(
    module: Callable[..., Tensor], reference: Callable[[Tensor], Tensor], width: int, *, stride: int
) -> None:
    """The module on a padded batch of 11 and 6 frames against the loop on each utterance."""
    lengths = torch.tensor([11, 6])
    x = noise(2, 11, *((width,) if width else (7, 3)))
    x = x.masked_fill(~real_frames(lengths, 11).view(2, 11, *(1,) * (x.dim() - 2)), 0.0)
    with torch.no_grad():
        y = module(x, lengths)
        for row, length in enumerate(lengths.tolist()):
            expected = reference(x[row, :length].double())
            count = -(-length // stride)
            assert len(expected) == count
            torch.testing.assert_close(y[row, :count].double(), expected, rtol=1e-4, atol=1e-5)
            assert not y[row, count:].any()


def test_quartznet_block_is_the_papers_formula() -> None:
    block = cast("QuartzNetBlock", woken(QuartzNetBlock(6, 8, 5, repeats=3, dropout=0.5)))

    def reference(x: Tensor) -> Tensor:
        y = x
        for number, part in enumerate(block.convolutions):
            y = y if number == 0 else y.relu()
            layer = cast("nn.Module", part)
            y = depthwise(layer.depthwise.weight, y) @ layer.pointwise.weight.double().t()  # pyright: ignore
            y = normed(layer.norm, y)  # pyright: ignore
        return (y + normed(block.shortcut_norm, x @ block.shortcut.weight.double().t())).relu()

    compare(lambda x, lengths: block(x, real_frames(lengths, 11)), reference, 6, stride=1)


@pytest.mark.parametrize("squeeze", [True, False])
@pytest.mark.parametrize(("out", "stride"), [(6, 1), (9, 1), (6, 2)])
def test_inverted_bottleneck_is_the_papers_formula(out: int, stride: int, squeeze: bool) -> None:
    config = MobileNetConfig(expansion=2, squeeze=squeeze)
    block = cast("InvertedBottleneck", woken(InvertedBottleneck(6, out, 5, stride, config)))

    def hard_swish(x: Tensor) -> Tensor:
        return x * (x + 3).clamp(0, 6) / 6

    def reference(x: Tensor) -> Tensor:
        y = hard_swish(normed(block.widen_norm, x @ block.widen.weight.double().t()))
        y = hard_swish(normed(block.depthwise_norm, depthwise(block.depthwise.weight, y, stride)))
        if block.gate is not None:
            first, second = block.gate.squeeze, block.gate.excite
            hidden = (first.weight.double() @ y.mean(dim=0) + first.bias.double()).relu()
            gate = second.weight.double() @ hidden + second.bias.double()
            y = y * ((gate + 3).clamp(0, 6) / 6)
        y = normed(block.narrow_norm, y @ block.narrow.weight.double().t())
        return x + y if stride == 1 and out == 6 else y

    compare(block, reference, 6, stride=stride)


def kernel_of(layer: ImageConv | SeparableImageConv) -> Tensor:
    """Of the one convolution (out, in, 3, 3) that does what the layer does."""
    if isinstance(layer, ImageConv):
        return layer.convolution.weight
    depthwise = layer.depthwise.weight[:, 0]
    return layer.pointwise.weight[:, :, None, None] * depthwise[None]


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize(("out", "strides"), [(3, (1, 1)), (5, (1, 1)), (5, (1, 2)), (5, (2, 2))])
def test_resnet_block_is_the_papers_formula(out: int, strides: tuple[int, int], separable: bool) -> None:
    block = cast("ResNetBlock", woken(ResNetBlock(3, out, strides, separable=separable)))

    def reference(x: Tensor) -> Tensor:
        y = normed(block.first.norm, image_convolution(kernel_of(block.first), x, strides)).relu()
        y = normed(block.second.norm, image_convolution(kernel_of(block.second), y, (1, 1)))
        if block.shortcut is not None:
            x = image_convolution(block.shortcut.convolution.weight, x, strides)
            x = normed(block.shortcut.norm, x)
        return (y + x).relu()

    def ours(x: Tensor, lengths: Tensor) -> Tensor:
        shorter = (lengths + strides[0] - 1) // strides[0]
        return block(x, real_frames(shorter, -(-11 // strides[0])))

    compare(ours, reference, 0, stride=strides[0])


def test_dnn_reads_its_context_and_nothing_else() -> None:
    encoder = cast("Dnn", woken(SMALL["dnn"]()))
    (x,) = (batch(10).values[0],)
    with torch.no_grad():
        y = encoder(pad([x])).values[0]
    for t in range(3):
        near = normed(encoder.input_norm, x.double())
        zeros = torch.zeros(MELS, dtype=torch.float64)
        hidden = torch.cat([near[s] if 0 <= s < 10 else zeros for s in range(4 * t - 3, 4 * t + 4)])
        for layer, norm in zip(encoder.layers, encoder.norms, strict=True):
            linear, own = cast("nn.Linear", layer), cast("MaskedBatchNorm", norm)
            hidden = normed(own, linear.weight.double() @ hidden).relu()
        torch.testing.assert_close(y[t].double(), hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_lstm_is_torchs_on_each_utterance_alone(bidirectional: bool) -> None:
    torch.manual_seed(1)
    config = LstmConfig(hidden=6, layers=2, bidirectional=bidirectional)
    encoder = cast("Lstm", woken(Lstm(config, MELS)))
    utterances = [noise(n, MELS) for n in (17, 9, 4)]
    with torch.no_grad():
        together = encoder(pad(utterances, 50.0))
        for row, utterance in enumerate(utterances):
            count = -(-len(utterance) // 4)
            x = F.pad(
                normed(encoder.input_norm, utterance).float(), (0, 0, 0, 4 * count + 2 - len(utterance))
            )
            x = torch.stack([x[4 * t : 4 * t + 6].flatten() for t in range(count)])
            for layer, norm in zip(encoder.layers, encoder.norms, strict=True):
                width = 12 if bidirectional else 6
                theirs = nn.LSTM(x.shape[1], 6, bidirectional=bidirectional)
                if bidirectional:
                    both = cast("nn.Module", layer)
                    weights = both.forward_lstm.state_dict()  # pyright: ignore
                    for name, value in both.backward_lstm.state_dict().items():  # pyright: ignore
                        weights[f"{name}_reverse"] = value
                else:
                    weights = layer.state_dict()
                theirs.load_state_dict(weights)
                x = F.layer_norm(theirs(x)[0], (width,), norm.weight, norm.bias)  # pyright: ignore
            torch.testing.assert_close(together.values[row, :count], x)


@pytest.mark.parametrize("name", SMALL)
def test_padding_changes_nothing_in_training_either(name: str) -> None:
    """Statistics of the batch are those of its real frames: more padding, the same output and gradients."""
    torch.manual_seed(2)
    encoder = SMALL[name]().train()
    short = batch(41, 23, 30)
    long = Padded(F.pad(short.values, (0, 0, 0, 37), value=9.0), short.lengths)
    results: list[tuple[Tensor, list[Tensor]]] = []
    for frames in (short, long):
        encoder.zero_grad()
        y = encoder(frames)
        y.values.square().sum().backward()
        results.append((y.values[:, :11], [cast("Tensor", p.grad).clone() for p in encoder.parameters()]))
    (one, gradients), (two, others) = results
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    for mine, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter_also_in_bfloat16(name: str) -> None:
    for autocast in (False, True):
        torch.manual_seed(2)
        encoder = SMALL[name]().train()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            encoded = encoder(batch(60, 33, 47))
        target = noise(*encoded.values.shape)
        (encoded.values.float() - target).square().sum().backward()
        for key, parameter in encoder.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key
            assert parameter.grad.dtype is torch.float32


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_is_near_float32(name: str) -> None:
    encoder = SMALL[name]().eval()
    frames = batch(60, 33)
    with torch.no_grad():
        exact = encoder(frames).values
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encoder(frames).values.float()
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(("size", "least", "most"), [("tiny", 1.9e6, 2.4e6), ("nano", 4.6e5, 5.4e5)])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_their_size(name: str, size: str, least: float, most: float) -> None:
    encoder, config = PRESETS[name]
    with torch.device("meta"):
        built = encoder(config.preset(size), 80)  # pyright: ignore[reportArgumentType]
    assert least < sum(p.numel() for p in built.parameters()) < most
    with pytest.raises(ConfigError, match="tiny, nano"):
        config.preset("huge")


@pytest.mark.parametrize(
    ("config", "values", "said"),
    [
        (QuartzNetConfig, {"kernels": (17,)}, "kernels = \\[17\\] has 1 numbers for 5 groups"),
        (QuartzNetConfig, {"last_kernel": 8}, "must be odd"),
        (QuartzNetConfig, {"blocks": (0, 1, 1, 1, 1)}, "at least 1"),
        (MobileNetConfig, {"strides": (2,)}, "strides = \\[2\\] has 1 numbers for 4 stages"),
        (MobileNetConfig, {"kernels": (4, 5, 5, 5)}, "must be odd"),
        (MobileNetConfig, {"blocks": (0, 1, 1, 1)}, "at least 1"),
        (ResNetConfig, {"strides": (2, 2)}, "needs 5 numbers"),
        (ResNetConfig, {"blocks": (2,)}, "has 1 numbers for 4 stages"),
        (LstmConfig, {"stack": 2}, "stack = 2 is below subsampling = 4"),
    ],
)
def test_settings_that_do_not_fit_say_so(config: type[QuartzNetConfig], values: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config.model_validate(values)


@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_lstm_steps_joined_equal_one_pass_to_the_last_frame(chunk: int) -> None:
    encoder = cast("Lstm", SMALL["lstm, forward"]().eval())
    window, hop = encoder.window(chunk), encoder.hop(chunk)
    for frames in (3, 64, 65, 66, 67, 90):
        x = noise(frames, MELS)
        with torch.no_grad():
            whole = encoder(pad([x])).values[0]
            state, parts = encoder.start(1, chunk=chunk, left=0), []
            for at in range(0, frames, hop):
                part = x[at : at + window]
                filled = F.pad(part, (0, 0, 0, window - len(part)), value=50.0)
                encoded, state = encoder.step(Padded(filled[None], torch.tensor([len(part)])), state)
                parts.append(encoded.values[0, : int(encoded.lengths[0])])
        torch.testing.assert_close(torch.cat(parts), whole)


def test_lstm_rows_of_a_step_end_each_where_it_ends() -> None:
    encoder = cast("Lstm", SMALL["lstm, forward"]().eval())
    window = encoder.window(4)
    with torch.no_grad():
        encoded, _ = encoder.step(
            Padded(noise(3, window, MELS), torch.tensor([window, 9, 0])), encoder.start(3, chunk=4, left=0)
        )
    assert encoded.lengths.tolist() == [4, 3, 0]
    assert not encoded.values[1, 3:].any()
    assert not encoded.values[2].any()


def test_bidirectional_lstm_cannot_stream() -> None:
    encoder = cast("Lstm", SMALL["lstm"]())
    assert not encoder.causal
    with pytest.raises(ConfigError, match="cannot stream"):
        encoder.start(1, chunk=8, left=0)
    with pytest.raises(ConfigError, match="no chunks"):
        encoder(batch(20), chunk=8)
