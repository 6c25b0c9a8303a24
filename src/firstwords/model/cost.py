"""How much a network computes: parameters, and multiply-accumulates (MACs) per second of audio.

Counted while the network runs once: matrix products, convolutions, attention and LSTM layers, those inside
custom autograd functions too. Element-wise work (norms, activations, softmax) and the features are not
counted. Attention grows with the length of the audio, so a count holds for the seconds it was made with.

By the field's convention one MAC is two FLOPs. Neither says how long it takes (arXiv:2211.09949).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from firstwords.heads.head import FrameHead
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.linear import onednn_linear
from firstwords.tensors import Padded

SECONDS = 10.0  # of audio that is counted with


@dataclass(frozen=True)
class Cost:
    """What one forward pass takes."""

    parameters: int
    macs_per_second: float  # of audio

    @property
    def flops_per_second(self) -> float:
        return 2 * self.macs_per_second


def model_cost(model: SpeechModel, *, seconds: float = SECONDS) -> Cost:
    """Encoder, a front end that is learned, and the heads that give every frame its log-probabilities.

    Of heads that write token by token the parameters alone: their work depends on the text.
    """

    like = next(model.parameters())
    time = round(seconds / model.frontend.frame_shift)
    frames = Padded(like.new_zeros(1, time, model.frontend.dim), torch.tensor([time], device=like.device))

    learned = any(True for _ in model.frontend.parameters())
    samples = round(seconds * model.recipe.data.sample_rate)

    def run() -> None:
        if learned:
            model.frontend(Padded(like.new_zeros(1, samples), torch.tensor([samples], device=like.device)))
        encoded = model.encode_frames(frames)
        for head in model.heads.values():
            if isinstance(head, FrameHead):
                head.log_probs(encoded)

    training = model.training
    model.eval()
    try:
        macs = count_macs(run)
    finally:
        model.train(training)
    return Cost(sum(p.numel() for p in model.parameters()), macs / seconds)


def count_macs(run: Callable[[], Any]) -> float:
    """Multiply-accumulates of what ``run`` computes, without gradients."""
    counter = FlopCounterMode(display=False, custom_mapping=_ON_CPU)
    with torch.no_grad(), counter:
        run()
    return counter.get_total_flops() / 2


def _lstm_layer_flops(x: Any, input_weight: Any, hidden_weight: Any, *_: Any, **__: Any) -> int:
    """Shapes of one direction of one layer: every frame meets both matrices, (4 H, D) and (4 H, H)."""
    return 2 * x[0] * x[1] * input_weight[0] * (input_weight[1] + hidden_weight[1])


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Shapes (B, H, T, D): scores of all pairs, then sums of the values."""
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])


def _product_flops(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Shapes (..., in) and (out, in)."""
    return 2 * math.prod(x) * weight[0]


# Kernels of a CPU that torch's counter does not know.
_ON_CPU = {
    **({onednn_linear(): _product_flops} if onednn_linear() else {}),
    torch.ops.aten.mkldnn_rnn_layer: _lstm_layer_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}
