"""A language model trained on a language of nineteen words, and what its choice among readings then mends.

anna says the cat eats fish      bob says the dog eats fish
it says meow                     it says woof                   what it says depends on the sentence before
anna goes to town today          bob goes home today            where to depends on the domain (first line)
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from firstwords.inference.second_pass import SecondPass, SecondPassConfig
from firstwords.inference.transcript import Token
from firstwords.lm.llm import CausalLlm
from firstwords.lm.llm_context import ContextConfig
from firstwords.lm.llm_quality import transcript_quality
from firstwords.lm.llm_score import LlmConfig, TextScore
from firstwords.scoring.error_rate import ErrorRate, word_errors
from firstwords.scoring.ranking import area_under_curve
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.rescore import Candidate, RescoreConfig, candidates, rescore, tune_rescoring
from firstwords.text.characters import GraphemeTokenizer
from small_llm import WORDS, model, tokenizer

STEPS = 80


def sentences(draw: random.Random, domain: str | None = None) -> list[str]:
    """Two sentences about an animal, or one about a way."""
    who = draw.choice(["anna", "bob"])
    if draw.random() < 0.5:
        animal, call = draw.choice([("cat", "meow"), ("dog", "woof")])
        return [f"{who} says the {animal} eats fish", f"it says {call}"]
    goal = domain or draw.choice(["town", "home"])
    return [f"{who} goes {'to town' if goal == 'town' else 'home'} today"]


def document(draw: random.Random) -> str:
    domain = draw.choice([None, "town", "home"])
    lines = [domain] if domain else []
    for _ in range(3):
        lines += sentences(draw, domain)
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> CausalLlm:
    own = tokenizer()
    trained = model("llama", len(own), width=32)
    draw = random.Random(1)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=5e-3)
    trained.train()
    for _ in range(STEPS):
        rows = [[1, *own.encode(document(draw), add_special_tokens=False)] for _ in range(16)]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        loss = trained(
            input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), use_cache=False
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder: Path = tmp_path_factory.mktemp("toy-llm")
    trained.save_pretrained(folder)
    own.save_pretrained(folder)
    return CausalLlm.load(folder, config=LlmConfig(ending="separator"))


def misheard(draw: random.Random, text: str) -> str:
    """One word replaced by another."""
    words = text.split()
    words[draw.randrange(len(words))] = draw.choice(WORDS)
    return " ".join(words)


Found = tuple[list[Hypothesis], list[str], str]


def n_best(draw: random.Random, text: str) -> Found:
    """Readings of a recogniser that mishears: noisy scores, the right one among them."""
    texts = list(dict.fromkeys([text, *(misheard(draw, text) for _ in range(4))]))
    scores = [-2.0 * word_errors(text, reading).errors + draw.gauss(0, 2) for reading in texts]
    order = sorted(range(len(texts)), key=lambda i: -scores[i])
    readings = [Hypothesis((), scores[i], {"ctc": scores[i]}) for i in order]
    return readings, [texts[i] for i in order], text


def corpus(seed: int, size: int = 120) -> list[Found]:
    draw = random.Random(seed)
    return [n_best(draw, sentences(draw)[0]) for _ in range(size)]


def scored(llm: CausalLlm, found: list[Found]) -> list[list[TextScore]]:
    return [llm.score(texts) for _, texts, _ in found]


def test_weights_tuned_on_dev_mend_errors_on_test(llm: CausalLlm) -> None:
    dev, test = corpus(2), corpus(3)
    options: list[list[Candidate]] = [
        candidates(readings, texts, scores, text)
        for (readings, texts, text), scores in zip(dev, scored(llm, dev), strict=True)
    ]
    tuned = tune_rescoring(options, "dev")
    assert tuned.config.weight > 0
    assert tuned.oracle.errors == 0
    before, after = ErrorRate(), ErrorRate()
    for (readings, texts, text), scores in zip(test, scored(llm, test), strict=True):
        place = {id(reading): i for i, reading in enumerate(readings)}
        ordered = rescore(
            [Hypothesis((i,), r.score, r.parts) for i, r in enumerate(readings)], texts, scores, tuned.config
        )
        assert len(ordered) == len(place)
        before += word_errors(text, texts[0])
        after += word_errors(text, texts[ordered[0].tokens[0]])
    print(f"WER {before.rate:.3f} -> {after.rate:.3f} with {tuned.config}")
    assert after.rate < 0.5 * before.rate


def test_quality_tells_right_from_wrong_without_a_reference(llm: CausalLlm) -> None:
    found = corpus(4)
    best = [texts[0] for _, texts, _ in found]
    right = [best_text == text for best_text, (_, _, text) in zip(best, found, strict=True)]
    assert 30 < sum(right) < 90
    area = area_under_curve([transcript_quality(score) for score in llm.score(best)], right)
    print(f"AUC {area:.3f}")
    assert area >= 0.8


def test_a_domain_prompt_changes_the_choice(llm: CausalLlm) -> None:
    to_town, home = "anna goes to town today", "anna goes home today"
    in_town = llm.score([to_town, home], "town")
    at_home = llm.score([to_town, home], "home")
    assert in_town[0].log_prob > in_town[1].log_prob + 2
    assert at_home[1].log_prob > at_home[0].log_prob + 2


LETTERS = GraphemeTokenizer.train([" ".join(WORDS)])


def reading(text: str, score: float, confidence: float = 0.95) -> Hypothesis:
    tokens = tuple(LETTERS.encode(text))
    return Hypothesis(tokens, score, {"ctc": score}, confidences=(confidence,) * len(tokens))


def second_pass(llm: CausalLlm, tokens: int, confidence: float = 0.8) -> SecondPass:
    config = SecondPassConfig(
        rescore=RescoreConfig(weight=1.0), context=ContextConfig(tokens=tokens, confidence=confidence)
    )
    return SecondPass(llm, LETTERS, config)


def recording(animal: str, confidence: float = 0.95) -> list[list[Hypothesis]]:
    """Two segments; in the second both readings sound alike."""
    text = f"anna says the {animal} eats fish"
    first = [reading(text, -1.0, confidence), reading(text + " in", -3.0, confidence)]
    return [first, [reading("it says meow", -1.0), reading("it says woof", -1.0)]]


def chosen(pass_: SecondPass, stretches: list[list[Hypothesis]]) -> list[str]:
    pass_.begin([])
    return [LETTERS.decode(found[0].tokens) for found in pass_.in_order(stretches)]


def test_only_carried_context_mends_what_depends_on_the_segment_before(llm: CausalLlm) -> None:
    carrying, forgetful = second_pass(llm, tokens=50), second_pass(llm, tokens=0)
    ends = {"cat": "it says meow", "dog": "it says woof"}
    for animal, end in ends.items():
        assert chosen(carrying, recording(animal)) == [f"anna says the {animal} eats fish", end]
    forgotten = [chosen(forgetful, recording(animal))[1] for animal in ends]
    assert forgotten[0] == forgotten[1]  # one of the two is wrong
    # an unsure segment is not carried
    unsure = [chosen(carrying, recording(animal, confidence=0.5))[1] for animal in ends]
    assert unsure == forgotten
    # a silent stretch between them neither adds nor breaks
    first, second = recording("dog")
    carrying.begin([])
    assert [len(found) for found in carrying.in_order([first, [], second])] == [2, 0, 2]
    assert chosen(carrying, [first, [], second][::2])[1] == "it says woof"


def test_what_was_heard_before_a_kill_is_carried_on(llm: CausalLlm) -> None:
    """A group of windows begins with the tokens so far: the same choice as within one group."""
    for animal, end in {"cat": "it says meow", "dog": "it says woof"}.items():
        pass_ = second_pass(llm, tokens=50)
        ids = LETTERS.encode(f"anna says the {animal} eats fish")
        pass_.begin([Token(id_, 0.1 * i, 0.1 * i + 0.05, 0.95) for i, id_ in enumerate(ids)])
        assert LETTERS.decode(pass_.in_order([recording(animal)[1]])[0][0].tokens) == end


def test_context_comes_after_the_prompt_and_both_are_in_the_identity(llm: CausalLlm) -> None:
    one = SecondPass(llm, LETTERS, prompt="town")
    other = SecondPass(llm, LETTERS, prompt="home")
    assert one.identity != other.identity
    assert one.identity == SecondPass(llm, LETTERS, prompt="town").identity
    assert one.alone([]) == []
    assert one.alone([reading("anna", -1.0)]) == [reading("anna", -1.0)]
    found = [reading("anna goes to town today", -1.0), reading("anna goes home today", -1.0)]
    assert LETTERS.decode(one.alone(found)[0].tokens) == "anna goes to town today"
    assert LETTERS.decode(other.alone(found)[0].tokens) == "anna goes home today"
