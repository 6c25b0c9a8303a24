"""Language models in searches: against sums over all alignments and all sentences on tiny sizes."""

from __future__ import annotations

import itertools
import math
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor

from firstwords.errors import SearchError
from firstwords.heads.attention.speller import SpellerConfig, SpellerHead
from firstwords.heads.ctc import CtcConfig, CtcHead
from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
from firstwords.heads.transducer.rnnt import rnnt_loss
from firstwords.nn.scorer import TokenScorer
from firstwords.search.align import align
from firstwords.search.ctc_beam import CtcBeamSearch, prefix_readings
from firstwords.search.fusion import Scorers, TokenBonus, Weighted, WeightedSum, weigh
from firstwords.search.interface import (
    NARROW,
    AttentionBeamConfig,
    CtcBeamConfig,
    GreedyConfig,
    LanguageModelConfig,
    RescoringConfig,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
)
from firstwords.search.search import build_encoded_search, build_search
from firstwords.search.streaming import build_streaming_search
from firstwords.search.transducer_common import InternalModel
from firstwords.tensors import Padded, pad
from toy_scorers import TrigramScorer, sentence_score, sentences

NEVER = -math.inf


def posterior(frames: int, vocabulary: int, seed: int, spread: float = 1.5) -> np.ndarray:
    values = torch.randn(frames, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    return values.double().log_softmax(-1).numpy()


def paths(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Every label sequence and the sum over its alignments, path by path."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        tokens = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        score = float(sum(frame[symbol] for frame, symbol in zip(log_probs, path, strict=True)))
        found[tokens] = float(np.logaddexp(found.get(tokens, NEVER), score))
    return found


def two(vocabulary: int) -> tuple[TrigramScorer, TrigramScorer, list[Weighted]]:
    good, bad = TrigramScorer(vocabulary, 1), TrigramScorer(vocabulary, 2)
    weights = [Weighted("lm", 0.7, good), Weighted("source", -0.4, bad)]
    return good, bad, [*weights, Weighted("bonus", 0.3, TokenBonus(vocabulary))]


@pytest.mark.parametrize(("frames", "vocabulary"), [(5, 3), (4, 4), (1, 3), (0, 3)])
def test_a_wide_ctc_beam_is_exhaustive_search(frames: int, vocabulary: int) -> None:
    log_probs = posterior(frames, vocabulary, 3)
    good, bad, scorers = two(vocabulary)
    found = prefix_readings(log_probs, CtcBeamConfig(beam=400, n_best=400), scorers)
    expected = {
        tokens: {
            "ctc": acoustic,
            "lm": 0.7 * good.log_prob(tokens),
            "source": -0.4 * bad.log_prob(tokens),
            "bonus": 0.3 * len(tokens),
        }
        for tokens, acoustic in paths(log_probs).items()
    }
    assert {r.tokens for r in found} == set(expected)
    for reading in found:
        assert reading.parts == pytest.approx(expected[reading.tokens])
        assert reading.score == pytest.approx(sum(expected[reading.tokens].values()))
    scores = [reading.score for reading in found]
    assert scores == sorted(scores, reverse=True)


def slow_beam(log_probs: np.ndarray, width: int, scorers: list[Weighted]) -> dict[tuple[int, ...], float]:
    """Prefix beam search with a dictionary, and every scorer asked for every prefix anew."""
    text = WeightedSum(scorers, log_probs.shape[1])

    def share(tokens: tuple[int, ...], *, end: bool = False) -> float:
        state, total, last = text.start(1), 0.0, 0
        for token in (*tokens, *([0] if end else [])):
            scores, state = text.score(torch.tensor([last]), state)
            total, last = total + float(scores[0, token]), token
        return total

    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEVER)}
    for frame in log_probs:
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, token) in beam.items():
            total = float(np.logaddexp(blank, token))
            moves = [(prefix, 0, total + frame[0])]
            for symbol in range(1, len(frame)):
                again = bool(prefix) and symbol == prefix[-1]
                if again:
                    moves.append((prefix, 1, token + frame[symbol]))
                moves.append(((*prefix, symbol), 1, (blank if again else total) + frame[symbol]))
            for tokens, slot, value in moves:
                entry = grown.setdefault(tokens, [NEVER, NEVER])
                entry[slot] = float(np.logaddexp(entry[slot], value))
        ranked = sorted(grown, key=lambda p: -(float(np.logaddexp(*grown[p])) + share(p)))[:width]
        beam = {tokens: (grown[tokens][0], grown[tokens][1]) for tokens in ranked}
    return {tokens: float(np.logaddexp(*entry)) + share(tokens, end=True) for tokens, entry in beam.items()}


@pytest.mark.parametrize("width", [1, 2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_a_narrow_ctc_beam_is_the_textbooks(width: int, seed: int) -> None:
    log_probs = posterior(12, 6, seed, spread=0.8)
    _, _, scorers = two(6)
    found = prefix_readings(log_probs, CtcBeamConfig(beam=width), scorers)
    assert {r.tokens: r.score for r in found} == pytest.approx(slow_beam(log_probs, width, scorers))


def test_weight_zero_changes_nothing() -> None:
    frames = Padded(torch.from_numpy(posterior(20, 7, 5))[None], torch.tensor([20]))
    lm = TrigramScorer(7, 1)
    none = weigh(Scorers(lm), LanguageModelConfig(weight=0.0), 7)
    assert none == ()
    light = [Weighted("lm", 1e-12, lm)]
    plain = CtcBeamSearch(CtcBeamConfig(beam=5), 0.04)(frames)[0]
    fused = CtcBeamSearch(CtcBeamConfig(beam=5), 0.04, light)(frames)[0]
    assert [r.tokens for r in plain] == [r.tokens for r in fused]
    assert [r.score for r in plain] == pytest.approx([r.score for r in fused])
    assert [r.times for r in plain] == [r.times for r in fused]


def test_a_language_model_changes_what_is_read() -> None:
    """Token 1 is a little likelier to the ear, 2 much likelier to the model."""
    frames = np.log(np.array([[0.1, 0.5, 0.4], [0.9, 0.05, 0.05]]))
    lm = TrigramScorer(3, 0)
    lm.table[:] = torch.tensor([0.2, 0.1, 0.7], dtype=torch.float64).log()
    assert prefix_readings(frames, CtcBeamConfig())[0].tokens == (1,)
    assert prefix_readings(frames, CtcBeamConfig(), [Weighted("lm", 0.5, lm)])[0].tokens == (2,)


def test_each_prefix_is_asked_for_once() -> None:
    lm = TrigramScorer(5, 1)
    log_probs = posterior(1, 5, 0)
    log_probs = np.concatenate([log_probs, np.full((40, 5), -50.0)])
    log_probs[1:, 0] = 0.0  # then nothing but blanks
    prefix_readings(log_probs, CtcBeamConfig(beam=4), [Weighted("lm", 0.5, lm)])
    assert lm.asked <= 1 + 4 + 4  # the start, and what one and two frames can bring


def test_greedy_with_a_language_model_is_a_narrow_beam() -> None:
    frames = pad([torch.from_numpy(posterior(n, 6, n, spread=3.0)) for n in (30, 7)])
    scorers = [Weighted("lm", 0.5, TrigramScorer(6, 1))]
    greedy = build_search(GreedyConfig(), 0.04, scorers)(frames)
    beam = build_search(NARROW, 0.04, scorers)(frames)
    assert greedy == beam
    assert [len(readings) for readings in greedy] == [1, 1]
    assert build_search(GreedyConfig(), 0.04)(frames)[0][0].parts.keys() == {"ctc"}


@pytest.mark.parametrize("config", [CtcBeamConfig(beam=1), CtcBeamConfig(beam=4), NARROW])
def test_a_stream_reads_as_the_whole(config: CtcBeamConfig) -> None:
    """However it is cut. The end of the sentence is not heard in a stream, so the model gives none."""
    log_probs = torch.from_numpy(posterior(40, 6, 7, spread=2.0))
    lm = TrigramScorer(6, 1)
    lm.table[..., 0] = 0.0
    scorers = [Weighted("lm", 0.5, lm), Weighted("bonus", 0.2, TokenBonus(6))]
    (whole, *_) = CtcBeamSearch(config, 0.04, scorers)(Padded(log_probs[None], torch.tensor([40])))[0]
    for cuts in ([40], [7, 13, 20], [1] * 40):
        stream = build_streaming_search(config, lambda scored: scored, 0.04, scorers)
        read: list[int] = []
        for part in log_probs.split(cuts):
            stream.advance(part)
            read += stream.commit(stream.stable()).tokens
        assert (*read, *stream.best().tokens) == whole.tokens


def test_impossible_tokens_stay_impossible_whatever_the_weight() -> None:
    never = TrigramScorer(4, 1)
    never.table[:, :, 2] = NEVER
    for weight in (0.5, -0.5):
        scorers = [Weighted("lm", 0.5, TrigramScorer(4, 2)), Weighted("x", weight, never)]
        found = prefix_readings(posterior(4, 4, 1), CtcBeamConfig(beam=200), scorers)
        assert found
        assert all(2 not in reading.tokens and math.isfinite(reading.score) for reading in found)


def test_another_vocabulary_and_numbers_that_are_none_are_errors() -> None:
    with pytest.raises(SearchError, match="'lm' knows 5 tokens, the recogniser 4"):
        prefix_readings(posterior(3, 4, 1), CtcBeamConfig(), [Weighted("lm", 0.5, TrigramScorer(5, 1))])
    spoiled = TrigramScorer(4, 1)
    spoiled.table[0, 0, 1] = math.nan
    with pytest.raises(SearchError, match="not numbers"):
        prefix_readings(posterior(3, 4, 1), CtcBeamConfig(), [Weighted("lm", 0.5, spoiled)])


# -- the sum of scorers


def test_a_sum_keeps_the_laws() -> None:
    """Token by token = its parts; ``reorder`` and ``join`` commute with ``score``."""
    good, bad, scorers = two(4)
    both = WeightedSum(scorers, 4)
    for tokens in sentences(4, 3):
        expected = 0.7 * good.log_prob(tokens) - 0.4 * bad.log_prob(tokens) + 0.3 * len(tokens)
        assert sentence_score(both, tokens) == pytest.approx(expected)
    rows = torch.tensor([1, 3, 2])
    scores, state = both.score(rows, both.start(3))
    kept = torch.tensor([2, 0, 0])
    torch.testing.assert_close(both.score(rows, both.reorder(both.start(3), kept))[0], scores)
    left, right = both.reorder(state, torch.tensor([0])), both.reorder(state, torch.tensor([1, 2]))
    nexts = torch.tensor([2, 2, 1])
    torch.testing.assert_close(both.score(nexts, both.join([left, right]))[0], both.score(nexts, state)[0])
    one = WeightedSum(scorers[:1], 4)
    assert one.score(rows, one.start(3))[0].exp().pow(1 / 0.7).sum(1) == pytest.approx(1.0)


def test_a_state_that_cannot_be_joined_is_named() -> None:
    @final
    class Odd(TokenScorer[int]):
        def start(self, rows: int) -> int:
            return 0

        def score(self, last: Tensor, state: int) -> tuple[Tensor, int]:
            return torch.zeros(len(last), 3), state

        def reorder(self, state: int, kept: Tensor) -> int:
            return state

    with pytest.raises(SearchError, match="Odd cannot take part"):
        prefix_readings(posterior(3, 3, 1), CtcBeamConfig(), [Weighted("odd", 1.0, Odd())])


def test_settings_become_weights() -> None:
    lm, source, phrases = (TrigramScorer(3, n) for n in range(3))
    config = LanguageModelConfig(weight=0.5, bonus=1.5, source_weight=0.2)
    found = weigh(Scorers(lm, source, phrases), config, 3)
    assert [(one.name, one.weight, one.hears) for one in found] == [
        ("language_model", 0.5, False),
        ("bonus", 1.5, False),
        ("source", -0.2, False),
        ("phrases", 1.0, False),
    ]
    assert [one.name for one in weigh(Scorers(phrases=phrases), config, 3)] == ["phrases"]
    assert weigh(Scorers(), config, 3) == ()
    with pytest.raises(SearchError, match=r"source_weight = 0\.2"):
        weigh(Scorers(lm), config, 3)


# -- heads that need more than frame-wise scores

DIM, VOCABULARY = 5, 4


def attention() -> tuple[SpellerHead, CtcHead]:
    torch.manual_seed(8)
    decoder = SpellerHead(SpellerConfig(width=8), DIM, VOCABULARY).double().eval()
    ctc = CtcHead(CtcConfig(), DIM, VOCABULARY).double().eval()
    with torch.no_grad():
        decoder.get_parameter("output.weight").mul_(4)
        ctc.projection.weight.mul_(3)
    return decoder, ctc


def transducer(seed: int) -> TransducerHead:
    torch.manual_seed(seed)
    head = TransducerHead(TransducerConfig(joiner_dim=8), DIM, VOCABULARY).double().eval()
    with torch.no_grad():
        for weights in (head.joiner.output.weight, head.joiner.predictor_proj.weight):
            weights.mul_(6)
    return head


def encoded(*lengths: int) -> Padded:
    generator = torch.Generator().manual_seed(9)
    return pad([2 * torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in lengths])


def language() -> LanguageModelConfig:
    return LanguageModelConfig(weight=0.6, bonus=0.4, source_weight=0.3, internal_weight=0.2)


def helpers() -> tuple[TrigramScorer, TrigramScorer, Scorers]:
    lm, source = TrigramScorer(VOCABULARY, 1), TrigramScorer(VOCABULARY, 2)
    return lm, source, Scorers(lm, source)


def shares(tokens: tuple[int, ...]) -> dict[str, float]:
    lm, source, _ = helpers()
    return {
        "language_model": 0.6 * lm.log_prob(tokens),
        "source": -0.3 * source.log_prob(tokens),
        "bonus": 0.4 * len(tokens),
    }


def test_a_wide_joint_beam_is_exhaustive_search() -> None:
    decoder, ctc = attention()
    both = encoded(3, 2)
    config = AttentionBeamConfig(
        beam=100, n_best=200, length_power=0.0, max_length=1.0, end_margin=math.inf, language_model=language()
    )
    heads: dict[str, Any] = {"attention": decoder, "ctc": ctc}
    found = build_encoded_search(config, heads, 1.0, helpers()[2])(both)
    for n, length in enumerate((3, 2)):
        own = Padded(both.values[n : n + 1, :length], both.lengths[n : n + 1])
        deaf = Padded(torch.zeros_like(own.values), own.lengths)
        expected: dict[tuple[int, ...], float] = {}
        for tokens in sentences(VOCABULARY, length):
            target = pad([torch.tensor(tokens, dtype=torch.int64)])
            with torch.no_grad():
                acoustic = 0.7 * decoder.log_likelihood(own, target) - 0.3 * ctc.loss(own, target)
                internal = decoder.log_likelihood(deaf, target)
            total = float(acoustic - 0.2 * internal) + sum(shares(tokens).values())
            if total > NEVER:
                expected[tokens] = total
        assert {r.tokens: r.score for r in found[n]} == pytest.approx(expected)
        for reading in found[n]:
            assert reading.score == pytest.approx(sum(reading.parts.values()))
            assert {k: reading.parts[k] for k in shares(())} == pytest.approx(shares(reading.tokens))
            assert reading.confidences is not None
            assert all(0 <= c <= 1 for c in reading.confidences)


def test_confidences_are_those_of_what_hears() -> None:
    decoder, ctc = attention()
    heads: dict[str, Any] = {"attention": decoder, "ctc": ctc}
    config = AttentionBeamConfig(beam=100, n_best=100, max_length=1.0, end_margin=math.inf)
    plain = build_encoded_search(config, heads, 1.0)(encoded(3))[0]
    fused = build_encoded_search(config, heads, 1.0, helpers()[2]._replace(source=None))(encoded(3))[0]
    alone = {r.tokens: r.confidences for r in plain}
    assert len(fused) > 10
    for reading in fused:
        assert reading.confidences == pytest.approx(alone[reading.tokens])


@pytest.mark.parametrize("time", [1, 3])
def test_a_wide_transducer_beam_is_exhaustive_search(time: int) -> None:
    head, frames = transducer(time), encoded(time)
    config = TransducerBeamConfig(
        beam=4**time, n_best=4**time, length_normalized=False, language_model=language()
    )
    (found,) = build_encoded_search(config, {"transducer": head}, 0.04, helpers()[2])(frames)
    internal = InternalModel(head)
    expected: dict[tuple[int, ...], float] = {}
    for tokens in sentences(VOCABULARY, time):
        target = pad([torch.tensor(tokens, dtype=torch.int64)])
        with torch.no_grad():
            logits = head.joiner(frames.values[:, :, None], head.predictor(target)[:, None])
        acoustic = -rnnt_loss(logits, frames.lengths, target, topology="modified").item()
        text = sum(shares(tokens).values()) - 0.2 * sentence_score(internal, tokens)
        expected[tokens] = acoustic + text
    assert {r.tokens: r.score for r in found} == pytest.approx(expected)
    for reading in found:
        assert reading.score == pytest.approx(sum(reading.parts.values()))
        assert {k: reading.parts[k] for k in shares(())} == pytest.approx(shares(reading.tokens))


def test_the_internal_model_is_the_transducer_without_sound() -> None:
    head = transducer(4)
    projection = head.joiner.encoder_proj
    scores, state = InternalModel(head).score(torch.tensor([0, 0]), InternalModel(head).start(2))
    scores, _ = InternalModel(head).score(torch.tensor([2, 3]), state)
    for row, token in enumerate((2, 3)):
        predicted = head.predictor(pad([torch.tensor([token])]))[:, -1]
        joint = torch.tanh(projection.bias + head.joiner.predictor_proj(predicted))
        expected = head.joiner.output(joint)[0, 1:].softmax(-1).tolist()
        assert scores[row, 1:].exp().tolist() == pytest.approx(expected)
        assert scores[row, 0] == 0.0


def test_transducer_beam_one_is_greedy_with_scorers_too() -> None:
    for seed in range(6):
        head, frames = transducer(seed), encoded(9, 4, 0)
        settings = language()
        greedy = build_encoded_search(
            TransducerGreedyConfig(language_model=settings), {"transducer": head}, 0.04, helpers()[2]
        )(frames)
        beam = build_encoded_search(
            TransducerBeamConfig(beam=1, language_model=settings), {"transducer": head}, 0.04, helpers()[2]
        )(frames)
        for (one,), (other,) in zip(greedy, beam, strict=True):
            assert one.tokens == other.tokens
            assert one.parts == pytest.approx(other.parts, rel=1e-4, abs=1e-4)


def test_greedy_transducer_writes_as_a_loop_would() -> None:
    """Two symbols per frame, and a language model, written out plainly."""
    head, frames, lm = transducer(3), encoded(8), TrigramScorer(VOCABULARY, 1)
    config = TransducerGreedyConfig(symbols_per_frame=2, language_model=LanguageModelConfig(weight=0.5))
    (found,) = build_encoded_search(config, {"transducer": head}, 1.0, Scorers(lm))(frames)[0]
    tokens: list[int] = []
    score = 0.0
    for t in range(8):
        for _ in range(2):
            history = head.predictor(pad([torch.tensor(tokens, dtype=torch.int64)]))[:, -1]
            log_probs = head.joiner(frames.values[:, t], history).log_softmax(-1)[0].detach()
            before = (0, 0, *tokens)
            text = lm.table[before[-2], before[-1]].clone()
            text[0] = 0.0
            symbol = int((log_probs + 0.5 * text).argmax())
            score += float(log_probs[symbol])
            if symbol == 0:
                break
            tokens.append(symbol)
    assert len(tokens) > 1
    assert found.tokens == tuple(tokens)
    assert found.parts["transducer"] == pytest.approx(score, rel=1e-5)
    assert found.parts["language_model"] == pytest.approx(0.5 * lm.log_prob(found.tokens))


def test_rescoring_adds_the_shares_to_both_passes() -> None:
    decoder, ctc = attention()
    heads: dict[str, Any] = {"attention": decoder, "ctc": ctc}
    config = RescoringConfig(beam=60, n_best=60, ctc_weight=0.4, language_model=language())
    (found,) = build_encoded_search(config, heads, 1.0, helpers()[2])(encoded(3))
    for reading in found:
        target = pad([torch.tensor(reading.tokens, dtype=torch.int64)])
        with torch.no_grad():
            acoustic = 0.6 * decoder.log_likelihood(encoded(3), target) - 0.4 * ctc.loss(encoded(3), target)
        assert reading.score == pytest.approx(float(acoustic) + sum(shares(reading.tokens).values()))
        assert reading.score == pytest.approx(sum(reading.parts.values()))


KINDS: list[SearchConfig] = [
    GreedyConfig(),
    CtcBeamConfig(beam=3),
    AttentionBeamConfig(beam=3),
    RescoringConfig(beam=3, n_best=2),
    TransducerGreedyConfig(),
    TransducerBeamConfig(beam=3),
]


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_other_utterances_of_the_batch_do_not_matter(config: SearchConfig) -> None:
    decoder, ctc = attention()
    heads: dict[str, Any] = {"attention": decoder, "ctc": ctc, "transducer": transducer(2)}
    heads = {name: head.float() for name, head in heads.items()}
    search = build_encoded_search(config, heads, 1.0, helpers()[2])
    frames = Padded(encoded(6, 0, 3).values.float(), torch.tensor([6, 0, 3]))
    together = search(frames)
    for n, length in enumerate((6, 0, 3)):
        alone = search(Padded(frames.values[n : n + 1, :length], frames.lengths[n : n + 1]))[0]
        assert [r.tokens for r in together[n]] == [r.tokens for r in alone]
        assert [r.score for r in together[n]] == pytest.approx([r.score for r in alone], rel=1e-4)
        assert all("language_model" in r.parts for r in alone)


@pytest.mark.parametrize(
    "changes", [{"tokens_per_frame": 3}, {"token_threshold": 0.1}, {"blank_penalty": 0.7}]
)
def test_what_the_ear_rules_out_is_not_tried(changes: dict[str, float]) -> None:
    """Pruning and the blank's penalty are those of the posterior, as without scorers."""
    log_probs = posterior(9, 6, 2)
    seen = log_probs.copy()
    if "tokens_per_frame" in changes:
        seen[seen < np.sort(seen, axis=1)[:, [3]]] = NEVER
    if "token_threshold" in changes:
        seen[:, 1:][seen[:, 1:] < math.log(0.1)] = NEVER
    seen[:, 0] -= changes.get("blank_penalty", 0.0)
    _, _, scorers = two(6)
    config = CtcBeamConfig.model_validate({"beam": 4, **changes})
    found = prefix_readings(log_probs, config, scorers)
    assert {r.tokens: r.score for r in found} == pytest.approx(slow_beam(seen, 4, scorers))
    assert seen.tolist() != log_probs.tolist()


@pytest.mark.parametrize("spread", [0.5, 40.0])
def test_times_are_those_of_the_best_alignment(spread: float) -> None:
    """Whether the reading is that of the best path (sure frames) or not (unsure ones)."""
    log_probs = posterior(25, 6, 4, spread=spread)
    scorers = [Weighted("lm", 0.3, TrigramScorer(6, 1))]
    (found,) = build_search(GreedyConfig(), 0.04, scorers)(pad([torch.from_numpy(log_probs)]))[0]
    (plain,) = build_search(GreedyConfig(), 0.04)(pad([torch.from_numpy(log_probs)]))[0]
    assert (found.tokens == plain.tokens) == (spread > 1)
    expected = align(log_probs, found.tokens)
    assert len(found.tokens) > 3
    assert found.times == pytest.approx([0.04 * frame for frame in expected.first])
    assert found.ends == pytest.approx([0.04 * (frame + 1) for frame in expected.last])
    assert found.confidences == pytest.approx(expected.confidences)
