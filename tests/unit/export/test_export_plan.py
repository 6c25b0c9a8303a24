"""What can be exported, for whom, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from firstwords.errors import ConfigError
from firstwords.export.left_out import left_out
from firstwords.export.plan import Kind, only_ours, plan_bundle
from firstwords.export.write import refuse_other_folders, write_bundle
from firstwords.model.checkpoint import LoadedModel
from firstwords.model.recipe import Recipe
from firstwords.model.speech_model import SpeechModel
from firstwords.text.characters import GraphemeTokenizer

ZIPFORMER: dict[str, Any] = {
    "kind": "zipformer", "dims": 16, "layers": 1, "downsampling": [1, 2], "feedforward": 16, "heads": 2,
    "query_head_dim": 4, "value_head_dim": 4, "kernels": 5, "unmasked_dims": 16, "embed_channels": [4, 4, 4],
}  # fmt: skip
CTC: dict[str, Any] = {"ctc": {"kind": "ctc"}}


def model(encoder: dict[str, Any] | None = None, **changes: Any) -> SpeechModel:
    torch.manual_seed(0)
    values = {"encoder": encoder or ZIPFORMER, "heads": CTC} | changes
    return SpeechModel(Recipe.model_validate(values), 9).eval()


def transducer(**changes: Any) -> dict[str, Any]:
    return {
        "transducer": {"kind": "transducer", "joiner_dim": 8, "predictor": {"kind": "stateless", "dim": 8}}
        | changes
    }


GREEDY = {"search": {"kind": "transducer_greedy"}}


def test_the_usual_model_is_for_everybody() -> None:
    plan = plan_bundle(model())
    assert (plan.kind, plan.streaming, plan.alone) == ("ctc", False, ())
    assert set(plan.graphs) == {"features", "model"}


def test_a_transducer_without_ctc_is_found() -> None:
    plan = plan_bundle(
        model(heads=transducer(predictor={"kind": "stateless", "dim": 8, "context": 1}), **GREEDY)
    )
    assert set(plan.graphs) == {"features", "encoder", "decoder", "joiner"}
    assert plan.facts["context_size"] == 1


DECODER = {"attention": {"kind": "transformer_decoder", "width": 16, "layers": 1, "heads": 2}}
BOTH = CTC | transducer()


@pytest.mark.parametrize(
    ("heads", "search", "kind", "said"),
    [
        (CTC | DECODER, "attention_beam", "ctc", "The model reads with attention and ctc (attention_beam), "),
        (BOTH, "transducer_greedy", "ctc", "its error rate is another. Export that head: --head transducer."),
        (BOTH, "greedy", "transducer", "The model reads with ctc (greedy), the bundle with transducer alone"),
        (BOTH, "transducer_greedy", "transducer", ""),
        (CTC, "ctc_beam", "ctc", "The search of the recipe (ctc_beam) is not in the bundle"),
        (CTC, "greedy", "ctc", ""),
    ],
)
def test_a_bundle_that_reads_by_other_means_says_so(
    tmp_path: Path, heads: dict[str, Any], search: str, kind: Kind, said: str
) -> None:
    one = model(heads=heads, search={"kind": search})
    tokenizer = GraphemeTokenizer.train(["ab"])
    found = left_out(LoadedModel(tmp_path, one.recipe, tokenizer, one), plan_bundle(one, kind=kind))
    assert (said in found[0] and len(found) == 1) if said else not found


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder": ZIPFORMER | {"output_downsampling": 1}}, "one output frame per 2 feature frames"),
        ({"features": {"kind": "fbank", "mels": 40}}, "features.mels = 40"),
        ({"features": {"kind": "mfcc"}}, "'mfcc'"),
        (
            {"features": {"kind": "fbank", "sample_rate": 8000}, "data": {"sample_rate": 8000}},
            "sample_rate = 8000",
        ),
        ({"features": {"kind": "fbank", "high": 7000.0}}, "features.high = 7000"),
        ({"features": {"kind": "fbank", "snip_edges": True}}, "snip_edges = True"),
    ],
)
def test_what_only_our_runtime_can_run_says_why(changes: dict[str, Any], reason: str) -> None:
    plan = plan_bundle(model(**changes))
    assert any(reason in why for why in plan.alone), plan.alone


def test_the_same_band_in_other_words_is_for_everybody() -> None:
    recipe = model(features={"kind": "fbank", "high": 7600.0, "transform": "matmul"}).recipe
    assert only_ours(recipe, 4) == ()


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({}, {"streaming": True}, "not causal"),
        ({}, {"kind": "transducer"}, "no transducer head"),
        ({"heads": transducer(), **GREEDY}, {"kind": "ctc"}, "no CTC head"),
        ({"encoder": {"kind": "conformer", "dim": 16, "layers": 1, "heads": 2, "causal": True}},
         {"streaming": True}, "'conformer' has no streaming layout"),
        ({"encoder": ZIPFORMER | {"causal": True, "output_downsampling": 1}}, {"streaming": True},
         "frame per 2 feature frames"),
        ({"encoder": ZIPFORMER | {"causal": True}, "features": {"kind": "fbank", "mels": 100}},
         {"streaming": True}, "'embed_states'"),
        ({"encoder": ZIPFORMER | {"causal": True}, "features": {"kind": "fbank", "window_ms": 31.0}},
         {"streaming": True}, "windows of 496 samples"),
        ({"heads": transducer(predictor={"kind": "lstm", "dim": 8}), **GREEDY}, {}, "state of its own"),
        ({"heads": transducer(loss="full", durations=[0, 1, 2]), **GREEDY}, {}, "durations"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes: dict[str, Any], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        plan_bundle(model(**changes), **arguments)
    assert caught.value.mend


def test_fewer_mels_stream_in_the_same_layout() -> None:
    plan = plan_bundle(
        model(ZIPFORMER | {"causal": True}, features={"kind": "fbank", "mels": 40}), streaming=True
    )
    assert plan.facts["states"][-2]["shape"] == [1, 128, 3, 19]
    assert plan.alone


def test_refusals_of_folders(tmp_path: Any) -> None:
    refuse_other_folders(tmp_path)
    refuse_other_folders(tmp_path / "new")
    (tmp_path / "bundle.json").write_text("{}")
    refuse_other_folders(tmp_path)


def test_a_graph_that_is_not_ours_stays(tmp_path: Path) -> None:
    write_bundle(tmp_path, {"files": {"encoder.onnx": {}, "../far.onnx": {}}}, {"encoder.onnx": b"1"})
    (tmp_path / "silero_vad.onnx").write_bytes(b"vad")
    write_bundle(tmp_path, {"files": {"model.onnx": {}}}, {"model.onnx": b"2"})
    assert sorted(p.name for p in tmp_path.glob("*.onnx")) == ["model.onnx", "silero_vad.onnx"]
