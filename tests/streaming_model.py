"""A causal model with random weights, as in nonsense_model.py, and minutes of sound for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from firstwords.model.checkpoint import save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.tensors import pad
from firstwords.text.characters import GraphemeTokenizer
from nonsense_model import CARD
from tone_corpus import random_text, sing, tone_recipe


def causal_recipe(**changes: object) -> Recipe:
    """The tone recipe with a causal encoder."""
    values = tone_recipe().model_dump()
    values["encoder"] |= {"causal": True, "chunks": [16, 32, 64, -1]}
    return Recipe.model_validate(values | changes)


def make_causal_model(folder: Path, *, seed: int = 3, **changes: object) -> Path:
    """Write a causal model with random weights that reads letters and blanks into every sound."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = GraphemeTokenizer.train(["aeiou aeiou aeiou"] * 5)
        model = SpeechModel(causal_recipe(**changes), len(tokenizer.pieces)).eval()
        with torch.no_grad():
            for parameter in model.encoder.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            model.ctc.projection.weight.normal_(0, 3)
            model.ctc.projection.bias[7:] = -1e3  # letters and space, not bytes
            mean = model.encode(pad([torch.from_numpy(talk(8))])).values[0].mean(dim=0)
            model.ctc.projection.bias[:7] -= model.ctc.projection.weight[:7] @ mean  # no letter everywhere
            model.ctc.projection.bias[0] += 3
    save_model(folder, model, tokenizer, card=CARD)
    return folder


def talk(seconds: float, seed: int = 0) -> np.ndarray:
    """Words of tones with pauses of 0.3 to 3 seconds between them."""
    generator = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * 16000:
        parts.append(sing(random_text(generator, int(generator.integers(1, 4))), generator))
        pause = generator.uniform(0.3, 3.0) if generator.random() < 0.5 else 0.3
        parts.append((0.002 * generator.standard_normal(int(pause * 16000))).astype(np.float32))
    return np.concatenate(parts)[: round(seconds * 16000)].astype(np.float32)
