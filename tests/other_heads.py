"""Untrained models with heads other than CTC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from firstwords.model.checkpoint import save_model
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.text.characters import GraphemeTokenizer
from nonsense_model import CARD
from tone_corpus import tone_recipe

TRANSDUCER: dict[str, Any] = {
    "kind": "transducer",
    "predictor": {"kind": "stateless", "dim": 32},
    "joiner_dim": 32,
}


def other_model(folder: Path, heads: dict[str, Any], search: dict[str, Any]) -> Path:
    """An untrained model with other heads."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tokenizer = GraphemeTokenizer(["<blank>", "▁", *"aeiou"])
        recipe = Recipe.model_validate(tone_recipe().model_dump() | {"heads": heads, "search": search})
        made = SpeechModel(recipe, len(tokenizer.pieces)).eval()
        with torch.no_grad():
            for head in made.heads.parameters():
                head.add_(0.3 * torch.randn_like(head))
    save_model(folder, made, tokenizer, card=CARD)
    return folder
