"""A language model moves into a decoder (heads/attention/fusion.py) when a training begins.

Its sizes are written into the recipe, its weights into the model: from then on its folder is not needed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from firstwords.errors import TrainingError
from firstwords.heads.attention.fusion import DeepFusion, Fusion, FusionConfig
from firstwords.heads.attention.speller import SpellerConfig, SpellerHead
from firstwords.heads.attention.transformer import TransformerDecoderConfig, TransformerDecoderHead
from firstwords.lm.neural.folder import load_neural
from firstwords.model.checkpoint import LoadedModel
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.nn.input_norm import InputNorm
from firstwords.nn.norms import MaskedBatchNorm
from firstwords.text.tokenizer import Tokenizer
from firstwords.training.fine_tune import keeps_head


def with_sizes(recipe: Recipe, stored: Recipe | None = None) -> Recipe:
    """The recipe with the sizes of its language model, read from its folder or from a run that has begun."""
    fusion = _settings(recipe)
    if fusion is None or fusion.network is not None:
        return recipe
    before = _settings(stored) if stored is not None else None
    if before is not None and before.folder == fusion.folder:
        found = {"network": before.network, "units": before.units}
    else:
        lm = load_neural(_folder(fusion))
        found = {"network": lm.header.network, "units": len(lm.words)}
    head = recipe.heads["attention"]
    head = head.model_copy(update={"fusion": fusion.model_copy(update=found)})
    return recipe.model_copy(update={"heads": {**recipe.heads, "attention": head}})


def move_in(model: SpeechModel, tokenizer: Tokenizer, start: LoadedModel | None) -> str | None:
    """Weights of the folder into the decoder of a run that begins -> a sentence for the user.

    None without fusion, and where the trained decoder is kept and has brought the same one.
    """
    fusion = fusion_of(model)
    settings = _settings(model.recipe)
    if fusion is None or settings is None:
        return None
    kept = start is not None and keeps_head("attention", model, tokenizer, start)
    if isinstance(fusion, DeepFusion) and not kept:
        raise TrainingError(
            "Deep fusion teaches a trained decoder to listen to a language model, and there is none.",
            mend="Start from a model with this decoder and these pieces (--from MODEL), or set "
            'heads.attention.fusion.kind = "cold".',
        )
    if start is not None and kept and _settings(start.recipe) == settings:
        return None
    lm = load_neural(_folder(settings))
    lm.check_normalizer(model.recipe.text.normalizer)
    columns = torch.from_numpy(lm.columns(tokenizer))
    if lm.header.network != settings.network or len(lm.words) != settings.units:
        raise TrainingError(
            f"The language model in '{settings.folder}' has other sizes than the recipe says.",
            mend="Leave heads.attention.fusion.network and units out of the recipe: they are read there. "
            "With --from they come from that model: another language model must then have the same sizes.",
        )
    inside = fusion.language_model
    inside.network.load_state_dict(lm.network.state_dict())
    inside.columns.copy_(columns)
    count = sum(p.numel() for p in inside.network.parameters())
    return (
        f"The decoder listens to the language model in '{settings.folder}' ({count / 1e6:.2f} M parameters)."
    )


def freeze_for_deep_fusion(model: SpeechModel) -> bool:
    """Deep fusion teaches its gate and the output layer alone (Gulcehre et al., section 4.2.1).

    Statistics that follow training are held as well: the frozen weights were trained with those they have.
    """
    fusion = fusion_of(model)
    if not isinstance(fusion, DeepFusion):
        return False
    model.requires_grad_(False)
    decoder = model.heads["attention"]
    assert isinstance(decoder, SpellerHead | TransformerDecoderHead)
    for part in (fusion.gate, fusion.beside, decoder.output):
        part.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, InputNorm | MaskedBatchNorm):
            module.held = True
            module.eval()
    return True


def fusion_of(model: SpeechModel) -> Fusion | None:
    """What fuses in a model's decoder, if anything."""
    head = dict(model.named_heads()).get("attention")
    return head.fusion if isinstance(head, SpellerHead | TransformerDecoderHead) else None


def _settings(recipe: Recipe) -> FusionConfig | None:
    head = recipe.heads.get("attention")
    return head.fusion if isinstance(head, SpellerConfig | TransformerDecoderConfig) else None


def _folder(fusion: FusionConfig) -> Path:
    if not fusion.folder:
        raise TrainingError(
            "recipe.heads.attention.fusion names no language model.",
            mend="Set heads.attention.fusion.folder to one that 'firstwords lm train --kind lstm' wrote.",
        )
    return Path(fusion.folder)
