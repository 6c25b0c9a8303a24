"""Time of scoring readings with a causal language model.

    python benchmarks/llm_rescoring.py [--threads 2] [--repeat 9] [--prompt 100]

A Llama of a million random weights (width 128, 4 layers, 2000 tokens) scores 100 readings of 40 tokens each,
without a prompt and after one of --prompt tokens: with the prompt's keys and values kept from the call before
("kept"), read anew in every call ("cached"), and with the prompt in front of every reading ("full"). The ways
take turns. Printed: best and median wall time, CPU time over the number of threads, and the largest
difference to the full pass.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

READINGS, TOKENS, VOCABULARY = 100, 40, 2000


def save_model(folder: Path) -> int:
    """Write the model and a tokenizer of one token a word -> its number of weights."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    words = ["<s>", "</s>", "<unk>", *(f"w{i}" for i in range(VOCABULARY - 3))]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of scoring readings with a causal language model.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--prompt", type=int, default=100)
    options = parser.parse_args()

    import torch

    from firstwords.lm.llm import CausalLlm
    from firstwords.lm.llm_score import LlmConfig

    torch.set_num_threads(options.threads)
    draw = random.Random(0)

    def words(count: int) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY - 3)}" for _ in range(count))

    with tempfile.TemporaryDirectory() as folder:
        weights = save_model(Path(folder))
        cached = CausalLlm.load(folder, device="cpu")
        full = CausalLlm.load(folder, device="cpu", config=LlmConfig(reuse_prompt=False))
    # 39 words and the end: 40 tokens
    texts = [words(TOKENS - 1) for _ in range(READINGS)]
    prompt = words(options.prompt)

    def anew() -> list[float]:
        cached._last_prompt = None
        return [s.log_prob for s in cached.score(texts, prompt)]

    ways: dict[str, Callable[[], list[float]]] = {
        "no prompt": lambda: [s.log_prob for s in full.score(texts)],
        "kept": lambda: [s.log_prob for s in cached.score(texts, prompt)],
        "cached": anew,
        "full": lambda: [s.log_prob for s in full.score(texts, prompt)],
    }
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[float]] = {}
    for _ in range(options.repeat):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = way()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    print(f"{weights:,} weights, {READINGS} readings of {TOKENS} tokens, prompt of {options.prompt} tokens")
    for name in ways:
        most = max(abs(one - other) for one, other in zip(found[name], found["full"], strict=True))
        apart = f"; apart from full by at most {most:.1e}" if name in {"kept", "cached"} else ""
        print(
            f"{name:10} wall best {min(walls[name]):.3f} s, median {statistics.median(walls[name]):.3f} s; "
            f"CPU / {options.threads} {min(cpus[name]) / options.threads:.3f} s{apart}"
        )


if __name__ == "__main__":
    main()
