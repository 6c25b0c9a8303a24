"""Scores of KenLM's query module for a small hand-written ARPA file, as golden values.

    python -m venv kenlm-venv && kenlm-venv/bin/pip install kenlm==0.3.0
    kenlm-venv/bin/python tests/golden/make_kenlm.py

Writes data/kenlm_small.arpa (weights drawn with a fixed seed; no distribution, which queries do not need)
and data/kenlm_small.json: for each sentence the log10 score of every word and of the end, and whether KenLM
calls the word unknown.
"""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

import kenlm  # pyright: ignore[reportMissingImports]

DATA = Path(__file__).parent / "data"
WORDS = ["a", "b", "ọ̀", "d'e"]


def arpa() -> str:
    draw = random.Random(4)
    grams: list[list[tuple[str, ...]]] = [[(w,) for w in ("<unk>", "<s>", "</s>", *WORDS)]]
    for order, share in ((2, 0.6), (3, 0.5), (4, 0.5)):
        below = grams[-1]
        closed = set(below)
        every = [(*g, w) for g, w in product(below, ("</s>", *WORDS)) if g[-1] not in ("</s>", "<unk>")]
        # KenLM wants the last n - 1 words of every n-gram to be one too
        grams.append([g for g in every if g[1:] in closed and draw.random() < share])
        assert order == len(grams)
    lines = ["\\data\\", *(f"ngram {n}={len(g)}" for n, g in enumerate(grams, start=1))]
    for n, level in enumerate(grams, start=1):
        lines += ["", f"\\{n}-grams:"]
        for gram in level:
            weights = [f"{-draw.random() * 3:.5f}", " ".join(gram)]
            if n < 4 and gram[-1] != "</s>":
                weights.append(f"{-draw.random():.5f}")
            lines.append("\t".join(weights))
    return "\n".join([*lines, "", "\\end\\", ""])


def main() -> None:
    path = DATA / "kenlm_small.arpa"
    path.write_text(arpa(), encoding="utf-8")
    model = kenlm.Model(str(path))
    draw = random.Random(5)
    found = []
    for _ in range(60):
        words = draw.choices([*WORDS, "never"], weights=[4, 4, 4, 4, 1], k=draw.randint(0, 8))
        scores = list(model.full_scores(" ".join(words)))
        found.append(
            {
                "text": " ".join(words),
                "log10": [score for score, _, _ in scores],
                "unknown": [oov for _, _, oov in scores],
                "perplexity": model.perplexity(" ".join(words)),
            }
        )
    (DATA / "kenlm_small.json").write_text(json.dumps(found, ensure_ascii=False, indent=0), encoding="utf-8")


if __name__ == "__main__":
    main()
