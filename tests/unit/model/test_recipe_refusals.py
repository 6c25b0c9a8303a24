"""Recipes that combine what cannot be combined are refused when they are read, with the way out."""

from __future__ import annotations

import tomllib
from itertools import combinations, product
from typing import Any

import pytest

from firstwords.config import dump_config, override, parse_config
from firstwords.encoders.zipformer.config import ZipformerConfig
from firstwords.encoders.zipformer.streaming import nearest_context
from firstwords.errors import ConfigError
from firstwords.model import kinds
from firstwords.model.recipe import Recipe
from firstwords.search.interface import SEARCHES

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
        (
            ("encoder.kind=conformr",),
            "recipe.encoder.kind: there is no 'conformr'. Did you mean 'conformer'?",
        ),
        (("search.kind=beam",), "recipe.search.kind: there is no 'beam'. Did you mean 'ctc_beam'?"),
        (
            ("heads.ctc.kind=rnnt",),
            "heads.ctc.kind: there is no 'rnnt'. Known here: ctc, speller, transformer",
        ),
        (
            ("features.kind=logmel",),
            "features.kind: there is no 'logmel'. Known here: fbank, mfcc, waveform.",
        ),
        (
            ("features.mels=6",),
            "kind 'fbank' have 6 values per frame, and this encoder of kind 'conformer' needs",
        ),
        (
            ("features.kind=mfcc", "encoder.subsampling.factor=8"),
            "needs at least 15: set more",
        ),
        (("features.kind=waveform", "features.strides=[5,4]"), "5 channels, 5 kernels, 2 strides"),
        (
            ("encoder.kind=zipformer", "encoder.causal=true", "features.kind=waveform"),
            "features of kind 'waveform' read whole recordings: set features.kind",
        ),
        (("encoder.kind=zipformer", "features.mels=5"), "'zipformer' needs at least 7: set more"),
        (("heads.ctc.weight=0",), "heads.ctc.weight = 0: this head learns nothing"),
        (
            ('encoder={kind="zipformer",causal=true,left_contexts=[64,0]}',),
            "left_contexts: 0 is no number of",
        ),
        (('encoder={kind="zipformer",causal=true,left_contexts=[-3]}',), "left_contexts: -3 is no number of"),
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


@pytest.mark.parametrize("kind", sorted(kinds.ENCODERS.keys() - {"zipformer", "conformer"}))
def test_what_hears_only_the_whole_is_never_causal(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"zipformer or conformer|bidirectional = false"):
        read(f'encoder={{kind="{kind}",causal=true}}')


HEADS: dict[str, dict[str, Any]] = {
    "ctc": {"ctc": {}},
    "attention": {"attention": {"kind": "transformer_decoder"}},
    "transducer": {"transducer": {"kind": "transducer"}},
    "both": {"ctc": {}, "attention": {"kind": "speller"}},
    "three": {
        "ctc": {},
        "attention": {"kind": "speller"},
        "transducer": {"kind": "transducer"},
    },
}
# Which searches each set of heads can do; without CTC an attention decoder wants ctc_weight = 0.
CAN: dict[str, set[str]] = {
    "ctc": {"greedy", "ctc_beam"},
    "attention": set(),
    "transducer": {"transducer_greedy", "transducer_beam"},
    "both": {"greedy", "ctc_beam", "attention_beam", "rescoring"},
    "three": set(SEARCHES),
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("heads", HEADS)
def test_every_search_with_every_set_of_heads_works_or_names_one_that_does(heads: str, search: str) -> None:
    """What a refusal says to set is read without a word."""
    chosen = HEADS[heads]
    if search in CAN[heads]:
        assert read(f"search.kind={search}", heads=chosen).search.kind == search
        return
    with pytest.raises(ConfigError) as caught:
        read(f"search.kind={search}", heads=chosen)
    assert f"search.kind = '{search}' needs heads." in str(caught.value)
    advice = str(caught.value).partition(": set ")[2].partition("\n")[0]
    told = [part.replace(" ", "") for part in advice.split(" and ")]
    assert told
    assert read(*told, heads=chosen).search.kind != search or "ctc_weight" in advice


def test_a_search_goes_as_the_transducer_learned_to() -> None:
    greedy = ("search.kind=transducer_greedy", "search.symbols_per_frame=3")
    for topology in ("regular", "modified", "constrained"):
        heads = {"transducer": {"kind": "transducer", "topology": topology}}
        if topology == "regular":
            assert read(*greedy, heads=heads)
            continue
        with pytest.raises(ConfigError, match=r"set search\.symbols_per_frame = 1"):
            read(*greedy, heads=heads)
        assert read(*greedy, "search.symbols_per_frame=1", heads=heads)


def test_no_search_reads_with_a_head_that_learns_nothing() -> None:
    heads = {"ctc": {"weight": 0.0}, "attention": {"kind": "speller"}}
    with pytest.raises(ConfigError, match=r"heads\.ctc\.weight = 0.* reads with it"):
        read("search.kind=attention_beam", heads=heads)
    assert read("search.kind=attention_beam", "search.ctc_weight=0", heads=heads)


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


@pytest.mark.parametrize(
    ("assignments", "said", "mend"),
    [
        (("encoder.kind=zipformer", "encoder.chunks=[320]"), "chunks = [320] is for", "out encoder.chunks."),
        (
            ("encoder.kind=zipformer", "encoder.left_contexts=[64]"),
            "left_contexts = [64] is",
            "causal = true",
        ),
        (("encoder.max_chunk=8",), "max_chunk = 8 is for streams", "leave out encoder.max_chunk."),
        (("encoder.full_share=0.2",), "full_share = 0.2 is for streams", "leave out encoder.full_share."),
        (
            ("encoder.max_chunk=8", "encoder.left_chunks=[2]"),
            "max_chunk = 8, left_chunks = [2] is for streams",
            "leave out encoder.max_chunk and encoder.left_chunks.",
        ),
    ],
)
def test_what_is_for_streams_wants_a_causal_encoder(
    assignments: tuple[str, ...], said: str, mend: str
) -> None:
    """Refused where a training begins; a model that was trained so loads."""
    recipe = read(*assignments)
    with pytest.raises(ConfigError) as caught:
        recipe.encoder.check_streams()
    assert said in caught.value.what
    assert mend in caught.value.mend
    read(*assignments, "encoder.causal=true").encoder.check_streams()
    stored = parse_config(tomllib.loads(dump_config(recipe)), Recipe, name="recipe", source="recipe.toml")
    assert stored == recipe


@pytest.mark.parametrize("kind", sorted(kinds.ENCODERS))
def test_defaults_that_are_written_out_are_no_wish(kind: str) -> None:
    recipe = read(f"encoder.kind={kind}")
    stored = parse_config(tomllib.loads(dump_config(recipe)), Recipe, name="recipe", source="recipe.toml")
    stored.encoder.check_streams()


def causal(chunks: tuple[int, ...], lefts: tuple[int, ...], **changes: object) -> ZipformerConfig:
    return ZipformerConfig().with_(causal=True, chunks=chunks, left_contexts=lefts, **changes)


@pytest.mark.parametrize(
    ("chunks", "lefts", "near"),
    [
        ((16,), (24,), "64."),  # the convolutions look back 56 frames
        ((16,), (72,), "64 or 80."),
        ((16, 64), (24, -1), "64."),
        ((32, 48), (64, 100), "96 or 128."),
        ((48, -1), (128,), "96 or 144."),
    ],
)
def test_left_contexts_are_whole_numbers_of_chunks(
    chunks: tuple[int, ...], lefts: tuple[int, ...], near: str
) -> None:
    with pytest.raises(ConfigError, match=r"left_contexts: \d+ frames are no whole number") as caught:
        causal(chunks, lefts).check_streams()
    assert caught.value.mend == f"Nearest that a stream can have: {near}"


@pytest.mark.parametrize(
    ("chunks", "lefts"),
    [
        ((16, 32, 64, -1), (96,)),  # six chunks of 16
        ((64,), (32,)),  # one chunk, in training and in streams
        ((40,), (64, 128, 256, -1)),  # the usual ones: every look-back is learned
        ((-1,), (24,)),
    ],
)
def test_left_contexts_that_serve_are_taken(chunks: tuple[int, ...], lefts: tuple[int, ...]) -> None:
    causal(chunks, lefts).check_streams()


def test_a_left_context_is_refused_where_no_stream_can_have_it() -> None:
    small = {"kernels": (3,) * 6}  # of little look-back: 8 frames
    grid = [c for n in (1, 2) for c in combinations((8, 16, 24, 40), n)]
    for chunks, left in product(grid, range(8, 100)):
        config = causal(chunks, (left,), **small)
        had = [c for c in chunks if nearest_context(config, c, left) == (c, left)]
        if had or left < min(chunks):
            config.check_streams()
            continue
        with pytest.raises(ConfigError) as caught:
            config.check_streams()
        for near in (int(n) for n in caught.value.mend.rstrip(".").partition(": ")[2].split(" or ")):
            assert any(nearest_context(config, c, near) == (c, near) for c in chunks), (chunks, left, near)
            causal(chunks, (near,), **small).check_streams()
