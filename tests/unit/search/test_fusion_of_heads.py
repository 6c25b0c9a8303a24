"""Language models in the searches of attention decoders and transducers: against sums over all sentences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from firstwords.heads.attention.speller import SpellerConfig, SpellerHead
from firstwords.heads.ctc import CtcConfig, CtcHead
from firstwords.heads.transducer.head import TransducerConfig, TransducerHead
from firstwords.heads.transducer.rnnt import rnnt_loss
from firstwords.search.fusion import Scorers
from firstwords.search.interface import (
    AttentionBeamConfig,
    CtcBeamConfig,
    GreedyConfig,
    LanguageModelConfig,
    RescoringConfig,
    SearchConfig,
    TransducerBeamConfig,
    TransducerGreedyConfig,
)
from firstwords.search.search import build_encoded_search
from firstwords.search.transducer_common import InternalModel
from firstwords.tensors import Padded, pad
from toy_scorers import TrigramScorer, sentence_score, sentences

NEVER = -math.inf


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
        beam=100,
        n_best=200,
        ctc_weight=0.3,
        length_power=0.0,
        max_length=1.0,
        end_margin=math.inf,
        language_model=language(),
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
