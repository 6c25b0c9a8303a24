"""Cold and deep fusion: formulas by hand, a language model that learns nothing, sampling, its use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from firstwords.errors import ConfigError
from firstwords.heads.attention.fusion import (
    ColdFusion,
    DeepFusion,
    FrozenLanguageModel,
    FusionConfig,
    Said,
    build_fusion,
)
from firstwords.heads.attention.objective import lesson_of
from firstwords.heads.attention.speller import SpellerConfig, SpellerHead
from firstwords.heads.attention.transformer import TransformerDecoderConfig, TransformerDecoderHead
from firstwords.lm.neural.config import LstmLmConfig
from firstwords.lm.neural.lstm import LstmLm
from firstwords.tensors import Padded, pad

DIM, VOCABULARY = 6, 5


def config(kind: str = "cold", units: int = VOCABULARY, **changes: Any) -> FusionConfig:
    network = {"kind": "lstm", "dim": 4, "dropout": 0.5}
    return FusionConfig.model_validate(
        {"kind": kind, "width": 7, "network": network, "units": units} | changes
    )


def head(kind: str, decoder: str) -> SpellerHead | TransformerDecoderHead:
    torch.manual_seed(4)
    fusion = config(kind)
    if decoder == "speller":
        return SpellerHead(SpellerConfig(width=8, fusion=fusion), DIM, VOCABULARY)
    own = TransformerDecoderConfig(width=8, heads=2, feedforward=16, fusion=fusion)
    return TransformerDecoderHead(own, DIM, VOCABULARY)


BOTH = [(kind, decoder) for kind in ("cold", "deep") for decoder in ("speller", "transformer")]


def utterances() -> tuple[Padded, Padded]:
    values = torch.randn(3, 9, DIM, generator=torch.Generator().manual_seed(3))
    encoded = pad([values[0], values[1, :6], values[2, :8]])
    return encoded, pad([torch.tensor(t) for t in ([1, 2, 3, 4, 4], [4, 4], [2])])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in module.named_parameters()}


def test_cold_fusion_is_the_formula_of_the_paper() -> None:
    """Equations 4a to 4e, row by row in numpy."""
    torch.manual_seed(1)
    fusion, output = ColdFusion(config(), 3, VOCABULARY), nn.Linear(7, VOCABULARY)
    s, scores = torch.randn(2, 4, 3), 3 * torch.randn(2, 4, VOCABULARY)
    found = fusion(s, Said(torch.randn(2, 4, 4), scores), output)
    w, o = arrays(fusion), arrays(output)
    for place in np.ndindex(2, 4):
        one, raw = s[place].double().numpy(), scores[place].double().numpy()
        text = w["text.weight"] @ (raw - raw.max()) + w["text.bias"]
        gate = sigmoid(w["gate.weight"] @ np.concatenate([one, text]) + w["gate.bias"])
        mixed = np.maximum(0, w["mix.weight"] @ np.concatenate([one, gate * text]) + w["mix.bias"])
        expected = o["weight"] @ mixed + o["bias"]
        np.testing.assert_allclose(found[place].detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    again = fusion(s, Said(torch.zeros(2, 4, 4), scores + 5.0), output)
    torch.testing.assert_close(again, found)  # scores are known up to a constant


def test_deep_fusion_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(1)
    fusion, output = DeepFusion(config("deep"), 3, VOCABULARY), nn.Linear(3, VOCABULARY)
    s, hidden = torch.randn(2, 3), torch.randn(2, 4)
    found = fusion(s, Said(hidden, torch.randn(2, VOCABULARY)), output)
    w, o = arrays(fusion), arrays(output)
    for row in range(2):
        h = hidden[row].double().numpy()
        gate = sigmoid(w["gate.weight"][0] @ h + w["gate.bias"][0])
        # the concatenation [s; g h] under one matrix [W U]
        matrix = np.concatenate([o["weight"], w["beside.weight"]], axis=1)
        expected = matrix @ np.concatenate([s[row].double().numpy(), gate * h]) + o["bias"]
        np.testing.assert_allclose(found[row].detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_small_numbers_by_hand() -> None:
    """One feature s = 2, scores (1, 3); all matrices 1 but U = 4; biases 0.

    cold: text = (1 - 3) + 0 = -2, g = σ(2 - 2) = 0.5, relu(2 - 1) = 1
    deep: h = 0: g = σ(c) = σ(0) = 0.5 of nothing; h = ln 3: g = 3 / 4, 2 + 4 · 0.75 ln 3 = 5.2958
    """
    network = {"kind": "lstm", "dim": 1}
    cold = ColdFusion(config(units=2, width=1, network=network), 1, 2)
    deep = DeepFusion(config("deep", units=2, network=network), 1, 2)
    output = nn.Linear(1, 2)
    with torch.no_grad():
        for module in (cold.text, cold.gate, cold.mix, deep.gate, output):
            module.weight.fill_(1)
            module.bias.fill_(0)
        deep.beside.weight.fill_(4)
    s = torch.tensor([[2.0]])
    said = Said(torch.tensor([[0.0]]), torch.tensor([[1.0, 3.0]]))
    assert cold(s, said, output).tolist() == [[1.0, 1.0]]
    assert deep(s, said, output).tolist() == [[2.0, 2.0]]
    said = said._replace(hidden=torch.tensor([[np.log(3.0)]], dtype=torch.float32))
    assert deep(s, said, output)[0].tolist() == pytest.approx([5.2958, 5.2958], abs=1e-4)


@pytest.mark.parametrize(("kind", "decoder"), BOTH)
def test_the_language_model_learns_nothing_and_all_else_does(kind: str, decoder: str) -> None:
    one = head(kind, decoder).train()
    encoded, targets = utterances()
    one.loss(encoded, targets).sum().backward()
    inside = [name for name, _ in one.named_parameters() if "language_model" in name]
    assert inside
    for name, parameter in one.named_parameters():
        if name in inside:
            assert parameter.grad is None, name
            assert not parameter.requires_grad, name
        elif not name.endswith("key.bias"):
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


@pytest.mark.parametrize(("kind", "decoder"), BOTH)
def test_the_language_model_is_heard(kind: str, decoder: str) -> None:
    """Another one changes what is said; and it has no dropout while the decoder is trained."""
    one = head(kind, decoder).eval()
    encoded, targets = utterances()
    before = one.loss(encoded, targets)
    assert one.fusion is not None
    language_model = one.fusion.language_model
    units = lesson_of(targets, VOCABULARY).inputs
    said = language_model.read(units)
    one.train()
    assert not any(module.training for module in language_model.modules())
    torch.testing.assert_close(language_model.read(units).scores, said.scores)
    one.eval()
    with torch.no_grad():
        for parameter in language_model.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.allclose(one.loss(encoded, targets), before)


def test_it_reads_tokens_in_its_own_ids() -> None:
    """A model of letters: ids 0 end, 1 unknown, then letters; two tokens of the decoder are unknown to it."""
    torch.manual_seed(2)
    inside = FrozenLanguageModel(config(units=4), VOCABULARY)
    inside.columns.copy_(torch.tensor([0, 3, 1, 2, 1]))
    targets = pad([torch.tensor([1, 3, 2])])
    said = inside.read(lesson_of(targets, VOCABULARY).inputs)
    hidden = inside.network(torch.tensor([[0, 3, 2, 1]]))
    scores = inside.network.logits(hidden)
    torch.testing.assert_close(said.hidden, hidden)
    torch.testing.assert_close(said.scores, scores[..., [0, 3, 1, 2, 1]])


def test_token_by_token_is_the_whole_sentence() -> None:
    torch.manual_seed(2)
    inside = FrozenLanguageModel(config(), VOCABULARY)
    units = lesson_of(pad([torch.tensor([1, 3, 2]), torch.tensor([4, 4, 1])]), VOCABULARY).inputs
    whole, state = inside.read(units), inside.start(2)
    for place in range(4):
        said, state = inside.step(units[:, place], state)
        torch.testing.assert_close(said.scores, whole.scores[:, place])
        torch.testing.assert_close(said.hidden, whole.hidden[:, place])


@pytest.mark.parametrize("kind", ["cold", "deep"])
def test_a_sampled_token_is_read_by_the_language_model_too(kind: str) -> None:
    """Reading one's own predictions = a lesson made of these predictions."""
    one = head(kind, "speller").eval()
    assert isinstance(one, SpellerHead)
    encoded, targets = utterances()
    lesson = lesson_of(targets, VOCABULARY)
    coins = torch.zeros_like(lesson.inputs, dtype=torch.bool)
    torch.testing.assert_close(one.write(encoded, lesson, coins).logits, one.write(encoded, lesson).logits)
    coins[:, 1:] = True
    sampled = one.write(encoded, lesson, coins).logits
    own = lesson.inputs.clone()
    own[:, 1:] = sampled.argmax(dim=2)[:, :-1]
    assert not torch.equal(own, lesson.inputs)
    torch.testing.assert_close(one.write(encoded, lesson._replace(inputs=own)).logits, sampled)


@pytest.mark.parametrize("kind", ["cold", "deep"])
def test_rows_of_several_states_are_joined(kind: str) -> None:
    one = head(kind, "speller").eval()
    encoded = Padded(torch.randn(1, 6, DIM), torch.tensor([6]))
    scorer = one.scorer(encoded)
    _, state = scorer.score(torch.tensor([0, 0, 0]), scorer.start(3))
    scores, _ = scorer.score(torch.tensor([1, 2, 3]), state)
    parts = [scorer.reorder(state, torch.tensor(kept)) for kept in ([0], [1, 2])]
    torch.testing.assert_close(scorer.score(torch.tensor([1, 2, 3]), scorer.join(parts))[0], scores)


def test_without_sizes_it_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="sizes of the language model") as caught:
        build_fusion(FusionConfig(folder="lm"), 3, VOCABULARY)
    assert "folder" in caught.value.mend
    assert build_fusion(None, 3, VOCABULARY) is None


# --- what it is for ----------------------------------------------------------------------------------------

LETTERS = 7  # ids 1..6


def texts(count: int, seed: int) -> list[Tensor]:
    """Sentences of eight letters, in which two letters decide the next one by a table."""
    table = np.random.default_rng(5).integers(1, LETTERS, (LETTERS, LETTERS))
    draw = np.random.default_rng(seed)
    found: list[Tensor] = []
    for _ in range(count):
        letters = [int(x) for x in draw.integers(1, LETTERS, 2)]
        while len(letters) < 8:
            letters.append(int(table[letters[-2], letters[-1]]))
        found.append(torch.tensor(letters))
    return found


def a_language_model() -> LstmLm:
    """Trained on text alone."""
    torch.manual_seed(0)
    network = LstmLm(LstmLmConfig(dim=24, layers=1, dropout=0.0), LETTERS)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    sentences = torch.stack(texts(100, seed=1))
    read = torch.cat([torch.zeros(100, 1, dtype=torch.int64), sentences], dim=1)
    say = torch.cat([sentences, torch.zeros(100, 1, dtype=torch.int64)], dim=1)
    for _ in range(100):
        scores = network.logits(network(read))
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), say.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.requires_grad_(False)


def taught(fusion: FusionConfig | None, network: LstmLm) -> float:
    """A decoder taught with eight sentences and frames that tell nothing -> nats of other sentences."""
    torch.manual_seed(0)
    own = TransformerDecoderConfig(
        width=16, layers=1, heads=2, feedforward=16, dropout=0.0, label_smoothing=0.0, fusion=fusion
    )
    decoder = TransformerDecoderHead(own, DIM, LETTERS)
    if decoder.fusion is not None:
        decoder.fusion.language_model.network.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam([p for p in decoder.parameters() if p.requires_grad], lr=0.01)
    silence = Padded(torch.zeros(8, 2, DIM), torch.full((8,), 2))
    for _ in range(70):
        loss = decoder.loss(silence, pad(texts(8, seed=2))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held = pad(texts(64, seed=3))
    silence = Padded(torch.zeros(64, 2, DIM), torch.full((64,), 2))
    return decoder.eval().loss(silence, held).mean().item()


def test_knowledge_of_text_reaches_a_decoder_by_cold_fusion() -> None:
    """Eight transcripts do not hold the rule; the language model has it from text."""
    network = a_language_model()
    settings = FusionConfig(kind="cold", width=24, network=network.config, units=LETTERS)
    alone, fused = taught(None, network), taught(settings, network)
    untrained = LstmLm(network.config, LETTERS)
    ignorant = taught(settings, untrained)
    assert fused < 0.7 * alone, (fused, alone)
    assert fused < 0.7 * ignorant, (fused, ignorant)  # it is what the language model knows, not its size
