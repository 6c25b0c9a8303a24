"""Heads of icefall checkpoints: the CTC output, and the transducer's decoder and joiner.

    ctc_output.1.X                 ctc.projection.X
    decoder.X                      transducer.predictor.X
    joiner.encoder_proj.X          transducer.joiner.encoder_proj.X
    joiner.decoder_proj.X          transducer.joiner.predictor_proj.X
    joiner.output_linear.X         transducer.joiner.output.X
    simple_am_proj.X               transducer.simple_encoder.X
    simple_lm_proj.X               transducer.simple_predictor.X

A head that is not there whole is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from firstwords.errors import CheckpointError
from firstwords.heads.ctc import CtcConfig
from firstwords.heads.transducer.head import TransducerConfig
from firstwords.heads.transducer.predictor import StatelessConfig

_CTC = {"ctc_output.1.": "projection."}
_TRANSDUCER = {
    "decoder.": "predictor.",
    "joiner.encoder_proj.": "joiner.encoder_proj.",
    "joiner.decoder_proj.": "joiner.predictor_proj.",
    "joiner.output_linear.": "joiner.output.",
}
_SIMPLE = {"simple_am_proj.": "simple_encoder.", "simple_lm_proj.": "simple_predictor."}


@dataclass(frozen=True)
class ConvertedHead:
    """Settings, and weights under our names; ``origins`` are theirs."""

    config: CtcConfig | TransducerConfig
    weights: dict[str, Tensor]
    origins: frozenset[str]


def read_heads(
    weights: Mapping[str, Tensor], settings: Mapping[str, Any], *, source: str
) -> dict[str, ConvertedHead]:
    """icefall state dict and model arguments -> the heads that are there whole, by our names."""
    heads: dict[str, ConvertedHead] = {}
    if ctc := _renamed(weights, _CTC):
        heads["ctc"] = ConvertedHead(CtcConfig(), *ctc)
    if transducer := _renamed(weights, _TRANSDUCER):
        simple = _renamed(weights, _SIMPLE)
        ours, origins = transducer
        if simple is not None:
            ours, origins = ours | simple[0], origins | simple[1]
        try:
            config = _transducer_config(ours, settings, pruned=simple is not None)
        except (KeyError, IndexError, ValueError) as error:
            raise CheckpointError(
                f"{source}: decoder and joiner are no transducer's ({error}).", mend="Was the file cut short?"
            ) from None
        heads["transducer"] = ConvertedHead(config, ours, origins)
    return heads


def _renamed(
    weights: Mapping[str, Tensor], names: Mapping[str, str]
) -> tuple[dict[str, Tensor], frozenset[str]] | None:
    """Tensors under our names, and their own; None where one of the parts has none."""
    ours: dict[str, Tensor] = {}
    origins: set[str] = set()
    for theirs, new in names.items():
        found = [name for name in weights if name.startswith(theirs)]
        if not found:
            return None
        origins.update(found)
        ours |= {new + name.removeprefix(theirs): weights[name] for name in found}
    return ours, frozenset(origins)


def _transducer_config(
    weights: Mapping[str, Tensor], settings: Mapping[str, Any], *, pruned: bool
) -> TransducerConfig:
    """Sizes from shapes; the loss from settings, else the published one; without its layers the full loss."""
    convolution = weights.get("predictor.conv.weight")
    given = {
        ours: settings[theirs]
        for ours, theirs in (
            ("prune_range", "prune_range"),
            ("lm_scale", "lm_scale"),
            ("am_scale", "am_scale"),
            ("simple_weight", "simple_loss_scale"),
        )
        if theirs in settings
    }
    return TransducerConfig.model_validate(
        {
            "predictor": StatelessConfig(
                dim=weights["predictor.embedding.weight"].shape[1],
                context=1 if convolution is None else convolution.shape[2],
            ),
            "joiner_dim": weights["joiner.output.weight"].shape[1],
            "loss": "pruned" if pruned else "full",
            **given,
        }
    )
