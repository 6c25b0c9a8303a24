"""Does a domain prompt help, and does carried context? A tiny Llama, trained here, on two made domains.

    python benchmarks/llm_domains.py [--seed 1] [--steps 250] [--threads 1]

The language has pairs of words that differ in one letter of two that sound alike (b and p, e and i ...). One
word of each pair belongs to the one domain, the other to the other; beside them stand words of both and a few
that are of one domain alone. Sound is made as the log-probabilities of a CTC head, two frames a letter, in
which the letter that sounds alike is now and then the likelier one. Readings are those of the product's beam
search, their order that of its second pass (inference/second_pass.py) with a Llama trained on documents of
one domain each.

1  Sentences of one domain, the same readings four times: first pass; second pass without a prompt; after
   three other sentences of the domain; after three of the other one. Weight, bonus and length power are
   chosen once, on dev, without a prompt. Test is other sentences and other noise.
2  Recordings of two sentences. The first tells the domain; the second has one word of a pair, which both
   sound the same, and words of both domains: nothing but what was said before can tell. With context,
   without, and where the first was so unclear that the confidence gate lets nothing through.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

import numpy as np
import torch

from firstwords.device import machine_name, set_threads
from firstwords.inference.second_pass import SecondPass, SecondPassConfig
from firstwords.lm.llm import CausalLlm
from firstwords.lm.llm_context import ContextConfig
from firstwords.lm.llm_load import load_scorer
from firstwords.lm.llm_score import LlmConfig
from firstwords.scoring.error_rate import ErrorRate, word_errors
from firstwords.scoring.significance import relative_gain
from firstwords.search.ctc_beam import CtcBeamSearch
from firstwords.search.hypothesis import Hypothesis
from firstwords.search.interface import CtcBeamConfig
from firstwords.search.rescore import RescoreConfig, candidates, tune_rescoring
from firstwords.tensors import pad
from firstwords.text.characters import GraphemeConfig, GraphemeTokenizer

ALIKE = {a: b for pair in ("bp", "dt", "gk", "mn", "ei", "ou", "sz", "lr") for a, b in (pair, pair[::-1])}
CONSONANTS, VOWELS = "bpdtgkmnszlr", "aeiou"
PAIRS, COMMON, OWN = 24, 16, 12  # words
READINGS = 10
DEV, TEST, RECORDINGS = 60, 200, 60  # sentences, sentences, pairs of sentences
SPECIAL = ["<s>", "</s>", "<unk>", "\n"]


@dataclass(frozen=True)
class Language:
    """Words of both domains, and of each: those of the pairs (in the same order) and its own."""

    common: list[str]
    paired: tuple[list[str], list[str]]
    own: tuple[list[str], list[str]]

    @property
    def words(self) -> list[str]:
        return sorted({*self.common, *self.paired[0], *self.paired[1], *self.own[0], *self.own[1]})

    def sentence(self, domain: int, draw: random.Random, shares: tuple[float, float] = (0.45, 0.45)) -> str:
        """Three to six words; ``shares`` of common ones and of pairs, the rest of the domain alone."""
        found: list[str] = []
        for _ in range(draw.randint(3, 6)):
            kind = draw.random()
            words = self.common if kind < shares[0] else self.own[domain]
            if shares[0] <= kind < sum(shares):
                words = self.paired[domain]
            found.append(words[min(int(draw.expovariate(0.15)), len(words) - 1)])  # some are frequent
        return " ".join(found)


def make_language(draw: random.Random) -> Language:
    """Made-up words of two or three syllables; no two sound alike but those of a pair."""
    taken: set[str] = set()

    def sound(word: str) -> str:
        return "".join(min(letter, ALIKE.get(letter, letter)) for letter in word)

    def word() -> str:
        while True:
            made = "".join(draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(draw.randint(2, 3)))
            if sound(made) not in taken:
                taken.add(sound(made))
                return made

    pairs: list[tuple[str, str]] = []
    for _ in range(PAIRS):
        one = word()
        at = draw.choice([i for i, letter in enumerate(one) if letter in ALIKE])
        other = one[:at] + ALIKE[one[at]] + one[at + 1 :]
        pairs.append(draw.choice([(one, other), (other, one)]))
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    return Language(
        [word() for _ in range(COMMON)], (a, b), ([word() for _ in range(OWN)], [word() for _ in range(OWN)])
    )


class Ear:
    """Sentences -> what a CTC head might say of them -> readings of the product's beam search."""

    def __init__(self, tokenizer: GraphemeTokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self.noise = np.random.default_rng(seed)
        self.search = CtcBeamSearch(CtcBeamConfig(beam=READINGS, n_best=READINGS), 0.04)
        ids = {letter: tokenizer.encode(letter)[0] for letter in ALIKE}
        self.partner = {ids[a]: ids[b] for a, b in ALIKE.items()}

    def readings(
        self, text: str, *, ahead: float = 2.6, spread: float = 1.7, equal: tuple[str, int] = ("", 0)
    ) -> list[Hypothesis]:
        """N-best readings.

        Args:
            ahead: nats by which a letter is likelier than the one that sounds like it, on average.
            spread: of that, standard deviation.
            equal: a word and the place of its letter that is just as likely as the one that sounds like it.
        """
        rows: list[np.ndarray] = []
        for number, word in enumerate(text.split()):
            tokens = self.tokenizer.encode((" " if number else "") + word)
            for place, token in enumerate(tokens, start=len(word) - len(tokens)):
                letter = self.noise.normal(0.0, 1.0, len(self.tokenizer.pieces))
                letter[token] = 6.0
                if token in self.partner:
                    lead = 0.0 if (word, place) == equal else self.noise.normal(ahead, spread)
                    letter[self.partner[token]] = 6.0 - lead
                blank = self.noise.normal(0.0, 1.0, len(self.tokenizer.pieces))
                blank[0] = 8.0
                rows += [letter, blank]
        frames = torch.from_numpy(np.stack(rows)).log_softmax(dim=1)
        return self.search(pad([frames]))[0]

    def text(self, reading: Hypothesis) -> str:
        return " ".join(self.tokenizer.decode(reading.tokens).split())


def train(folder: Path, language: Language, steps: int, seed: int) -> tuple[int, float, float]:
    """Llama on documents of one to six sentences of one domain -> weights, processor seconds, last loss."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*SPECIAL, *language.words]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    draw = random.Random(seed + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    began, loss = time.process_time(), torch.tensor(math.nan)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows: list[torch.Tensor] = []
        for _ in range(32):
            domain = draw.randrange(2)
            lines = [language.sentence(domain, draw) for _ in range(draw.randint(1, 6))]
            ids = own.encode("".join(f"{line}\n" for line in lines), add_special_tokens=False)
            # Words that nobody knows: misread ones will be such.
            ids = [2 if i > 3 and draw.random() < 0.01 else i for i in ids]
            rows.append(torch.tensor([0, *ids, 1]))
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        real = ids != -100
        loss = model(input_ids=ids.clamp(min=0), attention_mask=real.long(), labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters()), time.process_time() - began, loss.item()


def rate(errors: Sequence[ErrorRate]) -> str:
    return f"{100 * ErrorRate.total(errors).rate:.2f} %"


def domain_prompts(language: Language, ear: Ear, llm: CausalLlm, draw: random.Random) -> RescoreConfig:
    """Part 1; returns the weight that dev chose."""

    def heard(count: int) -> list[tuple[int, str, list[Hypothesis]]]:
        found: list[tuple[int, str, list[Hypothesis]]] = []
        for number in range(count):
            sentence = language.sentence(number % 2, draw)
            found.append((number % 2, sentence, ear.readings(sentence)))
        return found

    dev, test = heard(DEV), heard(TEST)
    options = [
        candidates(readings, texts := [ear.text(r) for r in readings], llm.score(texts), reference)
        for _, reference, readings in dev
    ]
    tuned = tune_rescoring(options, "dev")
    print(
        f"dev, {len(dev)} sentences: first pass {100 * tuned.before.rate:.2f} % WER, second pass "
        f"without a prompt {100 * tuned.errors.rate:.2f} % ({tuned.config}), best of "
        f"{READINGS} readings {100 * tuned.oracle.rate:.2f} %",
        flush=True,
    )
    prompts = [[language.sentence(domain, draw) for _ in range(3)] for domain in (0, 1)]
    ways: dict[str, list[ErrorRate]] = {
        "first pass": [word_errors(reference, ear.text(readings[0])) for _, reference, readings in test]
    }
    config = SecondPassConfig(rescore=tuned.config)
    for name in ("no prompt", "right prompt", "wrong prompt"):
        passes = [
            SecondPass(llm, ear.tokenizer, config, prompt="" if name == "no prompt" else "\n".join(lines))
            for lines in (prompts if name != "wrong prompt" else prompts[::-1])
        ]
        ways[name] = [
            word_errors(reference, ear.text(passes[domain].alone(readings)[0]))
            for domain, reference, readings in test
        ]
    words = ErrorRate.total(ways["first pass"]).reference_length
    print(f"test, {len(test)} sentences of {words} words:")
    each = [str(number) for number in range(len(test))]
    without = ErrorRate.total(ways["no prompt"]).rate
    for name, errors in ways.items():
        beside = ""
        if name != "no prompt":
            gain = relative_gain(ways["no prompt"], errors, each)
            fewer = 1 - ErrorRate.total(errors).rate / without
            beside = f"; {100 * fewer:+.1f} % fewer errors than without a prompt"
            beside += f" (95 %: {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        print(f"  {name:13} {rate(errors)} WER{beside}", flush=True)
    return tuned.config


def carried_context(
    language: Language, ear: Ear, llm: CausalLlm, chosen: RescoreConfig, draw: random.Random
) -> None:
    """Part 2."""
    recordings: list[tuple[str, str, list[Hypothesis], list[Hypothesis], list[Hypothesis]]] = []
    for number in range(RECORDINGS):
        domain = number % 2
        first = language.sentence(domain, draw, (0.3, 0.0))
        pair = draw.choice([*zip(*language.paired, strict=True)])
        word = pair[domain]
        differs = next(i for i, (a, b) in enumerate(zip(*pair, strict=True)) if a != b)
        others = [draw.choice(language.common) for _ in range(4)]
        second = " ".join((*others[:2], word, *others[2:]))
        clear = {"ahead": 8.0, "spread": 0.5}
        recordings.append(
            (
                word,
                second,
                ear.readings(first, **clear),
                ear.readings(first, ahead=0.5, spread=1.0),
                ear.readings(second, **clear, equal=(word, differs)),
            )
        )
    print(f"{len(recordings)} recordings of two sentences, the pair's word in the second read rightly:")
    for name, tokens, unclear in (
        ("context", 200, False),
        ("no context", 0, False),
        ("unclear first", 200, True),
    ):
        config = SecondPassConfig(rescore=chosen, context=ContextConfig(tokens=tokens))
        second_pass = SecondPass(llm, ear.tokenizer, config)
        right = gated = 0
        for word, _, clear, noisy, last in recordings:
            second_pass.begin([])
            stretches = second_pass.in_order([noisy if unclear else clear, last])
            right += word in ear.text(stretches[1][0]).split()
            gated += (stretches[0][0].confidence or 0.0) < config.context.confidence
        print(f"  {name:13} {right}; first sentence below the gate ({config.context.confidence:g}): {gated}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_threads(options.threads)
    draw = random.Random(options.seed)
    language = make_language(draw)
    texts = [language.sentence(domain, draw) for domain in (0, 1) for _ in range(200)]
    tokenizer = GraphemeTokenizer.train([*texts, *ALIKE], GraphemeConfig(min_count=1, bytes=False))
    ear = Ear(tokenizer, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        weights, seconds, loss = train(Path(folder), language, options.steps, options.seed)
        print(
            f"{machine_name()}; seed {options.seed}; Llama of {weights:,} weights, {options.steps} steps in "
            f"{seconds:.0f} s of the processor, last loss {loss:.2f} nats a word"
        )
        llm = load_scorer(folder, device="cpu", config=LlmConfig(ending="separator"))
        assert isinstance(llm, CausalLlm)
    chosen = domain_prompts(language, ear, llm, draw)
    carried_context(language, ear, llm, chosen, draw)


if __name__ == "__main__":
    main()
