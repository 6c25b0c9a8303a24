"""8-bit integers against float32 and bfloat16: single linear layers, and whole encoders.

    python benchmarks/int8.py [--models FOLDER ...] [--seconds 5 15] [--threads 1]

Layers: torch's own dynamic quantization, torch._int_mm alone, and Int8Linear, which is _int_mm with the
rounding before and the scales after it. Encoders: some with random weights, and the given models. Times are
the least of seven runs, in milliseconds of processor time.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from firstwords.compression.calibration import input_scales
from firstwords.device import machine_name
from firstwords.model.checkpoint import load_model
from firstwords.model.int8 import compute_in_int8, linear_layers
from firstwords.model.recipe import Recipe
from firstwords.model.selfcheck import synthetic_clip
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.int8 import Int8Linear
from firstwords.nn.linear import Linear
from firstwords.tensors import Padded

LAYERS = ((200, 192, 512), (500, 256, 256), (500, 512, 192), (500, 512, 2048))  # frames, inputs, outputs
ENCODERS = {
    "zipformer 192-256": {
        "kind": "zipformer",
        "dims": [192, 256, 256, 256, 256, 256],
        "layers": [2] * 6,
        "feedforward": [512, 768, 768, 768, 768, 768],
        "heads": [4, 4, 4, 8, 4, 4],
    },
    "conformer 256": {"kind": "conformer", "dim": 256, "layers": 8},
    "transformer 512": {"kind": "transformer", "dim": 512, "layers": 6},
}


def least(work: Callable[[], object], runs: int = 7) -> float:
    """Milliseconds of processor time."""
    work()
    took: list[float] = []
    for _ in range(runs):
        started = time.process_time()
        work()
        took.append(time.process_time() - started)
    return 1000 * min(took)


def layer(frames: int, inputs: int, outputs: int) -> dict[str, float]:
    """One linear layer, all ways."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    torch.manual_seed(0)
    x, linear = torch.randn(frames, inputs), nn.Linear(inputs, outputs)
    theirs = quantize_dynamic(nn.Sequential(copy.deepcopy(linear)), {nn.Linear: per_channel_dynamic_qconfig})
    ours = Linear(inputs, outputs)
    own, fixed = Int8Linear(linear), Int8Linear(linear, float(x.abs().max()) / 127)
    whole = x.mul(20).to(torch.int8)
    weights = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8).t()
    half, narrow = x.bfloat16(), copy.deepcopy(linear).bfloat16()
    return {
        "fp32": least(lambda: ours(x)),
        "fp32 of torch": least(lambda: linear(x)),
        "bf16": least(lambda: narrow(half)),
        "_int_mm alone": least(lambda: torch._int_mm(whole, weights)),
        "dynamic": least(lambda: own(x)),
        "static": least(lambda: fixed(x)),
        "quantize_dynamic": least(lambda: theirs(x)),
    }


def encoder(model: SpeechModel, seconds: float) -> dict[str, float]:
    """A whole encoder, all ways."""
    rate = model.recipe.data.sample_rate
    samples = torch.from_numpy(np.resize(synthetic_clip(rate), int(seconds * rate)))[None]
    audio = Padded(samples, torch.tensor([samples.shape[1]]))
    dynamic, static = copy.deepcopy(model), copy.deepcopy(model)
    compute_in_int8(dynamic)
    compute_in_int8(static, input_scales(static, linear_layers(static), [audio]))
    frames = model.features(audio)
    ways = {"fp32": model, "dynamic": dynamic, "static": static}
    found = {name: least(lambda way=way: way.encode_frames(frames)) for name, way in ways.items()}
    with torch.autocast("cpu", torch.bfloat16):
        found["bf16"] = least(lambda: model.encode_frames(frames))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, nargs="*", default=[])
    parser.add_argument("--seconds", type=float, nargs="*", default=[5.0, 15.0])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # torch says that its quantization will move
    print(f"{machine_name()}, {options.threads} threads; milliseconds")
    with torch.inference_mode():
        for sizes in LAYERS:
            print(sizes, {name: round(value, 3) for name, value in layer(*sizes).items()}, flush=True)
        models = {str(folder): load_model(folder, device="cpu").model for folder in options.models}
        for name, settings in ENCODERS.items():
            torch.manual_seed(0)
            recipe = Recipe.model_validate({"name": "bench", "encoder": settings, "heads": {"ctc": {}}})
            models[name] = SpeechModel(recipe, 300).eval()
        for name, model in models.items():
            for seconds in options.seconds:
                found = {way: round(value, 1) for way, value in encoder(model, seconds).items()}
                print(f"{name}, {model.num_parameters / 1e6:.1f} M, {seconds:g} s", found, flush=True)


if __name__ == "__main__":
    main()
