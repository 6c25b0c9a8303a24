"""Laws of every encoder, over every kind and a few settings of each.

An utterance gives the same frames alone and padded in a batch; lengths are kept; the order of a batch does
not matter; eight utterances are learned by heart. A streaming encoder: steps joined equal one pass with the
same chunk mask, and no frame depends on the future beyond its chunk and look-ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from firstwords.encoders.conformer import Conformer, ConformerConfig
from firstwords.encoders.dnn import Dnn, DnnConfig
from firstwords.encoders.e_branchformer import EBranchformer, EBranchformerConfig
from firstwords.encoders.encoder import Encoder
from firstwords.encoders.listener import Listener, ListenerConfig
from firstwords.encoders.lstm import Lstm, LstmConfig
from firstwords.encoders.mobilenet import MobileNet, MobileNetConfig
from firstwords.encoders.quartznet import QuartzNet, QuartzNetConfig
from firstwords.encoders.resnet import ResNet, ResNetConfig
from firstwords.encoders.squeezeformer import Squeezeformer, SqueezeformerConfig
from firstwords.encoders.transformer import Transformer, TransformerConfig
from firstwords.encoders.zipformer import Zipformer, ZipformerConfig
from firstwords.encoders.zipformer.streaming import window
from firstwords.heads.ctc import CtcConfig, CtcHead
from firstwords.model import kinds
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.nn.subsampling import SubsamplingConfig
from firstwords.tensors import Padded, pad
from small_zipformer import SMALL

MELS = 80
# float32 rounding: other sizes take other kernels; the values are about 3, the layers about ten
TOLERANCE = 2e-5

CAUSAL = SMALL.with_(causal=True, chunks=(8, 16, -1))
SIZES: dict[str, Any] = {
    "dim": 24, "layers": 2, "heads": 2, "feedforward": 32, "subsampling": SubsamplingConfig(channels=8)
}  # fmt: skip
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "zipformer": lambda: Zipformer(SMALL, MELS),
    "zipformer, one stack": lambda: Zipformer(
        ZipformerConfig(
            dims=24, layers=2, downsampling=(1,), feedforward=32, heads=2, unmasked_dims=24, kernels=5
        ),  # pyright: ignore[reportArgumentType]
        MELS,
    ),
    "zipformer, nano": lambda: Zipformer(ZipformerConfig.preset("nano"), MELS),
    "zipformer, causal": lambda: Zipformer(CAUSAL, MELS),
    "listener": lambda: Listener(ListenerConfig(width=12), MELS),
    "listener, three layers over one": lambda: Listener(ListenerConfig(width=10, bottom=1, layers=3), MELS),
    "quartznet": lambda: QuartzNet(QuartzNetConfig.preset("nano"), MELS),
    "quartznet, 50 Hz": lambda: QuartzNet(QuartzNetConfig.preset("nano").with_(subsampling=2), MELS),
    "mobilenet": lambda: MobileNet(MobileNetConfig.preset("nano"), MELS),
    "mobilenet, without gates": lambda: MobileNet(
        MobileNetConfig(channels=(8, 12), blocks=(2, 1), kernels=(5, 7), strides=(3, 2), squeeze=False), MELS
    ),
    "resnet": lambda: ResNet(ResNetConfig.preset("nano").with_(blocks=(1, 1, 1, 1)), MELS),
    "resnet, three halvings": lambda: ResNet(
        ResNetConfig(channels=(4, 6), blocks=(1, 2), strides=(2, 2, 2)), MELS
    ),
    "resnet, separable": lambda: ResNet(
        ResNetConfig(channels=(4, 6), blocks=(1, 2), strides=(2, 1, 2), separable=True), MELS
    ),
    "lstm": lambda: Lstm(LstmConfig.preset("nano"), MELS),
    "lstm, forward": lambda: Lstm(LstmConfig.preset("nano").with_(bidirectional=False), MELS),
    "dnn": lambda: Dnn(DnnConfig.preset("nano"), MELS),
    "dnn, no context": lambda: Dnn(DnnConfig(context=0, hidden=16, layers=2, subsampling=3), MELS),
    "transformer": lambda: Transformer(TransformerConfig(**SIZES), MELS),
    "transformer, post-norm, learned positions": lambda: Transformer(
        TransformerConfig(**SIZES, norm="post", positions="learned", max_frames=60), MELS
    ),
    "conformer": lambda: Conformer(ConformerConfig(**SIZES, kernel=9), MELS),
    "conformer, batch norm": lambda: Conformer(
        ConformerConfig(**SIZES, kernel=9, convolution_norm="batch"), MELS
    ),
    "conformer, fast": lambda: Conformer(
        ConformerConfig(
            **SIZES | {"subsampling": SubsamplingConfig(factor=8, channels=8, separable=True)}, kernel=5
        ),
        MELS,
    ),
    "conformer, causal": lambda: Conformer(ConformerConfig(**SIZES, kernel=7, causal=True), MELS),
    "squeezeformer": lambda: Squeezeformer(
        SqueezeformerConfig(**SIZES | {"layers": 4}, kernel=9, reduce_at=1, recover_at=3), MELS
    ),
    "e_branchformer": lambda: EBranchformer(
        EBranchformerConfig(**SIZES, gate_width=40, kernel=9, merge_kernel=5), MELS
    ),
}


def test_every_kind_obeys_these_laws() -> None:
    assert {name.partition(",")[0] for name in ENCODERS} == set(kinds.ENCODERS)


def make(name: str) -> Encoder:
    torch.manual_seed(3)
    encoder = ENCODERS[name]().eval()
    with torch.no_grad():  # fresh weights leave many parts nearly switched off: wake them
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    norms = [part for part in encoder.modules() if isinstance(part, MaskedBatchNorm)]
    if norms:  # statistics as after training, or values grow from layer to layer
        for norm in norms:
            norm.momentum = 1.0
        encode(encoder.train(), noise(150, 90))
    return encoder.eval()


def noise(*frames: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(n, MELS, generator=generator) for n in frames]


def encode(encoder: Encoder, sequences: Sequence[Tensor], fill: float = 0.0) -> Padded:
    with torch.no_grad():
        return encoder(pad(sequences, fill))


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("fill", [0.0, -23.0, 50.0])
@pytest.mark.parametrize("name", ENCODERS)
def test_padding_does_not_change_frames(name: str, fill: float) -> None:
    encoder = make(name)
    utterances = noise(203, 90, 61, 45, 9, 128)
    together = encode(encoder, utterances, fill)
    for i, utterance in enumerate(utterances):
        alone = encode(encoder, [utterance])
        count = int(alone.lengths[0])
        assert int(together.lengths[i]) == count
        assert alone.values.shape[1] == max(count, 1)
        assert count > 0 or len(utterance) < 2 * encoder.subsampling
        same(together.values[i, :count], alone.values[0, :count])
        assert not together.values[i, count:].any(), "values beyond the length must be zero"


@pytest.mark.parametrize("name", ENCODERS)
def test_lengths_are_known_without_computing(name: str) -> None:
    encoder = make(name)
    for frames in (0, 3, 8, 9, 10, 11, 12, 13, 40, 41, 42, 43):
        encoded = encode(encoder, noise(frames))
        assert encoded.lengths.tolist() == encoder.output_lengths(torch.tensor([frames])).tolist()
        assert int(encoded.lengths[0]) <= encoded.values.shape[1]
        assert encoded.values.shape[2] == encoder.dim
        assert bool(encoded.values.isfinite().all())
    steps = [int(encoder.output_lengths(torch.tensor([n]))[0]) for n in range(100, 100 + encoder.subsampling)]
    assert steps[-1] - steps[0] <= 1


@pytest.mark.parametrize("name", ENCODERS)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    encoder = make(name)
    utterances = noise(90, 120, 45)
    forward, backward = encode(encoder, utterances), encode(encoder, utterances[::-1])
    same(forward.values, backward.values.flip(0))
    assert forward.lengths.tolist() == backward.lengths.tolist()[::-1]


@pytest.mark.parametrize("name", ENCODERS)
def test_no_strided_pointwise_convolution(name: str) -> None:
    """In bfloat16 oneDNN writes past its buffer there (``nn.convolution.convolve``): memory breaks unseen."""
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten.convolution.default:
                seen.append((tuple(args[1].shape[2:]), tuple(args[3])))
            return function(*args, **(kwargs or {}))

    with Watch(), torch.no_grad():
        ENCODERS[name]().train()(pad(noise(90, 45, 60)))
    assert not [(size, stride) for size, stride in seen if max(size) == 1 and max(stride) > 1]


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_gets_no_gradient(name: str) -> None:
    encoder = make(name)
    batch = pad(noise(90, 45))
    batch.values.requires_grad_(True)
    encoded = encoder(batch)
    encoded.values.square().sum().backward()
    gradient = batch.values.grad
    assert gradient is not None
    assert not gradient[1, 45:].any()
    assert gradient[1, :40].any()


def eight_utterances() -> tuple[Padded, Padded]:
    """Made-up log-mel frames far from zero, five "phones" of 80 ms with pauses in each; and the phones."""
    generator = torch.Generator().manual_seed(1)
    phones = torch.randn(6, 80, generator=generator)
    frames, texts = [], []
    for _ in range(8):
        text = torch.randint(1, 6, (5,), generator=generator)
        x = 0.5 * torch.randn(72, 80, generator=generator) - 8
        for i, phone in enumerate(text.tolist()):
            x[4 + 12 * i : 12 + 12 * i] += 3 * phones[phone]
        frames.append(x)
        texts.append(text)
    return pad(frames), pad(texts)


@pytest.mark.parametrize("kind", kinds.ENCODERS)
def test_eight_utterances_can_be_learned_by_heart(kind: str) -> None:
    torch.manual_seed(3)
    encoder = ENCODERS[kind]().train()
    head = CtcHead(CtcConfig(dropout=0.0), encoder.dim, 6)
    frames, texts = eight_utterances()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        head.loss(encoder(frames), texts).mean().backward()
        optimizer.step()
    with torch.no_grad():
        best = head.log_probs(encoder.eval()(frames)).values.argmax(dim=2)
    read = [[s for s in row.unique_consecutive().tolist() if s] for row in best]
    assert read == [text.tolist() for text in texts.values]


@pytest.mark.parametrize(("chunk", "left"), [(1, 1), (1, 7), (4, 4), (4, 16), (16, 16)])
def test_conformer_steps_joined_equal_one_pass_with_the_same_chunks(chunk: int, left: int) -> None:
    encoder = make("conformer, causal")
    assert isinstance(encoder, Conformer)
    frames = torch.tensor([4 * 37 + 3, 4 * 21 + 4])  # 37 and 21 output frames: the last windows are shorter
    x = torch.stack(noise(int(frames[0]), int(frames[0])))
    x[1, frames[1] :] = 9.0
    with torch.no_grad():
        whole = encoder(Padded(x, frames), chunk=chunk, left=left)
        state, parts, lengths = encoder.start(2, chunk=chunk, left=left), [], torch.zeros(2, dtype=torch.long)
        for at in range(0, 4 * 37, 4 * chunk):
            part = x[:, at : at + encoder.window(chunk)]
            own = (frames - at).clamp(min=0, max=part.shape[1])
            encoded, state = encoder.step(Padded(part, own), state)
            parts.append(encoded.values)
            lengths += encoded.lengths
    assert lengths.tolist() == whole.lengths.tolist() == state.processed.tolist() == [37, 21]
    same(torch.cat(parts, dim=1), whole.values)


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_conformer_frame_depends_on_its_chunks_alone(chunk: int) -> None:
    """Attention reaches from a frame to the end of the next chunk, a convolution 6 frames further."""
    encoder = make("conformer, causal")
    assert isinstance(encoder, Conformer)
    (x,) = noise(4 * 40 + 3)
    end = 4 * 28 + 3  # of what the first 28 output frames see
    later, earlier = x.clone(), x.clone()
    later[end:] += 3.0
    earlier[:4] += 3.0  # seen by output frame 0 alone
    with torch.no_grad():
        before, after, moved = (
            encoder(Padded(y[None], torch.tensor([len(y)])), chunk=chunk, left=chunk).values[0]
            for y in (x, later, earlier)
        )
    assert torch.equal(before[:28], after[:28])
    assert not torch.equal(before[28:], after[28:])
    last = 0
    for _ in range(2):  # layers
        last = (last // chunk + 2) * chunk - 1 + 6
    assert torch.equal(before[last + 1 :], moved[last + 1 :])
    assert not torch.equal(before[last], moved[last])


@pytest.mark.parametrize(("chunk", "left"), [(8, 32), (16, 16), (16, 64), (32, 32)])
def test_steps_joined_equal_one_pass_with_the_same_chunks(chunk: int, left: int) -> None:
    encoder = make("zipformer, causal")
    assert isinstance(encoder, Zipformer)
    frames = 2 * chunk * 5 + 13
    x = torch.stack(noise(frames, frames))
    with torch.no_grad():
        whole = encoder(Padded(x, torch.tensor([frames] * 2)), chunk=chunk, left=left)
        state, parts = encoder.start(2, chunk=chunk, left=left), []
        for at in range(0, 2 * chunk * 5, 2 * chunk):
            part = x[:, at : at + window(chunk)]
            encoded, state = encoder.step(Padded(part, torch.tensor([part.shape[1]] * 2)), state)
            assert encoded.lengths.tolist() == [chunk // 2] * 2
            parts.append(encoded.values)
    joined = torch.cat(parts, dim=1)
    same(joined, whole.values[:, : joined.shape[1]])
    assert state.processed.tolist() == [5 * chunk] * 2


@pytest.mark.parametrize("chunk", [8, 16])
def test_a_frame_does_not_depend_on_later_chunks(chunk: int) -> None:
    encoder = make("zipformer, causal")
    assert isinstance(encoder, Zipformer)
    (x,) = noise(2 * chunk * 4 + 13)
    end = 2 * chunk * 2 + 13  # of the second chunk's window
    changed = x.clone()
    changed[end:] += 3.0
    with torch.no_grad():
        before, after = (
            encoder(Padded(y[None], torch.tensor([len(y)])), chunk=chunk, left=-1).values[0]
            for y in (x, changed)
        )
    assert torch.equal(before[:chunk], after[:chunk])
    assert not torch.equal(before[chunk:], after[chunk:])


def test_left_context_is_limited() -> None:
    """One layer with one chunk to the left: three sums by attention weights, a convolution after two of them.

    A change in chunk 0 reaches chunk 1 (the non-linear attention), 2 (the first attention), the two frames
    behind it (convolution), so chunk 4 (the second attention), and two frames more.
    """
    torch.manual_seed(3)
    config = ZipformerConfig(
        dims=24, layers=1, downsampling=(1,), feedforward=32, heads=2, unmasked_dims=24, kernels=5,
        causal=True, chunks=(8,),
    )  # fmt: skip
    encoder = Zipformer(config, MELS).eval()
    (x,) = noise(2 * 8 * 8 + 13)
    changed = x.clone()
    changed[:10] += 3.0  # at most the frames 0 to 7 at 50 Hz (three of look-around)
    with torch.no_grad():
        near, far = (
            [
                encoder(Padded(y[None], torch.tensor([len(y)])), chunk=8, left=left).values[0]
                for y in (x, changed)
            ]
            for left in (-1, 8)
        )
    first = (5 * 8 + 2) // 2  # out of reach, at 25 Hz
    assert not torch.equal(near[0][first:], near[1][first:])
    assert torch.equal(far[0][first:], far[1][first:])
    assert not torch.equal(far[0][:first], far[1][:first])
