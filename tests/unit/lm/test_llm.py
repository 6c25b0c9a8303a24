"""Causal models: batch = alone, prompt cache = full pass, token by token, windows, ends, settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from firstwords.errors import CheckpointError
from firstwords.lm.llm import CausalLlm, chosen_log_probs
from firstwords.lm.llm_score import LlmConfig
from small_llm import WORDS, save

KINDS = ("llama", "gpt2", "mistral", "bloom")  # rotary, learnt positions, sliding window, ALiBi
PROMPT = "anna goes to town\nbob says the dog eats fish in the home on it"
TEXTS = ["the cat eats fish", "zebra", "it goes home today in town with the dog", "", "the cat eats fish"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("llm")
    return {kind: save(root / kind, kind, seed=7) for kind in KINDS}


def token_by_token(llm: CausalLlm, text: str, prompt: str = "") -> float:
    """One full pass for every token, in double precision."""
    model = llm.model.double()
    own = llm.tokenizer
    ids = [own.bos_token_id]
    if prompt:
        ids += own.encode(prompt + llm.config.separator, add_special_tokens=False)
    total = 0.0
    body = [*own.encode(text, add_special_tokens=False), own.eos_token_id]
    for token in body:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        total += float(logits.log_softmax(-1)[token])
        ids.append(token)
    llm.model.float()
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", ["", PROMPT], ids=["no prompt", "prompt"])
def test_scores_are_the_chain_rule(folders: dict[str, Path], kind: str, prompt: str) -> None:
    llm = CausalLlm.load(folders[kind])
    for text, score in zip(TEXTS, llm.score(TEXTS, prompt), strict=True):
        assert score.log_prob == pytest.approx(token_by_token(llm, text, prompt), abs=1e-4)
        assert score.tokens == len(text.split()) + 1
        assert score.characters == len(text)
        assert (score.prompt_cut, score.windows) == (0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cached_prompt_is_the_full_pass_and_a_batch_is_each_alone(
    folders: dict[str, Path], kind: str
) -> None:
    cached = CausalLlm.load(folders[kind])
    full = CausalLlm.load(folders[kind], config=LlmConfig(reuse_prompt=False))
    together = [s.log_prob for s in cached.score(TEXTS, PROMPT)]
    assert cached._last_prompt is not None
    assert full._last_prompt is None
    assert together == pytest.approx([s.log_prob for s in full.score(TEXTS, PROMPT)], abs=1e-4)
    alone = [cached.score([text], PROMPT)[0].log_prob for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-4)
    few = CausalLlm.load(folders[kind], config=LlmConfig(tokens_per_batch=7))
    assert [s.log_prob for s in few.score(TEXTS, PROMPT)] == pytest.approx(together, abs=1e-4)
    again = [s.log_prob for s in cached.score(TEXTS, PROMPT)]
    assert again == together  # the cache was not changed by its use


def test_what_is_appended_to_a_prompt_is_all_that_is_read(folders: dict[str, Path]) -> None:
    llm = CausalLlm.load(folders["llama"])
    llm.score(["zebra"], "anna goes to town")
    first = llm._last_prompt
    assert first is not None
    fed: list[int] = []
    forward = llm.model.forward

    def watched(*args: object, **kwargs: torch.Tensor) -> object:
        fed.append(kwargs["input_ids"].shape[1])
        return forward(*args, **kwargs)

    llm.model.forward = watched
    longer = llm.score(["zebra"], PROMPT)[0].log_prob
    assert fed[0] == len(PROMPT.split()) - 4 + 2 - 1  # the words after the first line, two line ends less one
    fresh = CausalLlm.load(folders["llama"]).score(["zebra"], PROMPT)[0].log_prob
    assert longer == pytest.approx(fresh, abs=1e-4)
    assert len(first.ids) == 6


def test_the_prompt_changes_scores_but_is_not_counted(folders: dict[str, Path]) -> None:
    llm = CausalLlm.load(folders["llama"])
    plain, prompted = llm.score(["the cat"])[0], llm.score(["the cat"], "zebra")[0]
    assert plain.log_prob != pytest.approx(prompted.log_prob, abs=1e-3)
    assert plain.tokens == prompted.tokens == 3
    assert llm.score(["the cat"], "zebra \n ")[0] == prompted  # white space after it says nothing
    assert llm.score(["the cat"], "  \n")[0] == plain


def test_all_readings_together_are_as_likely_as_their_prefix(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums to one: over all tokens w, P(text w) without ends is P(text)."""
    llm = CausalLlm.load(folders["gpt2"], config=LlmConfig(ending="none"))
    before = llm.score(["the cat"], "bob")[0].log_prob
    vocabulary = len(llm.tokenizer)
    ids = [[*llm._ids("the cat"), i] for i in range(vocabulary)]
    plain = llm._ids
    monkeypatch.setattr(llm, "_ids", lambda text: ids[int(text)] if text.isdigit() else plain(text))
    after = [s.log_prob for s in llm.score([str(i) for i in range(len(ids))], "bob")]
    assert torch.tensor(after).logsumexp(0).item() == pytest.approx(before, abs=1e-4)


def test_what_counts_as_the_end(folders: dict[str, Path]) -> None:
    scores = {
        ending: CausalLlm.load(folders["llama"], config=LlmConfig(ending=ending)).score(
            ["the cat", ""], "bob"
        )
        for ending in ("eos", "separator", "none")
    }
    assert [s.tokens for s in scores["none"]] == [2, 0]
    assert scores["none"][1].log_prob == 0.0
    assert [s.tokens for s in scores["eos"]] == [s.tokens for s in scores["separator"]] == [3, 1]
    assert scores["eos"][0].log_prob < scores["none"][0].log_prob
    assert scores["eos"][0].log_prob != scores["separator"][0].log_prob


def test_a_prompt_that_does_not_fit_loses_its_beginning(tmp_path: Path) -> None:
    llm = CausalLlm.load(save(tmp_path, "gpt2", positions=12))
    long = "anna bob cat dog eats fish goes home in on the it"
    (one, two) = llm.score(["zebra town", "zebra"], long)
    # 12 positions: start, prompt, and three tokens of which the last is not fed
    assert (one.prompt_cut, two.prompt_cut) == (13 - 9, 13 - 9)
    kept = llm.score(["zebra town", "zebra"], " ".join(long.split()[4:]))
    assert [s.log_prob for s in kept] == pytest.approx([one.log_prob, two.log_prob], abs=1e-5)
    assert kept[0].prompt_cut == 0


@pytest.mark.parametrize("positions", [8, 9, 16])
@pytest.mark.parametrize("length", [7, 8, 9, 15, 16, 17, 40])
def test_a_text_that_does_not_fit_is_read_in_windows(tmp_path: Path, positions: int, length: int) -> None:
    llm = CausalLlm.load(save(tmp_path, "gpt2", positions=positions))
    text = " ".join(WORDS[i % len(WORDS)] for i in range(length))
    short = "the cat"
    score, other = llm.score([text, short], "anna bob")
    body = llm._ids(text) + llm._end
    if length + 1 <= positions:
        assert score.windows == 1
        return
    # every token once, with at least half a window before it, the first ones with all
    assert (score.windows > 1, score.tokens, score.prompt_cut) == (True, length + 1, 3)
    asked = [(row.fed, row.expected) for row in llm._windows(0, body)]
    heard = [token for _, expected in asked for token in expected if token >= 0]
    assert heard == body
    expected_sum = 0.0
    for fed, expected in asked:
        assert len(fed) == len(expected) <= positions
        with torch.no_grad():
            log_probs = llm.model(input_ids=torch.tensor([fed]), use_cache=False).logits[0].log_softmax(-1)
        skipped = sum(token < 0 for token in expected)
        assert skipped == 0 or skipped >= (positions - 1) // 2
        expected_sum += sum(float(log_probs[i, t]) for i, t in enumerate(expected) if t >= 0)
    assert score.log_prob == pytest.approx(expected_sum, abs=1e-4)
    assert other.log_prob == pytest.approx(llm.score([short])[0].log_prob, abs=1e-5)


def test_hand_computed_log_probabilities() -> None:
    logits = torch.tensor([[0.0, 0.0], [torch.log(torch.tensor(3.0)), 0.0], [5.0, 5.0]])
    found = chosen_log_probs(logits, torch.tensor([1, 0, -1]))
    assert found.tolist() == pytest.approx([-0.693147, -0.287682, 0.0], abs=1e-6)  # log 1/2, log 3/4


def test_nothing_to_score(folders: dict[str, Path]) -> None:
    llm = CausalLlm.load(folders["llama"])
    assert llm.score([]) == []
    assert llm.score([], PROMPT) == []
    assert llm.token_count("") == 0
    assert llm.token_count("the cat") == 2


def test_a_model_that_sees_the_future_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """BertLMHeadModel is in transformers' list of causal models, whatever it was trained as."""
    folder = save(tmp_path / "bert", "bert")
    config = folder / "config.json"
    config.write_text(config.read_text().replace("BertForMaskedLM", "BertLMHeadModel"))
    with pytest.raises(CheckpointError, match="BertLMHeadModel is not causal"):
        CausalLlm.load(folder)


def test_half_precision_is_close(folders: dict[str, Path]) -> None:
    exact = [s.log_prob for s in CausalLlm.load(folders["llama"]).score(TEXTS, PROMPT)]
    half = [s.log_prob for s in CausalLlm.load(folders["llama"], dtype="bf16").score(TEXTS, PROMPT)]
    assert half != exact
    assert half == pytest.approx(exact, rel=0.02)  # eight bits of mantissa


def test_settings() -> None:
    with pytest.raises(ValueError, match="white space"):
        LlmConfig(separator=". ")
    with pytest.raises(ValueError, match="ending"):
        LlmConfig.model_validate({"ending": "dot"})


def test_what_the_tokenizer_cannot_write_is_counted(folders: dict[str, Path]) -> None:
    for ending in ("eos", "separator"):
        llm = CausalLlm.load(folders["llama"], config=LlmConfig(ending=ending))
        found = llm.score(["the cat eats", "the ẹja eats mọ́", ""], PROMPT)
        assert [(score.unknown, score.tokens) for score in found] == [(0, 4), (2, 5), (0, 1)]
