"""An untrained model folder: it reads nonsense, but quickly, and the same nonsense always."""

from __future__ import annotations

from pathlib import Path

import torch

from firstwords.model.checkpoint import save_model
from firstwords.model.kinds import EncoderSettings
from firstwords.model.speech_model import SpeechModel
from firstwords.text.characters import GraphemeTokenizer
from tone_corpus import tone_recipe

CARD = "# nonsense\n\n| | |\n|---|---|\n| training speech | 0.50 h, 9 utterances |\n| dev WER | 100.0 % |\n"


def make_nonsense_model(folder: Path, *, seed: int = 3, encoder: EncoderSettings | None = None) -> Path:
    """Write a model with random weights, loud enough that it reads something into every sound."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = GraphemeTokenizer.train(["aeiou aeiou aeiou"] * 5)
        recipe = tone_recipe() if encoder is None else tone_recipe().with_(encoder=encoder)
        model = SpeechModel(recipe, len(tokenizer.pieces)).eval()
        with torch.no_grad():
            model.ctc.projection.weight.normal_(0, 3)
            model.ctc.projection.bias[7:] = -1e3  # letters and space, not bytes
    save_model(folder, model, tokenizer, card=CARD)
    return folder
