"""Joint decoding and rescoring: exhaustive on tiny models, parts, times, settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from firstwords.errors import SearchError
from firstwords.heads.attention.mechanisms import LocationAttentionConfig
from firstwords.heads.attention.speller import SpellerConfig, SpellerHead
from firstwords.heads.attention.transformer import TransformerDecoderConfig, TransformerDecoderHead
from firstwords.heads.ctc import CtcConfig, CtcHead
from firstwords.heads.head import TokenHead
from firstwords.search.align import align
from firstwords.search.attention_beam import AttentionBeamSearch, deaf_scorer
from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.interface import AttentionBeamConfig, CtcBeamConfig, RescoringConfig
from firstwords.search.rescoring import RescoringSearch
from firstwords.search.search import build_encoded_search, needed_heads
from firstwords.search.trials import sentence_log_probs
from firstwords.tensors import Padded, pad

DIM, VOCABULARY, SHIFT = 6, 4, 0.04

DECODERS: dict[str, Callable[[], TokenHead]] = {
    "speller": lambda: SpellerHead(SpellerConfig(width=8), DIM, VOCABULARY),
    "transformer": lambda: TransformerDecoderHead(
        TransformerDecoderConfig(width=8, heads=2, feedforward=16), DIM, VOCABULARY
    ),
}


def make(name: str) -> tuple[TokenHead, CtcHead]:
    torch.manual_seed(8)
    decoder, ctc = DECODERS[name]().double().eval(), CtcHead(CtcConfig(), DIM, VOCABULARY).double().eval()
    with torch.no_grad():  # fresh heads hardly prefer anything: make them decided
        decoder.get_parameter("output.weight").mul_(4)
        ctc.projection.weight.mul_(3)
    return decoder, ctc


def utterances(*lengths: int) -> Padded:
    generator = torch.Generator().manual_seed(9)
    return pad([torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in lengths])


def log_probs_of(
    decoder: TokenHead, ctc: CtcHead, one: Padded, readings: list[tuple[int, ...]]
) -> tuple[list[float], list[float]]:
    """Of the decoder and of CTC, for each reading of the one utterance."""
    targets = pad([torch.tensor(tokens, dtype=torch.int64) for tokens in readings])
    count = len(readings)
    copies = Padded(one.values.expand(count, -1, -1), one.lengths.expand(count))
    with torch.no_grad():
        return decoder.log_likelihood(copies, targets).tolist(), (-ctc.loss(copies, targets)).tolist()


def row(encoded: Padded, n: int) -> Padded:
    length = int(encoded.lengths[n])
    return Padded(encoded.values[n : n + 1, :length], encoded.lengths[n : n + 1])


@pytest.mark.parametrize("weight", [0.0, 0.4])
@pytest.mark.parametrize("name", DECODERS)
def test_a_wide_beam_is_exhaustive_search(name: str, weight: float) -> None:
    decoder, ctc = make(name)
    encoded = utterances(4, 3)
    config = AttentionBeamConfig(
        beam=100, n_best=200, ctc_weight=weight, length_power=0.5, max_length=1.0, end_margin=math.inf
    )
    found = AttentionBeamSearch(config, decoder, ctc, SHIFT)(encoded)
    for n, length in enumerate((4, 3)):
        expected: dict[tuple[int, ...], float] = {}
        every = [tokens for k in range(length + 1) for tokens in itertools.product((1, 2, 3), repeat=k)]
        for tokens, attention, frames in zip(
            every, *log_probs_of(decoder, ctc, row(encoded, n), every), strict=True
        ):
            score = (1 - weight) * attention + (weight * frames if weight else 0.0)
            if score > -math.inf:
                expected[tokens] = score / (len(tokens) + 1) ** 0.5
        assert {h.tokens for h in found[n]} == set(expected)
        assert [h.score for h in found[n]] == pytest.approx(sorted(expected.values(), reverse=True))
        assert [h.score for h in found[n]] == pytest.approx([expected[h.tokens] for h in found[n]])


def test_no_sentence_is_longer_than_the_decoder_can_write() -> None:
    """Four learned positions: all sentences of up to three tokens are found, and none is longer."""
    _, ctc = make("transformer")
    config = TransformerDecoderConfig(width=8, heads=2, feedforward=16, positions="learned", most_tokens=4)
    decoder = TransformerDecoderHead(config, DIM, VOCABULARY).double().eval()
    encoded = utterances(5)
    wide = AttentionBeamConfig(beam=100, n_best=200, ctc_weight=0.3, end_margin=math.inf)
    (found,) = AttentionBeamSearch(wide, decoder, ctc, SHIFT)(encoded)
    every = {tokens for k in range(4) for tokens in itertools.product((1, 2, 3), repeat=k)}
    assert {reading.tokens for reading in found} == every
    assert all(reading.cut == (len(reading.tokens) == 3) for reading in found)
    for weight in (0.3, 1.0):
        rescoring = RescoringConfig(beam=20, n_best=20, ctc_weight=weight)
        (found,) = RescoringSearch(rescoring, decoder, ctc, SHIFT)(encoded)
        lengths = [len(reading.tokens) for reading in found]
        assert min(lengths) <= 3 < max(lengths)
        possible = [reading.score > -math.inf for reading in found]
        assert possible == ([n <= 3 for n in lengths] if weight < 1 else [True] * len(found))
        assert possible == sorted(possible, reverse=True)


@pytest.mark.parametrize("name", DECODERS)
def test_what_every_search_promises(name: str) -> None:
    decoder, ctc = make(name)
    encoded = utterances(12, 3, 0, 7)
    for config in (
        AttentionBeamConfig(beam=4, coverage=0.1),
        AttentionBeamConfig(beam=3, ctc_weight=0.0),
        RescoringConfig(beam=4, n_best=3),
    ):
        search = (
            RescoringSearch(config, decoder, ctc, SHIFT)
            if isinstance(config, RescoringConfig)
            else AttentionBeamSearch(config, decoder, ctc, SHIFT)
        )
        found = search(encoded)
        assert len(found) == 4
        for readings, length in zip(found, (12, 3, 0, 7), strict=True):
            assert readings
            scores = [r.score for r in readings]
            assert scores == sorted(scores, reverse=True)
            assert len({r.tokens for r in readings}) == len(readings)
            for reading in readings:
                assert reading.score == pytest.approx(sum(reading.parts.values()))
                assert all(1 <= token < VOCABULARY for token in reading.tokens)
                assert reading.confidences is not None
                assert len(reading.confidences) == len(reading.tokens)
                assert all(0 <= c <= 1 for c in reading.confidences)
                if reading.times is not None and reading.ends is not None:
                    moments = list(itertools.chain(*zip(reading.times, reading.ends, strict=True)))
                    assert moments == sorted(moments)
                    assert all(0 <= m <= length * SHIFT + 1e-9 for m in moments)


def test_parts_are_weighted_shares() -> None:
    decoder, ctc = make("transformer")
    encoded = utterances(6)
    config = AttentionBeamConfig(beam=5, ctc_weight=0.3, length_power=0.6, max_length=1.0)
    (found,) = AttentionBeamSearch(config, decoder, ctc, SHIFT)(encoded)
    for reading in found:
        (attention,), (frames,) = log_probs_of(decoder, ctc, encoded, [reading.tokens])
        norm = (len(reading.tokens) + 1) ** 0.6
        assert reading.parts == pytest.approx(
            {"attention": 0.7 * attention / norm, "ctc": 0.3 * frames / norm}
        )


def test_times_are_those_of_the_alignment() -> None:
    decoder, ctc = make("speller")
    encoded = utterances(9)
    (found,) = AttentionBeamSearch(AttentionBeamConfig(beam=4), decoder, ctc, SHIFT)(encoded)
    reading = next(r for r in found if len(r.tokens) > 1)
    aligned = align(ctc.log_probs(encoded).values[0], reading.tokens)
    assert reading.times == pytest.approx([SHIFT * frame for frame in aligned.first])
    assert reading.ends == pytest.approx([SHIFT * (frame + 1) for frame in aligned.last])


def test_of_readings_too_long_for_ctc_the_best_has_the_times_of_its_looks() -> None:
    decoder, ctc = make("speller")
    config = AttentionBeamConfig(beam=4, ctc_weight=0.0, min_length=2.0, max_length=2.0)
    (found,) = AttentionBeamSearch(config, decoder, ctc, SHIFT)(utterances(4))
    assert {len(r.tokens) for r in found} == {8}
    assert found[0].times is not None
    assert {r.times for r in found[1:]} == {None}


def test_without_a_ctc_head() -> None:
    decoder, _ = make("speller")
    with pytest.raises(SearchError, match="no CTC head"):
        AttentionBeamSearch(AttentionBeamConfig(), decoder, None, SHIFT)
    search = AttentionBeamSearch(AttentionBeamConfig(ctc_weight=0.0), decoder, None, SHIFT)
    encoded = utterances(9)
    (found,) = search(encoded)
    assert list(found[0].parts) == ["attention"]
    # The best reading has the frames at which the decoder looked hardest, in rising order; others have none.
    best = found[0]
    assert best.tokens
    targets = Padded(torch.tensor([best.tokens]), torch.tensor([len(best.tokens)]))
    looks = decoder.attention(encoded, targets).values[0, :-1].argmax(-1).tolist()
    rising = [max(looks[: n + 1]) for n in range(len(looks))]
    assert best.times == pytest.approx([frame * SHIFT for frame in rising])
    assert all(reading.times is None for reading in found[1:])


@pytest.mark.parametrize("name", DECODERS)
def test_other_utterances_do_not_matter(name: str) -> None:
    decoder, ctc = make(name)
    encoded = utterances(9, 4, 6)
    for search in (
        AttentionBeamSearch(AttentionBeamConfig(beam=4), decoder, ctc, SHIFT),
        RescoringSearch(RescoringConfig(beam=4), decoder, ctc, SHIFT),
    ):
        together = search(encoded)
        for n in range(3):
            (alone,) = search(row(encoded, n))
            assert [r.tokens for r in alone] == [r.tokens for r in together[n]]
            assert [r.score for r in alone] == pytest.approx([r.score for r in together[n]])


def test_rescoring_puts_the_readings_of_ctc_in_the_decoders_order() -> None:
    decoder, ctc = make("transformer")
    encoded = utterances(8, 5)
    first = CtcBeamSearch(CtcBeamConfig(beam=6, n_best=6), SHIFT)(ctc.log_probs(encoded))
    found = RescoringSearch(RescoringConfig(beam=6, n_best=6, ctc_weight=0.25), decoder, ctc, SHIFT)(encoded)
    for n in range(2):
        assert {h.tokens for h in found[n]} == {h.tokens for h in first[n]}
        for reading in found[n]:
            (attention,), _ = log_probs_of(decoder, ctc, row(encoded, n), [reading.tokens])
            before = next(h for h in first[n] if h.tokens == reading.tokens)
            assert reading.parts == pytest.approx({"ctc": 0.25 * before.score, "attention": 0.75 * attention})
            assert reading.times == before.times
    assert [h.tokens for h in found[0]] != [h.tokens for h in first[0]]


def test_built_by_kind_and_fed_half_precision() -> None:
    torch.manual_seed(1)
    decoder, ctc = DECODERS["speller"]().eval(), CtcHead(CtcConfig(), DIM, VOCABULARY).eval()
    encoded = utterances(5, 3)
    half = Padded(encoded.values.bfloat16(), encoded.lengths)
    for config in (AttentionBeamConfig(), AttentionBeamConfig(ctc_weight=0.0), RescoringConfig()):
        heads = {"attention": decoder, "ctc": ctc}
        own = {name: heads[name] for name in needed_heads(config)}
        assert ("ctc" in own) == (config.ctc_weight > 0)
        found = build_encoded_search(config, own, SHIFT)(half)
        assert [len(readings) for readings in found] == [10, 10]


def test_lengths_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="above max_length"):
        AttentionBeamConfig(min_length=2.0)


def test_readings_know_what_their_sums_were_divided_by() -> None:
    decoder, ctc = make("speller")
    search = AttentionBeamSearch(AttentionBeamConfig(beam=4, n_best=4, length_power=0.6), decoder, ctc, SHIFT)
    for found in search(utterances(6, 9)):
        for reading in found:
            assert reading.divisor == pytest.approx((len(reading.tokens) + 1) ** 0.6)


@pytest.mark.parametrize("accumulate", [None, False, True], ids=["dot", "location", "accumulate"])
@pytest.mark.parametrize("frames", [2, 7])
def test_a_deaf_decoder_says_the_same_for_any_number_of_frames(accumulate: bool | None, frames: int) -> None:
    """Also where it knows where it looked before; one frame of silence is what the search shows it."""
    torch.manual_seed(8)
    if accumulate is None:
        decoders = [make(name)[0] for name in DECODERS]
    else:
        looks = LocationAttentionConfig(dim=8, heads=2, accumulate=accumulate)
        decoders = [SpellerHead(SpellerConfig(width=8, attention=looks), DIM, VOCABULARY).double().eval()]
    for decoder in decoders:
        silence = Padded(torch.zeros(1, frames, DIM, dtype=torch.float64), torch.tensor([frames]))
        (expected,) = log_probs_of(decoder, make("speller")[1], silence, [(1, 2, 3, 1)])[0]
        deaf = deaf_scorer(decoder, silence.values)
        assert sentence_log_probs(deaf, [(1, 2, 3, 1), (2,)])[0] == pytest.approx(expected)
