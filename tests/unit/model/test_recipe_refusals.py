"""Recipes that combine what cannot be combined are refused when they are read, with the way out."""

from __future__ import annotations

from typing import Any

import pytest

from firstwords.config import override, parse_config
from firstwords.errors import ConfigError
from firstwords.model.recipe import Recipe

PLAIN: dict[str, Any] = {"encoder": {"kind": "conformer"}, "heads": {"ctc": {}}}
SPELLER = {"attention": {"kind": "speller"}}


def read(*assignments: str, **values: Any) -> Recipe:
    return parse_config(override(PLAIN | values, assignments), Recipe, name="recipe", source="r.toml")


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (
            ("encoder.causal=true", "heads.ctc.intermediate=[1]", "heads.ctc.self_conditioned=true"),
            "set heads.ctc.self_conditioned = false",
        ),
        (("encoder.causal=true", "features.shift_ms=20"), "set features.snip_edges = true"),
        (('encoder={kind="quartznet",causal=true}',), "take zipformer or conformer"),
        (('encoder={kind="lstm",causal=true}',), "streams with bidirectional = false"),
        (("heads.ctc=1",), "recipe.heads.ctc: Input should be a valid dictionary"),
        (('heads.ctc="ctc"',), "recipe.heads.ctc: Input should be a valid dictionary"),
        (("heads.ctc.intermediate=[50]",), "there is no 50; this encoder has 0 to"),
        (("heads.ctc.weight=inf",), "finite number"),
        (("training.minutes=nan",), "recipe.training.minutes"),
        (("search.beam=8",), "recipe.search.beam: no such setting"),
    ],
)
def test_refused_with_the_way_out(assignments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(*assignments)
    assert said in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_a_causal_encoder_wants_a_head_that_streams() -> None:
    with pytest.raises(ConfigError, match=r"add heads\.ctc or heads\.transducer"):
        read("encoder.causal=true", "search.kind=attention_beam", "search.ctc_weight=0", heads=SPELLER)
    for heads in ({"ctc": {}}, {"transducer": {"kind": "transducer"}}):
        search = "search.kind=greedy" if "ctc" in heads else "search.kind=transducer_greedy"
        assert read("encoder.causal=true", search, heads=heads)


def test_a_table_without_a_kind_is_the_usual_one() -> None:
    recipe = read("features.mels=40", "search.language_model.weight=0.2")
    assert (recipe.features.kind, recipe.features.mels) == ("fbank", 40)
    assert recipe.search.kind == "greedy"
    assert recipe.search.language_model.weight == 0.2


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (('predictor={kind="lstm",context=3}',), "context: no such setting. Known here: kind, dim, layers"),
        (('predictor={kind="lstm",dimm=3}',), "Did you mean 'dim'?"),
        (('predictor={kind="stateless",contxt=3}',), "Did you mean 'context'?"),
        (('prediktor={kind="lstm"}',), "Did you mean 'predictor'?"),
        (("predictor.context=3",), "recipe.heads.transducer.predictor.kind is one of stateless, lstm."),
    ],
)
def test_a_hint_is_a_setting_of_the_chosen_kind(assignments: tuple[str, ...], said: str) -> None:
    heads = {"transducer": {"kind": "transducer"}}
    with pytest.raises(ConfigError) as caught:
        read(*(f"heads.transducer.{a}" for a in assignments), "search.kind=transducer_greedy", heads=heads)
    assert said in str(caught.value)


def test_a_schedule_without_a_kind_is_asked_for_one() -> None:
    with pytest.raises(ConfigError, match=r"recipe\.training\.schedule\.kind is one of eden, "):
        read("training.schedule.lr=0.01")
