"""Which graphs a model gives, which engines can run them, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from firstwords.encoders.zipformer.encoder import Zipformer
from firstwords.errors import ConfigError
from firstwords.export.graphs import (
    Graph,
    JoinerGraph,
    OfflineCtc,
    OfflineEncoder,
    Spoken,
    StreamingStep,
    TokenReader,
    frontend_graph,
)
from firstwords.export.states import StateLayout
from firstwords.features.fbank import Fbank, FbankConfig
from firstwords.features.mfcc import Mfcc
from firstwords.heads.ctc import CtcHead
from firstwords.heads.transducer.head import TransducerHead
from firstwords.heads.transducer.predictor import StatelessPredictor
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel

Kind = Literal["ctc", "transducer"]
CHUNK_MS = 640.0
_LEAST_FRAMES = 16  # feature frames that every encoder here takes; shorter input is filled up
_WIDEST = 3  # shifts of a window in a stream: its own, and one on either side
_SUBSAMPLING = 4  # fixed in sherpa-onnx


@dataclass(frozen=True)
class Plan:
    """The graphs of a bundle by part ("model", or "encoder", "decoder", "joiner", and "features").

    facts: what bundle.json says of kind, chunk and states.
    alone: why sherpa-onnx cannot run the bundle; empty where it can.
    """

    kind: Kind
    streaming: bool
    graphs: Mapping[str, Graph]
    facts: Mapping[str, Any]
    alone: tuple[str, ...]


def plan_bundle(
    model: SpeechModel,
    *,
    kind: Kind | None = None,
    streaming: bool = False,
    chunk_ms: float = CHUNK_MS,
    silent: Sequence[int] = (),
) -> Plan:
    """What to export of a model; ConfigError where nothing fits.

    Args:
        silent: pieces that are no text (``Tokenizer.silent``).
        kind: which head; not given: CTC where there is one, else the transducer.
        chunk_ms: about how much audio a streaming step reads.
    """
    recipe = model.recipe
    if recipe.data.equalize:
        raise ConfigError(
            f"'{recipe.name}' brings voices to one spectrum before it hears them (data.equalize), which no "
            "bundle does yet.",
            mend="Transcribe with the model folder, or train with data.equalize = false.",
        )
    kind = kind or _kind_of(model)
    head = _transducer(model) if kind == "transducer" else model.ctc
    if head is None:
        raise ConfigError(
            f"'{recipe.name}' has no CTC head: its heads are {', '.join(recipe.heads)}.",
            mend="Export it as a transducer: --head transducer."
            if "transducer" in recipe.heads
            else "Train with [heads.ctc] or [heads.transducer].",
        )
    common = {"version": "1", "model_author": "firstwords", "comment": f"{recipe.name} ({recipe.language})"}
    graphs: dict[str, Graph] = {"features": frontend_graph(model.frontend)}
    facts: dict[str, Any] = {}
    if streaming:
        name, graph, facts = _streaming(model, head, chunk_ms, silent, common)
        graphs[name] = graph
    elif isinstance(head, CtcHead):
        graphs["model"] = _offline(model, head, silent, common)
    else:
        graphs["encoder"] = _offline(model, head, silent, common)
    if isinstance(head, TransducerHead):
        graphs["decoder"], graphs["joiner"] = _decoder(head, common), _joiner(head, common)
        facts["context_size"] = head.predictor.context
    return Plan(kind, streaming, graphs, facts, only_ours(recipe, model.encoder.subsampling))


def only_ours(recipe: Recipe, subsampling: int) -> tuple[str, ...]:
    """Why sherpa-onnx would read nonsense or tell wrong times; empty where it can run such a model."""
    reasons: list[str] = []
    if subsampling != _SUBSAMPLING:
        reasons.append(
            f"one output frame per {subsampling} feature frames, where sherpa-onnx counts {_SUBSAMPLING}: "
            "its times and end points would be wrong"
        )
    features = recipe.features
    if not isinstance(features, FbankConfig):
        reasons.append(f"features of kind '{features.kind}', where sherpa-onnx computes log-mel frames")
        return tuple(reasons)
    usual = FbankConfig()
    for name in ("sample_rate", "mels", "window_ms", "shift_ms", "low", "high_hz", "dither", "snip_edges",
                 "preemphasis", "window", "scale"):  # fmt: skip
        own, wanted = getattr(features, name), getattr(usual, name)
        if own != wanted:
            reasons.append(f"features.{name.removesuffix('_hz')} = {own}, where sherpa-onnx takes {wanted}")
    return tuple(reasons)


def _kind_of(model: SpeechModel) -> Kind:
    if model.ctc is None and "transducer" in model.heads:
        return "transducer"
    return "ctc"


def _transducer(model: SpeechModel) -> TransducerHead:
    if "transducer" not in model.heads:
        raise ConfigError(
            f"'{model.recipe.name}' has no transducer head: its heads are {', '.join(model.recipe.heads)}.",
            mend="Export it as CTC: --head ctc.",
        )
    head = cast("TransducerHead", model.heads["transducer"])
    if not isinstance(head.predictor, StatelessPredictor):
        raise ConfigError(
            f"a predictor of kind '{head.config.predictor.kind}' has a state of its own, which edge engines "
            "do not hand round.",
            mend='Train with heads.transducer.predictor.kind = "stateless".'
            + (" Or export the CTC head: --head ctc." if model.ctc is not None else ""),
        )
    if head.config.durations is not None:
        raise ConfigError(
            "a transducer with durations skips frames in a way that edge engines do not know.",
            mend="Train without heads.transducer.durations."
            + (" Or export the CTC head: --head ctc." if model.ctc is not None else ""),
        )
    return head


def _offline(
    model: SpeechModel, head: CtcHead | TransducerHead, silent: Sequence[int], common: Mapping[str, str]
) -> Graph:
    frames = 97  # no multiple of anything an encoder divides by
    example = torch.randn(2, frames, model.frontend.dim), torch.tensor([frames, frames - 23])
    x = {"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}}
    if isinstance(head, CtcHead):
        return Graph(
            OfflineCtc(model, silent),
            example,
            ("x", "x_lens"),
            ("log_probs", "log_probs_len"),
            {**x, "log_probs": {0: "N", 1: "T_out"}, "log_probs_len": {0: "N"}},
            {"model_type": "zipformer2_ctc", **common},
            _LEAST_FRAMES,
        )
    return Graph(
        OfflineEncoder(model, head),
        example,
        ("x", "x_lens"),
        ("encoder_out", "encoder_out_lens"),
        {**x, "encoder_out": {0: "N", 1: "T_out"}, "encoder_out_lens": {0: "N"}},
        {"model_type": "zipformer2", **common},
        _LEAST_FRAMES,
    )


def _streaming(
    model: SpeechModel,
    head: CtcHead | TransducerHead,
    chunk_ms: float,
    silent: Sequence[int],
    common: Mapping[str, str],
) -> tuple[str, Graph, dict[str, Any]]:
    """Part, graph and what bundle.json says of chunk and states."""
    encoder = model.encoder
    if not isinstance(encoder, Zipformer):
        raise ConfigError(
            f"an encoder of kind '{model.recipe.encoder.kind}' has no streaming layout that engines know.",
            mend="Export it without --streaming, or train a causal Zipformer (encoder.causal = true).",
        )
    if encoder.subsampling != _SUBSAMPLING:
        raise ConfigError(
            f"this Zipformer gives a frame per {encoder.subsampling} feature frames; the streaming layout "
            f"holds {_SUBSAMPLING}.",
            mend="Export it without --streaming, or train with encoder.output_downsampling = 2.",
        )
    fbank = model.frontend if isinstance(model.frontend, Fbank) else cast("Mfcc", model.frontend).fbank
    if fbank.width > _WIDEST * fbank.shift:
        raise ConfigError(
            f"windows of {fbank.width} samples reach more than a frame beyond their steps of {fbank.shift}, "
            "further than a stream through a bundle looks.",
            mend=f"Export it without --streaming, or train with windows of at most {_WIDEST} shifts "
            "(features.window_ms, features.shift_ms).",
        )
    wanted = round(chunk_ms / 1000 / (model.frontend.frame_shift * 2))
    chunk, left = encoder.nearest_context(wanted, None)
    layout = StateLayout(encoder, chunk, left)
    last, part, said = (
        (Spoken(head, silent), "model", "log_probs")
        if isinstance(head, CtcHead)
        else (head.joiner.encoder_proj, "encoder", "encoder_out")
    )
    x = torch.randn(2, encoder.window(chunk), model.frontend.dim)
    graph = Graph(
        StreamingStep(encoder, layout, last),
        (x, *layout.start(2, x)),
        ("x", *layout.names),
        (said, *(f"new_{name}" for name in layout.names)),
        {"x": {0: "N"}, said: {0: "N"}, **layout.axes},
        {"model_type": "zipformer2", **common, **layout.metadata(encoder)},
    )
    facts = {
        "chunk": {"frames": encoder.window(chunk), "shift": encoder.hop(chunk), "left": 2 * left},
        "states": layout.of_one,
    }
    return part, graph, facts


def _decoder(head: TransducerHead, common: Mapping[str, str]) -> Graph:
    context = head.predictor.context
    return Graph(
        TokenReader(head),
        (torch.tensor([[-1] * (context - 1) + [0], [1] * context]),),
        ("y",),
        ("decoder_out",),
        {"y": {0: "N"}, "decoder_out": {0: "N"}},
        {**common, "context_size": str(context), "vocab_size": str(head.vocabulary)},
    )


def _joiner(head: TransducerHead, common: Mapping[str, str]) -> Graph:
    dim = head.config.joiner_dim
    return Graph(
        JoinerGraph(head.joiner),
        (torch.randn(2, dim), torch.randn(2, dim)),
        ("encoder_out", "decoder_out"),
        ("logit",),
        {"encoder_out": {0: "N"}, "decoder_out": {0: "N"}, "logit": {0: "N"}},
        {**common, "joiner_dim": str(dim)},
    )
